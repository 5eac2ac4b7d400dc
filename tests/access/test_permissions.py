"""The least that AWS must allow, proven behind a gate that refuses every action outside the policy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

import kinesis_nb as kn
from kinesis_nb.emulator import ErrorReply
from tests.conftest import by_key, written_by_key
from tests.support.aws import ACCOUNT, Gate, refusal
from tests.support.local import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

KEYS = kn.StaticCredentials("emulator", "emulator")
READ = ("ListShards", "GetShardIterator", "GetRecords", "DescribeStream")
SAMPLE_READ = [f"kinesis:{action}" for action in READ]  # the connector's sample policy
SAMPLE_WRITE = ["kinesis:PutRecords"]
STREAM = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
OUT = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/out"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"


@pytest.fixture
def gate(emulator: Emulator) -> Gate:
    return Gate(emulator.endpoint_url, set())


@pytest.fixture
def gated(gate: Gate) -> Iterator[kn.Source]:
    """A source that reaches the emulator through the gate only."""
    with gate.open() as url:
        yield kn.connect(endpoint_url=url, auth=KEYS, exports_enabled=True)


def read(source: kn.Source, _: Path) -> object:
    return source.read("orders", progress=False)


def tail(source: kn.Source, _: Path) -> object:
    with source.tail("orders", start="trim_horizon") as tail:
        return tail.take(30, timeout=10)


def sync(source: kn.Source, folder: Path) -> object:
    sync = source.sync("orders", folder / "table", commit_interval=0.1)
    try:
        assert sync.wait(timeout=20)
        return sync.scan().collect()
    finally:
        sync.stop()


def explore(source: kn.Source, _: Path) -> object:
    view = source.explore("orders")
    return view.sample(30), view._repr_html_(), repr(view.lineage), view.lag(), view.heat(10)


def export(source: kn.Source, _: Path) -> int:
    return source.export_df(pl.DataFrame({"key": ["a"], "n": [1]}), OUT, progress=False).rows


def export_stream(source: kn.Source, folder: Path) -> int:
    export = local(source.export_stream(folder / "table", OUT))
    try:
        assert export.wait(timeout=20)
        return export.status().rows
    finally:
        export.stop()


Use = Callable[[kn.Source, Path], object]
READERS: dict[str, Use] = {"read": read, "tail": tail, "sync": sync, "explore": explore}
WRITERS: dict[str, Use] = {"export_df": export, "export_stream": export_stream}


def allowed_by(**options: object) -> set[str]:
    """Return the actions of the policy that iam_policy() writes."""
    policy = kn.connect(auth=KEYS).iam_policy(**options)  # type: ignore[arg-type]
    return {action.partition(":")[2] for action in policy.actions}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_needs_exactly_the_four(
    gate: Gate, gated: kn.Source, streams: Streams, tmp_path: Path, name: str
) -> None:
    """Each way of reading works through a reshard under its generated policy, and asks for no other that it needs."""
    streams.create(shards=2)
    streams.put(15)
    streams.split()
    streams.put(15)
    gate.allowed = allowed_by(read=[STREAM])
    found = READERS[name](gated, tmp_path)
    if name == "sync":
        assert by_key(found.sort("partition_key", "shard_offset").to_arrow()) == written_by_key(streams)  # type: ignore[attr-defined]
    elif name in {"read", "tail"}:
        assert len(found) == 30  # type: ignore[arg-type]
    assert set(gate.refused) <= {"DescribeStreamSummary"}  # optional, and asked for by explore() alone
    assert (name == "explore") or not gate.refused


USES = {
    "read": {"ListShards", "GetShardIterator", "GetRecords"},
    "tail": {"ListShards", "GetShardIterator", "GetRecords"},
    "sync": set(READ),
    "explore": set(READ),
}


@pytest.mark.parametrize(
    ("name", "missing"), [(name, action) for name, uses in USES.items() for action in sorted(uses)]
)
def test_without_one_of_the_four_the_error_names_it(
    gate: Gate, gated: kn.Source, streams: Streams, tmp_path: Path, name: str, missing: str
) -> None:
    """Any one action removed: an AccessDenied that names the action and the ARN, with the statement to add."""
    streams.create()
    streams.put(10)
    gate.allowed = allowed_by(read=[STREAM]) - {missing}
    with pytest.raises(kn.AccessDenied) as caught:
        READERS[name](gated, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"kinesis:{missing} on {STREAM} is denied to arn:aws:iam::{ACCOUNT}:user/ada")
    wanted = json.loads(lines[1].partition("policy: ")[2])
    assert wanted == {"Effect": "Allow", "Action": f"kinesis:{missing}", "Resource": STREAM}
    assert gate.refused[missing] >= 1


@pytest.mark.parametrize("name", WRITERS)
def test_an_export_needs_put_records_alone(
    gate: Gate, gated: kn.Source, emulator: Emulator, streams: Streams, tmp_path: Path, name: str
) -> None:
    """Under its generated policy, which is PutRecords, an export writes; without it the error names it."""
    streams.create()
    streams.put(1)
    streams.create("out")
    sync(kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS), tmp_path)
    gate.allowed = set()
    with pytest.raises(kn.AccessDenied, match=f"kinesis:PutRecords on {re.escape(OUT)} is denied") as caught:
        WRITERS[name](gated, tmp_path)
    wanted = json.loads(caught.value.hint.partition("policy: ")[2])
    assert wanted == {"Effect": "Allow", "Action": "kinesis:PutRecords", "Resource": OUT}
    gate.allowed = allowed_by(write=[OUT])
    gate.asked.clear()
    gate.refused.clear()
    assert WRITERS[name](gated, tmp_path) == 1
    assert set(gate.asked) - set(gate.refused) == {"PutRecords"}


def test_the_catalog_needs_list_streams(gate: Gate, gated: kn.Source, streams: Streams) -> None:
    """explore() without a stream names ListStreams when that is denied, and shows what it may otherwise."""
    streams.create()
    gate.allowed = allowed_by(read=[STREAM])
    with pytest.raises(kn.AccessDenied, match="kinesis:ListStreams on \\* is denied"):
        gated.explore()
    gate.allowed = allowed_by(read=[STREAM], list_streams=True)
    assert "orders" in gated.explore()._repr_html_()


def test_the_summary_needs_its_action(gate: Gate, gated: kn.Source, streams: Streams) -> None:
    """What only the summary tells is shown under the policy that allows it, and is said to be missing otherwise."""
    streams.create()
    gate.allowed = allowed_by(read=[STREAM])
    assert set(gated.explore("orders").extras.values()) == {"not permitted"}
    gate.allowed = allowed_by(read=[STREAM], summary=True)
    assert gated.explore("orders").extras["consumers"] == 0


def policy_for(**options: object) -> kn.IamPolicy:
    return kn.connect(auth=KEYS).iam_policy([STREAM], [OUT], **options)  # type: ignore[arg-type]


def test_the_default_policy_has_the_samples_actions() -> None:
    """One stream to read and one to write: the actions of the connector's sample, on exactly these two."""
    policy = policy_for()
    assert list(policy.actions) == SAMPLE_READ + SAMPLE_WRITE
    assert json.loads(policy.to_json()) == {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": SAMPLE_READ, "Resource": STREAM},
            {"Effect": "Allow", "Action": SAMPLE_WRITE[0], "Resource": OUT},
        ],
    }
    assert policy.trust_policy is None
    assert policy.resource_policies == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"list_streams": True}, ["ListStreams"]),
        ({"summary": True}, ["DescribeStreamSummary"]),
        ({"fan_out": True}, ["RegisterStreamConsumer", "DescribeStreamConsumer", "SubscribeToShard"]),
    ],
    ids=str,
)
def test_a_flag_adds_its_own_actions_alone(options: dict[str, bool], added: list[str]) -> None:
    """Each optional feature adds what it needs; nothing is wild but ListStreams and a stream's own consumers."""
    policy = policy_for(**options)
    assert sorted(policy.actions) == sorted(SAMPLE_READ + SAMPLE_WRITE + [f"kinesis:{action}" for action in added])
    wild = [one["Resource"] for one in policy.statements if "*" in json.dumps(one["Resource"])]
    assert wild in ([], ["*"], [f"{STREAM}/consumer/*"])


