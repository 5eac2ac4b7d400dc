"""Signing in against servers that refuse: IAM and STS of ministack with AUTH, and moto's STS as a second."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import polars as pl
import pytest

import kinesis_nb as kn
from kinesis_nb.core.transport import SystemClock
from tests.support.servers import ministack, moto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

REGION, ACCOUNT = "us-east-1", "000000000000"
EXTERNAL_ID = "ext-42"


class Account:
    """An AWS account on ministack, seen by its root user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kinesis, self.iam, self.s3 = (self._client(service) for service in ("kinesis", "iam", "s3"))
        self.kinesis.create_stream(StreamName="orders", ShardCount=1)
        self.kinesis.get_waiter("stream_exists").wait(StreamName="orders", WaiterConfig={"Delay": 1})
        self.kinesis.put_record(StreamName="orders", PartitionKey="a", Data=b'{"n": 1}')
        self.arn = self.kinesis.describe_stream(StreamName="orders")["StreamDescription"]["StreamARN"]

    def _client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.url, **keys)

    def user(self, *statements: dict[str, Any]) -> kn.StaticCredentials:
        name = f"user-{uuid.uuid4().hex[:8]}"
        self.iam.create_user(UserName=name)
        if statements:
            self.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        return kn.StaticCredentials(key["AccessKeyId"], key["SecretAccessKey"])

    def role(self, trust: dict[str, Any], *statements: dict[str, Any]) -> str:
        name = f"role-{uuid.uuid4().hex[:8]}"
        arn: str = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        if statements:
            self.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
        return arn

    def connect(self, auth: kn.StaticCredentials | kn.Profile | None, **more: Any) -> kn.Source:
        return kn.connect(endpoint_url=self.url, sts_endpoint_url=self.url, auth=auth, **more)


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions: str, resource: str = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


READING = allow("kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords", "kinesis:DescribeStream")


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with ministack() as url:
        yield Account(url)


def refused(source: kn.Source, kind: type[kn.KinesisError]) -> list[str]:
    """Return the two lines that a read ends with."""
    with pytest.raises(kind) as caught:
        source.read("orders", progress=False)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
    return lines


def test_static_credentials_read_with_the_readers_policy(account: Account) -> None:
    """A user with the four actions of the generated policy reads."""
    assert len(account.connect(account.user(READING)).read("orders", progress=False)) >= 1


@pytest.mark.parametrize("missing", ["ListShards", "GetShardIterator", "GetRecords"])
def test_without_one_action_the_error_names_it(account: Account, missing: str) -> None:
    """A denial names the action, the caller, and the statement that would allow it."""
    some = [action for action in READING["Action"] if not action.endswith(missing)]
    lines = refused(account.connect(account.user(allow(*some))), kn.AccessDenied)
    assert f"kinesis:{missing} on " in lines[0]
    assert "user/user-" in lines[0]
    wanted = json.loads(lines[1].partition("policy: ")[2])
    assert wanted["Action"] == f"kinesis:{missing}"


def test_the_statement_of_a_denial_names_the_exact_stream(account: Account) -> None:
    """The statement in the hint has the stream's ARN, and adding it makes the call work."""
    auth = account.user(*(allow(action) for action in READING["Action"] if action != "kinesis:ListShards"))
    lines = refused(account.connect(auth), kn.AccessDenied)
    wanted = json.loads(lines[1].partition("policy: ")[2])
    assert wanted == {"Effect": "Allow", "Action": "kinesis:ListShards", "Resource": account.arn}
    name = lines[0].rpartition("/")[2]
    account.iam.put_user_policy(UserName=name, PolicyName="fix", PolicyDocument=document(wanted))
    assert len(account.connect(auth).read("orders", progress=False)) >= 1


