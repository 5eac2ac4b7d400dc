"""Credentials that renew themselves: roles in virtual time, instance metadata, tokens that expire mid-run."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

import kinesis_nb as kn
from kinesis_nb.access.config import SourceConfig
from kinesis_nb.core.transport import SystemClock
from kinesis_nb.emulator import ManualClock
from kinesis_nb.service.client import KinesisClient
from kinesis_nb.service.credentials import Renewable, sign_in
from tests.support.aws import Gate, Metadata, Quiet, Sts, refusal, serving
from tests.support.virtual import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

THREADS, LIFETIME, EXPIRIES = 64, 900, 20
TICK = 145.0  # seconds between two rounds of calls; less than the time in which a renewal may still fail
STATIC = kn.StaticCredentials("AKIABASE", "base-secret")
ROLE = kn.StsRole("arn:aws:iam::123456789012:role/team/reader", "me", external_id="abc")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(ManualClock(datetime.now(UTC).timestamp()))


@pytest.fixture
def sts(clock: VirtualClock) -> Sts:
    return Sts(clock)


def config(url: str, sts_url: str | None = None, role: kn.StsRole | None = ROLE) -> SourceConfig:
    return SourceConfig(auth=STATIC, sts_role=role, endpoint_url=url, sts_endpoint_url=sts_url)


class _Answering(Gate):
    """Responds to ListStreams itself: thousands of calls need no Kinesis behind."""

    def pass_on(self, action: str, token: str | None, body: bytes, headers: object) -> tuple[int, bytes]:
        if not self.takes_token(token):
            self.expired += 1
            return 400, refusal("ExpiredTokenException", "expired")
        self.asked[action] += 1
        return 200, b'{"StreamNames": [], "HasMoreStreams": false}'


@pytest.mark.slow
def test_a_role_is_assumed_once_per_lifetime(clock: VirtualClock, sts: Sts) -> None:
    """64 threads over 20 expiries of 900 s: at most 2 AssumeRole calls per lifetime, no call with expired ones."""
    gate = _Answering("", set(), sts.holds)
    rounds = int(EXPIRIES * LIFETIME / TICK)
    with sts.open() as sts_url, gate.open() as url, ThreadPoolExecutor(THREADS) as pool:
        client = KinesisClient(config(url, sts_url), clock)
        for number in range(rounds):
            calls = THREADS if number % 8 == 0 else 4
            list(pool.map(lambda _: client.list_streams(), range(calls)))
            clock.sleep(TICK)
    assert gate.expired == 0
    assert gate.asked["ListStreams"] >= rounds * 4
    lifetimes = rounds * TICK / LIFETIME
    assert EXPIRIES <= len(sts.requests) <= 2 * lifetimes
    assert sts.requests[0] | {"Action": "", "Version": ""} == {
        "Action": "",
        "Version": "",
        "RoleArn": ROLE.role_arn,
        "RoleSessionName": "me",
        "DurationSeconds": "900",
        "ExternalId": "abc",
    }


def test_all_threads_wait_for_the_first_role(clock: VirtualClock, sts: Sts) -> None:
    """64 threads that start together make one AssumeRole call."""
    gate = _Answering("", set(), sts.holds)
    start = threading.Barrier(THREADS)
    with sts.open() as sts_url, gate.open() as url, ThreadPoolExecutor(THREADS) as pool:
        client = KinesisClient(config(url, sts_url), clock)

        def ask(_: int) -> None:
            start.wait()
            client.list_streams()

        list(pool.map(ask, range(THREADS)))
    assert len(sts.requests) == 1
    assert gate.expired == 0


def test_a_renewal_that_fails_does_not_hurt_before_it_must(clock: VirtualClock, sts: Sts) -> None:
    """While the old credentials hold, STS's trouble is not the caller's, nor is STS asked at every call; then it is."""
    gate = _Answering("", set(), sts.holds)
    with sts.open() as sts_url, gate.open() as url:
        client = KinesisClient(config(url, sts_url), clock)
        client.list_streams()
        sts.refuse = "ServiceUnavailable"
        clock.sleep(LIFETIME - 200)
        for _ in range(20):
            client.list_streams()
        assert len(sts.requests) == 2
        clock.sleep(31)
        client.list_streams()
        assert len(sts.requests) == 3
        clock.sleep(140)
        with pytest.raises(kn.ServiceError, match="AssumeRole") as caught:
            client.list_streams()
        assert caught.value.retryable
        sts.refuse = ""
        client.list_streams()
    assert gate.expired == 0


def test_credentials_that_expire_mid_run_are_renewed_once(clock: VirtualClock, sts: Sts) -> None:
    """A token that the service takes back early costs one AssumeRole call for all threads, and no error."""
    gate = _Answering("", set(), sts.holds)
    with sts.open() as sts_url, gate.open() as url, ThreadPoolExecutor(16) as pool:
        client = KinesisClient(config(url, sts_url), clock)
        client.list_streams()
        sts.expires.clear()
        list(pool.map(lambda _: client.list_streams(), range(64)))
    assert len(sts.requests) == 2
    assert 1 <= gate.expired <= 16


def test_a_token_that_stays_refused_is_an_error_after_one_more_try(clock: VirtualClock, sts: Sts) -> None:
    """Renewed credentials that are refused too are an error of two lines, not a loop."""
    gate = _Answering("", set(), lambda _: False)
    with sts.open() as sts_url, gate.open() as url:
        client = KinesisClient(config(url, sts_url), clock)
        with pytest.raises(kn.CredentialsError, match=r"have expired.*\nhint: log in again"):
            client.list_streams()
    assert gate.expired == 2
    assert len(sts.requests) == 2


def test_static_keys_that_expired_are_not_tried_twice(clock: VirtualClock) -> None:
    """There is nothing to renew: one request, one error."""
    gate = _Answering("", set(), lambda _: False)
    with gate.open() as url:
        client = KinesisClient(config(url, role=None), clock)
        with pytest.raises(kn.CredentialsError, match="have expired"):
            client.list_streams()
    assert gate.expired == 1


def test_a_reader_survives_expiry(emulator: Emulator, streams: Streams, clock: VirtualClock, sts: Sts) -> None:
    """A tail continues when its token is taken back, without a record lost."""
    streams.create()
    streams.put(50)
    gate = Gate(emulator.endpoint_url, {"ListShards", "GetShardIterator", "GetRecords", "DescribeStream"}, sts.holds)
    with sts.open() as sts_url, gate.open() as url:
        source = kn.connect(
            endpoint_url=url, sts_endpoint_url=sts_url, auth=STATIC, sts_role=kn.StsRole(ROLE.role_arn, "me", 43_200)
        )
        sts.clock = SystemClock()
        with source.tail("orders", start="trim_horizon") as tail:
            first = len(tail.take(50, timeout=10))
            sts.expires.clear()
            streams.put(50)
            second = len(tail.take(50, timeout=20))
    assert (first, second) == (50, 50)
    assert gate.expired >= 1
    assert len(sts.requests) == 2


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment with keys and files that AwsInstance must not look at."""
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=AKIAFILE\naws_secret_access_key=x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    return tmp_path