def test_a_customers_key() -> None:
    """Reading decrypts, writing makes data keys, both by way of Kinesis only."""
    statement = policy_for(kms_key=KEY).statements[-1]
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == KEY
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": "kinesis.us-east-1.amazonaws.com"}}


def test_another_account() -> None:
    """Streams of another account get a policy each, for this principal and these actions."""
    policies = policy_for(cross_account=ROLE).resource_policies
    assert set(policies) == {STREAM, OUT}
    (statement,) = policies[STREAM]["Statement"]
    assert statement["Principal"] == {"AWS": ROLE}
    assert (statement["Action"], statement["Resource"]) == (SAMPLE_READ, STREAM)


def test_a_trust_policy_has_the_external_id() -> None:
    """Whom the role trusts, and the external id that this source gives."""
    source = kn.connect(auth=KEYS, sts_role=kn.StsRole(ROLE, "me", external_id="ext-42"))
    assert source.iam_policy([STREAM], trust=f"arn:aws:iam::{ACCOUNT}:root").trust_policy == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": "ext-42"}},
            }
        ],
    }


def test_a_name_becomes_an_exact_arn(source: kn.Source, streams: Streams) -> None:
    """A stream given by name is looked up; one that nobody can look up is an error that says so."""
    arn = streams.create()
    assert source.iam_policy(read=["orders"]).statements[0]["Resource"] == arn
    with pytest.raises(kn.ConfigError, match=r"account of stream 'nope' is not known.*\nhint: give the ARN"):
        source.iam_policy(read=["nope"])