def test_an_explicit_deny_says_that_no_allow_helps(account: Account) -> None:
    """Where a Deny is the reason, the hint is not another Allow."""
    deny = {"Effect": "Deny", "Action": "kinesis:ListShards", "Resource": "*"}
    lines = refused(account.connect(account.user(READING, deny)), kn.AccessDenied)
    assert "explicit Deny in" in lines[0]
    assert "no Allow" in lines[1]


def test_a_wrong_secret_an_unknown_key_and_a_bad_token_are_told_apart(account: Account) -> None:
    """Each is a CredentialsError of two lines with words of its own."""
    good = account.user(READING)
    wrong = refused(account.connect(kn.StaticCredentials(good.access_key_id, "wrong")), kn.CredentialsError)
    assert "secret access key does not belong" in wrong[0]
    unknown = refused(account.connect(kn.StaticCredentials("AKIANOBODYKNOWS0000", "x")), kn.CredentialsError)
    assert "does not know this access key" in unknown[0]
    token = kn.StaticCredentials(good.access_key_id, good.secret_access_key, "not-a-token")
    assert "session token" in refused(account.connect(token), kn.CredentialsError)[1]


class _SkewedClock(SystemClock):
    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.mark.parametrize(("minutes", "side"), [(9, "ahead of"), (-9, "behind")])
def test_a_skewed_clock_is_measured(account: Account, monkeypatch: pytest.MonkeyPatch, minutes: int, side: str) -> None:
    """A signature refused because of this machine's clock says by how much that is off."""
    ahead = timedelta(minutes=minutes)
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda **_: datetime.now(UTC).replace(tzinfo=None) + ahead
    )
    config = account.connect(account.user(READING)).config
    lines = refused(kn.Source(config, clock=_SkewedClock(ahead)), kn.CredentialsError)
    assert f"clock is 9.0 minutes {side} AWS's" in lines[0]
    assert "set the clock" in lines[1]