def _in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.usefixtures("no_environment")
def test_the_role_of_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """AwsInstance asks the instance's metadata with a v2 token, and neither the environment nor the files."""
    stub = Metadata(_in_an_hour())
    with stub.open() as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        found = sign_in(kn.AwsInstance(), "us-east-1", SystemClock()).get_frozen_credentials()
    assert (found.access_key, found.token) == ("ASIA-instance", "token-instance")
    assert stub.asked[0] == "PUT /latest/api/token"


@pytest.mark.usefixtures("no_environment")
def test_an_instance_without_imdsv2_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1, which any request forged through the instance could use, is never asked."""
    stub = Metadata(_in_an_hour(), has_v2=False)
    with stub.open() as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        gate = _Answering("", set())
        with gate.open() as kinesis:
            credentials = sign_in(kn.AwsInstance(), "us-east-1", SystemClock())
            client = KinesisClient(config(kinesis, role=None))
            client._credentials = credentials
            with pytest.raises(kn.CredentialsError, match="IMDSv2"):
                client.list_streams()
    assert [line for line in stub.asked if line.startswith("GET")] == []


@pytest.mark.usefixtures("no_environment")
def test_the_role_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's own credentials come before the instance's."""
    stub = Metadata(_in_an_hour())
    with stub.open() as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/container")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        found = sign_in(kn.AwsInstance(), "us-east-1", SystemClock()).get_frozen_credentials()
    assert found.access_key == "ASIA-container"
    assert stub.asked == ["GET /container"]