def test_a_policy_shows_itself_with_buttons_that_copy(source: kn.Source) -> None:
    """Every document has a button, and the text beside it is the JSON."""
    shown = policy_for(trust=ROLE, cross_account=ROLE)._repr_html_()
    assert shown.count("<button") == shown.count("writeText") == shown.count("<pre>") == 4
    assert shown.count("document.execCommand('copy')") == 4  # without a clipboard: a page that came by plain http


Verdicts = dict[str, kn.Verdict]


def verdicts(report: kn.PermissionReport) -> Verdicts:
    return {one.action.partition(":")[2]: one.verdict for one in report}


@pytest.mark.parametrize("missing", [None, *READ, "PutRecords", "ListStreams", "DescribeStreamSummary"])
def test_check_finds_the_one_that_is_missing(
    gate: Gate, gated: kn.Source, streams: Streams, missing: str | None
) -> None:
    """Everything allowed is allowed, the one that is not is denied, and the report's policy would allow it."""
    streams.create()
    streams.put(5)
    everything = {*READ, "PutRecords", "ListStreams", "DescribeStreamSummary"}
    gate.allowed = everything - {missing}
    report = gated.check(read=[STREAM], write=[STREAM])
    found = verdicts(report)
    # without an iterator nobody can ask about what needs one
    hidden = {"GetRecords", "PutRecords"} if missing == "GetShardIterator" else set()
    for action in everything - {missing} - hidden:
        assert found[action] is kn.Verdict.ALLOWED, action
    for action in hidden:
        assert found[action] is kn.Verdict.UNKNOWN, action
    if missing:
        assert found[missing] is kn.Verdict.DENIED
        assert list(report.policy.actions) == [f"kinesis:{missing}"]
        assert report.denied[0].disables
    assert report.is_sufficient == (missing in {None, "ListStreams", "DescribeStreamSummary"})
    assert streams.call("DescribeStream", StreamName="orders")["StreamDescription"]["StreamStatus"] == "ACTIVE"


def test_check_changes_nothing(source: kn.Source, streams: Streams) -> None:
    """No record is written by asking whether one could be."""
    arn = streams.create()
    streams.put(5)
    assert source.check(read=[arn], write=[arn]).is_sufficient
    assert len(source.read("orders", progress=False)) == 5


class _Encrypted(Gate):
    """A key that may not be used: noticed where a record is read, not by DryRun."""

    def pass_on(self, action: str, token: str | None, body: bytes, headers: object) -> tuple[int, bytes]:
        if action == "GetRecords" and "DryRun" not in json.loads(body):
            return 400, refusal("KMSAccessDeniedException", "The ciphertext refers to a key that you may not use.")
        return super().pass_on(action, token, body, headers)