def test_no_credentials(account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing in the environment, the error says how to sign in."""
    _no_aws_environment(monkeypatch, tmp_path)
    assert "no AWS credentials" in refused(account.connect(None), kn.CredentialsError)[0]


def test_the_default_chain_and_profiles(account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without auth the environment signs in; a profile is found in the file; static keys ignore both."""
    _no_aws_environment(monkeypatch, tmp_path)
    good = account.user(READING)
    secret = good.secret_access_key.reveal()
    (tmp_path / "credentials").write_text(
        f"[good]\naws_access_key_id={good.access_key_id}\naws_secret_access_key={secret}\n"
    )
    assert len(account.connect(kn.Profile("good")).read("orders", progress=False)) >= 1
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", good.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    assert len(account.connect(None).read("orders", progress=False)) >= 1
    monkeypatch.setenv("AWS_SESSION_TOKEN", "not-a-token")
    assert len(account.connect(good).read("orders", progress=False)) >= 1


def _no_aws_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _trusting(auth: kn.StaticCredentials, account: Account, external_id: str | None = None) -> dict[str, Any]:
    """Return the trust policy that iam_policy() writes for whoever signs in with these keys."""
    sts = boto3.client(
        "sts",
        region_name=REGION,
        endpoint_url=account.url,
        aws_access_key_id=auth.access_key_id,
        aws_secret_access_key=auth.secret_access_key.reveal(),
    )
    role = kn.StsRole(f"arn:aws:iam::{ACCOUNT}:role/any", "me", external_id=external_id)
    policy = account.connect(auth, sts_role=role).iam_policy(trust=sts.get_caller_identity()["Arn"])
    assert policy.trust_policy is not None
    return dict(policy.trust_policy)


def test_a_role_with_its_external_id(account: Account) -> None:
    """With the external id that the trust policy asks for the role reads; with a wrong one or none it is refused."""
    auth = account.user(allow("sts:AssumeRole"))
    arn = account.role(_trusting(auth, account, EXTERNAL_ID), READING)
    right = kn.StsRole(arn, "reader", external_id=EXTERNAL_ID)
    assert len(account.connect(auth, sts_role=right).read("orders", progress=False)) >= 1
    for external_id in ("ext-43", None):
        role = kn.StsRole(arn, "reader", external_id=external_id)
        lines = refused(account.connect(auth, sts_role=role), kn.AccessDenied)
        assert f"sts:AssumeRole on {arn} is denied" in lines[0]
        assert "external id" in lines[1]


def test_a_role_that_does_not_trust_the_caller(account: Account) -> None:
    """The error names the role and what its trust policy must say."""
    arn = account.role(_trusting(account.user(), account), READING)
    lines = refused(
        account.connect(account.user(allow("sts:AssumeRole")), sts_role=kn.StsRole(arn, "me")), kn.AccessDenied
    )
    assert arn in lines[0]
    assert "trust policy" in lines[1]


def test_a_role_may_do_less_than_its_caller(account: Account) -> None:
    """The role's policy counts, and the denial names the role's session."""
    auth = account.user(allow("sts:AssumeRole"), READING)
    arn = account.role(_trusting(auth, account), allow("kinesis:DescribeStream"))
    lines = refused(account.connect(auth, sts_role=kn.StsRole(arn, "my-session")), kn.AccessDenied)
    assert "kinesis:ListShards" in lines[0]
    assert lines[0].endswith("/my-session")


def test_the_role_reaches_the_logs_of_the_account_as_asked(account: Account) -> None:
    """Duration and session name go to STS as given, and the name of a stream resolves through the role's account."""
    auth = account.user(allow("sts:AssumeRole"))
    arn = account.role(_trusting(auth, account))
    source = account.connect(auth, sts_role=kn.StsRole(arn, "a-session"))
    assert source.iam_policy(["orders"]).statements[0]["Resource"] == account.arn


def test_an_export_to_another_account_does_not_reach_our_own(account: Account) -> None:
    """A stream of that name in the own account is not written to in its place."""
    source = account.connect(account.user(allow("kinesis:*")), exports_enabled=True)
    frame = pl.DataFrame({"key": ["a"]})
    theirs = account.arn.replace(ACCOUNT, "999999999999")
    with pytest.raises(kn.StreamNotFound, match=f"no stream '{theirs}'"):
        source.export_df(frame, theirs, progress=False)
    before = len(source.read("orders", progress=False))
    assert source.export_df(frame, account.arn, progress=False).rows == 1
    assert len(source.read("orders", progress=False)) == before + 1


def test_check_against_real_policies(account: Account) -> None:
    """check() finds what is allowed and denied, and its policy makes the second look all allowed."""
    auth = account.user(allow("kinesis:ListShards", "kinesis:DescribeStream"))
    source = account.connect(auth)
    verdicts = {one.action.partition(":")[2]: one.verdict for one in source.check(read=["orders"])}
    assert verdicts["ListShards"] is verdicts["DescribeStream"] is kn.Verdict.ALLOWED
    assert verdicts["GetShardIterator"] is verdicts["ListStreams"] is kn.Verdict.DENIED
    assert verdicts["GetRecords"] is kn.Verdict.UNKNOWN  # cannot be asked without an iterator


def test_motos_sts_gives_a_role_too() -> None:
    """Against a second STS: the role's credentials sign, and the source reads."""
    with moto() as url:
        keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "x"}
        kinesis = boto3.client("kinesis", region_name=REGION, endpoint_url=url, **keys)
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        role = kn.StsRole("arn:aws:iam::123456789012:role/reader", "me", external_id="abc")
        source = kn.connect(
            endpoint_url=url, sts_endpoint_url=url, auth=kn.StaticCredentials(*keys.values()), sts_role=role
        )
        deadline = time.monotonic() + 10
        while source.explore("orders").summary.status != "ACTIVE" and time.monotonic() < deadline:
            pass
        assert len(source.read("orders", progress=False)) == 0