def test_the_default_chain_is_asked_again_when_its_keys_expire(no_environment: Path, clock: VirtualClock) -> None:
    """Keys that another program renews in the file, such as a login, are picked up without a restart."""
    held = {"old-token"}
    gate = _Answering("", set(), lambda token: token in held)
    path = no_environment / "credentials"

    def write(token: str) -> None:
        path.write_text(f"[dev]\naws_access_key_id=ASIA{token}\naws_secret_access_key=x\naws_session_token={token}\n")

    write("old-token")
    with gate.open() as url:
        client = KinesisClient(SourceConfig(auth=kn.Profile("dev"), endpoint_url=url), clock)
        client.list_streams()
        held.clear()
        held.add("new-token")
        write("new-token")
        client.list_streams()
    assert gate.expired == 1


def test_an_sso_profile_without_a_login_says_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emulator: Emulator
) -> None:
    """An SSO profile that nobody logged in to is an error whose hint is the login."""
    (tmp_path / "config").write_text(
        "[profile dev]\nsso_session=s\nsso_account_id=123456789012\nsso_role_name=r\n"
        "[sso-session s]\nsso_region=us-east-1\nsso_start_url=https://example.com/start\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(kn.CredentialsError, match="aws sso login"):
        kn.connect(auth=kn.Profile("dev"), endpoint_url=emulator.endpoint_url).explore()


def test_an_sso_profile_signs_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a login's token in botocore's cache, the portal gives the keys that sign."""
    expires = _in_an_hour()

    class Portal(Quiet):
        def do_GET(self) -> None:
            keys = {"accessKeyId": "ASIASSO", "secretAccessKey": "x", "sessionToken": "sso-token"}
            body = {"roleCredentials": {**keys, "expiration": int(expires.timestamp() * 1000)}}
            self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "t", "expiresAt": f"{expires:%Y-%m-%dT%H:%M:%SZ}", "startUrl": "https://example.com/start"}
    (cache / f"{hashlib.sha1(b's').hexdigest()}.json").write_text(json.dumps({**token, "region": "us-east-1"}))
    gate = _Answering("", set(), lambda token: token == "sso-token")
    with serving(Portal) as portal, gate.open() as url:
        (tmp_path / "config").write_text(
            "[profile dev]\nsso_session=s\nsso_account_id=123456789012\nsso_role_name=r\nservices=local\n"
            "[sso-session s]\nsso_region=us-east-1\nsso_start_url=https://example.com/start\n"
            f"[services local]\nsso =\n  endpoint_url = {portal}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr("botocore.tokens.SSOTokenProvider._SSO_TOKEN_CACHE_DIR", str(cache), raising=False)
        monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(cache), raising=False)
        KinesisClient(SourceConfig(auth=kn.Profile("dev"), endpoint_url=url)).list_streams()
    assert gate.expired == 0


def test_a_broken_configuration_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A configuration file that cannot be read is the user's to mend: two lines."""
    (tmp_path / "config").write_text("[profile dev\nregion=x")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(kn.ConfigError, match=r"\nhint: fix the AWS configuration"):
        kn.connect(auth=kn.Profile("dev")).explore()


def test_sts_that_answers_html_may_come_back(clock: VirtualClock) -> None:
    """A page instead of credentials is no credentials, and worth another try."""

    class Page(Quiet):
        def do_POST(self) -> None:
            self.body()
            self.answer(200, b"<html>please wait</html>", Content_Type="text/html")

    with serving(Page) as url, pytest.raises(kn.ServiceError, match="AssumeRole") as caught:
        KinesisClient(config(url, url), clock).list_streams()
    assert caught.value.retryable


def test_a_renewal_never_shows_what_it_holds(clock: VirtualClock) -> None:
    """Neither the credentials nor their repr show the secret."""
    held = sign_in(STATIC, "us-east-1", clock)
    assert isinstance(held, Renewable)
    held.get_frozen_credentials()
    assert "base-secret" not in repr(held) + str(held) + repr(held._loaded)