def encrypted(streams: Streams, key: str, records: int) -> None:
    streams.create()
    streams.put(records)
    streams.call("StartStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId=key)


@pytest.mark.parametrize("key", [KEY, KEY.rpartition("/")[2], "alias/mine"])
def test_check_finds_a_customers_key(source: kn.Source, emulator: Emulator, streams: Streams, key: str) -> None:
    """Whether the key decrypts is seen by reading a record; whether it encrypts nobody can say without a write."""
    encrypted(streams, key, records=3)
    found = {one.action: one for one in source.check(read=["orders"], write=["orders"])}
    assert found["kms:Decrypt"].verdict is kn.Verdict.ALLOWED
    assert found["kms:GenerateDataKey"].verdict is kn.Verdict.UNKNOWN
    assert "only writing" in found["kms:GenerateDataKey"].reason
    with _Encrypted(emulator.endpoint_url, {*READ, "PutRecords"}).open() as url:
        report = kn.connect(endpoint_url=url, auth=KEYS).check(read=["orders"])
    denied = next(one for one in report.denied if one.action == "kms:Decrypt")
    assert denied.resource.endswith(key)
    assert not report.is_sufficient
    wanted = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": denied.resource}
    assert (wanted in report.policy.statements) == (key != "alias/mine")  # an alias counts in no policy
    if key != "alias/mine":
        assert denied.resource.startswith("arn:aws:kms:us-east-1:")


@pytest.mark.parametrize(("key", "records", "verdict"), [("alias/aws/kinesis", 3, None), (KEY, 0, kn.Verdict.UNKNOWN)])
def test_check_asks_about_no_other_key(
    source: kn.Source, streams: Streams, key: str, records: int, verdict: kn.Verdict | None
) -> None:
    """AWS's own key needs no permission; without a record nobody can tell."""
    encrypted(streams, key, records)
    assert verdicts(source.check(read=["orders"])).get("Decrypt") is verdict


class _WithoutDryRun(Gate):
    def pass_on(self, action: str, token: str | None, body: bytes, headers: object) -> tuple[int, bytes]:
        asked = {name: value for name, value in json.loads(body).items() if name != "DryRun"}
        return super().pass_on(action, token, json.dumps(asked).encode(), WithoutLength(headers))


class WithoutLength:
    def __init__(self, headers: object) -> None:
        self._headers = headers

    def items(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self._headers.items() if name.lower() != "content-length"]  # type: ignore[attr-defined]


def test_a_server_that_ignores_dry_run_is_not_asked_to_write(emulator: Emulator, streams: Streams) -> None:
    """Where a harmless call shows that DryRun is not known, PutRecords stays unknown and nothing is written."""
    streams.create()
    gate = _WithoutDryRun(emulator.endpoint_url, {*READ, "PutRecords", "ListStreams", "DescribeStreamSummary"})
    with gate.open() as url:
        source = kn.connect(endpoint_url=url, auth=KEYS)
        found = verdicts(source.check(read=["orders"], write=["orders"]))
        assert found["GetRecords"] is kn.Verdict.ALLOWED
        assert found["PutRecords"] is kn.Verdict.UNKNOWN
        assert gate.asked["PutRecords"] == 0


def test_check_of_a_stream_that_is_not_there(source: kn.Source, streams: Streams) -> None:
    """What cannot be known is unknown, with the reason."""
    streams.create("other")
    report = source.check(read=[STREAM])
    assert verdicts(report)["DescribeStream"] is kn.Verdict.UNKNOWN
    assert "no stream 'orders'" in report.permissions[0].reason


def test_check_with_wrong_credentials_is_an_error(source: kn.Source, emulator: Emulator) -> None:
    """A report about permissions makes no sense for somebody AWS does not know."""
    emulator.on("*", ErrorReply("UnrecognizedClientException"), ErrorReply("UnrecognizedClientException"))
    with pytest.raises(kn.CredentialsError, match="does not know this access key"):
        source.check(read=[STREAM])


def test_the_report_shows_ticks(gate: Gate, gated: kn.Source, streams: Streams) -> None:
    """As text and as HTML: a tick or a cross per action, and the policy that would fix it."""
    streams.create()
    gate.allowed = {"ListShards"}
    report = gated.check(read=[STREAM])
    assert "✓ allowed  kinesis:ListShards" in repr(report)
    assert "✗ denied   kinesis:DescribeStream" in repr(report)
    shown = report._repr_html_()
    assert "✓ allowed" in shown
    assert "✗ denied" in shown
    assert "clipboard" in shown
