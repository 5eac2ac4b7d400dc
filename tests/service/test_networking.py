"""Which hosts are contacted, and what stands in the way: proxies, certificates, endpoints."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import threading
import traceback
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import botocore.session
import pytest
from botocore.httpsession import ProxyConfiguration
from urllib3.exceptions import InsecureRequestWarning

import kinesis_nb as kn
from kinesis_nb.access.config import Proxy, SourceConfig, masked
from kinesis_nb.emulator import ErrorReply
from kinesis_nb.service.client import KinesisClient
from tests.support.aws import Quiet, serving
from tests.support.servers import KINESIS_MOCK, kinesalite, kinesis_mock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kinesis_nb.emulator import Emulator
    from tests.conftest import Streams

pytestmark = pytest.mark.slow

KEYS = kn.StaticCredentials("AKIATEST", "test-secret")
ROLE = kn.StsRole("arn:aws:iam::123456789012:role/reader", "me")
PASSWORD = "pr0xy-pass"


def lines_of(source: kn.Source, kind: type[kn.KinesisError]) -> list[str]:
    with pytest.raises(kind) as caught:
        source._kinesis.list_shards("orders")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2, lines
    assert not caught.value.retryable
    return lines


class Recording(Quiet):
    """A proxy that notes where CONNECT would go, and goes nowhere."""

    hosts: list[str]

    def do_CONNECT(self) -> None:
        self.hosts.append(self.path)
        self.answer(503, b"")


@contextmanager
def recording() -> Generator[tuple[str, list[str]]]:
    hosts: list[str] = []
    with serving(type("Handler", (Recording,), {"hosts": hosts})) as url:
        yield url, hosts


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"kinesis.eu-central-1.amazonaws.com:443"}),
        ({"use_fips_endpoint": True, "region": "us-east-2"}, {"kinesis-fips.us-east-2.amazonaws.com:443"}),
        ({"use_dualstack_endpoint": True}, {"kinesis.eu-central-1.api.aws:443"}),
        (
            {"endpoint_url": "https://vpce-1.kinesis.eu-central-1.vpce.amazonaws.com"},
            {"vpce-1.kinesis.eu-central-1.vpce.amazonaws.com:443"},
        ),
        ({"sts_role": ROLE}, {"sts.eu-central-1.amazonaws.com:443"}),
        ({"sts_role": ROLE, "sts_endpoint_url": "https://sts.internal"}, {"sts.internal:443"}),
    ],
    ids=str,
)
def test_only_these_hosts_are_contacted(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], expected: set[str]
) -> None:
    """Kinesis and, for a role, STS, both of the region; whatever the environment says of endpoints."""
    for service in ("", "_KINESIS", "_STS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL{service}", "https://elsewhere.example.com")
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    with recording() as (url, hosts):
        source = kn.connect(**({"region": "eu-central-1", "auth": KEYS, "proxy": url} | options))  # type: ignore[arg-type]
        kinesis = source._kinesis
        for call in (
            kinesis.list_streams,
            lambda: kinesis.list_shards("orders"),
            lambda: kinesis.describe_stream("orders"),
            lambda: kinesis.describe_extras("orders"),
            lambda: kinesis.put_records("orders", []),
        ):
            with pytest.raises(kn.KinesisError):
                call()
    assert set(hosts) == expected


def test_a_configured_endpoint_counts_with_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user who points to a profile gets its endpoint, but not unencrypted to another machine."""
    (tmp_path / "config").write_text(
        "[profile lab]\nendpoint_url=https://lab.example.com\n[profile open]\nendpoint_url=http://lab.example.com\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    client = KinesisClient(SourceConfig(auth=kn.Profile("lab")))
    assert client._client.meta.endpoint_url == "https://lab.example.com"
    with pytest.raises(kn.ConfigError, match="not encrypted"):
        kn.connect(auth=kn.Profile("open")).explore()


def test_http_where_it_is_meant() -> None:
    """Plain http goes to this machine, or where allow_http=True was said."""
    for host in ("127.0.0.1", "127.8.9.10", "localhost", "[::1]"):
        url = f"http://{host}:4567"
        assert kn.connect(endpoint_url=url).config.endpoint_url == url
    assert kn.connect(endpoint_url="http://10.0.0.1", allow_http=True).config.endpoint_url == "http://10.0.0.1"
    with pytest.raises(kn.ConfigError, match="allow_http=True"):
        kn.connect(endpoint_url="http://127.0.0.1.example.com")


class Demanding(Quiet):
    """A proxy that lets only those through who know the password; plain requests, to this machine."""

    def do_CONNECT(self) -> None:
        self.answer(407, b"", Proxy_Authenticate="Basic")

    def do_POST(self) -> None:
        body = self.body()
        expected = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
        if self.headers.get("Proxy-Authorization") != f"Basic {expected}":
            self.answer(407, b"<html>no</html>", Proxy_Authenticate="Basic")
            return
        assert body
        self.answer(200, json.dumps({"Shards": []}).encode(), Content_Type="application/x-amz-json-1.1")


@pytest.mark.parametrize("endpoint", ["https://kinesis.us-east-1.amazonaws.com", "http://127.0.0.1:9"])
@pytest.mark.parametrize("password", ["", f"ada:{PASSWORD}-not@"])
def test_a_proxy_that_needs_a_password(endpoint: str, password: str) -> None:
    """Two lines that name the proxy without its password, and how to give one; never tried again."""
    with serving(Demanding) as url:
        proxy = url.replace("://", f"://{password}")
        source = kn.connect(auth=KEYS, proxy=proxy, endpoint_url=endpoint)
        lines = lines_of(source, kn.ServiceError)
    shown = url.replace("://", "://ada:********@") if password else url
    assert f"proxy {shown} wants a user and a password (407)" in lines[0]
    assert "proxy=" in lines[1]
    assert PASSWORD not in "".join(lines) + repr(source) + repr(source.config)


def test_a_proxy_with_its_password_lets_through() -> None:
    """The password reaches the proxy."""
    with serving(Demanding) as url:
        proxy = url.replace("://", f"://ada:{PASSWORD}@")
        source = kn.connect(auth=KEYS, proxy=proxy, endpoint_url="http://127.0.0.1:9")
        assert source._kinesis.list_shards("orders") == []


def test_a_proxy_of_the_environment_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY counts where no proxy was given, and its password is not shown either."""
    with serving(Demanding) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("://", f"://ada:{PASSWORD}@"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        lines = lines_of(kn.connect(auth=KEYS, endpoint_url="https://kinesis.us-east-1.amazonaws.com"), kn.ServiceError)
    assert "ada:********@" in lines[0]
    assert PASSWORD not in "".join(lines)


def test_a_proxy_that_is_not_there_may_come_back() -> None:
    """Named without its password; worth another try."""
    source = kn.connect(auth=KEYS, proxy=f"http://ada:{PASSWORD}@127.0.0.1:9")
    with pytest.raises(kn.ServiceError) as caught:
        source._kinesis.list_shards("orders")
    assert caught.value.retryable
    assert "http://ada:********@127.0.0.1:9" in caught.value.message
    assert PASSWORD not in str(caught.value)


def test_a_proxy_that_needs_a_password_on_the_way_to_sts() -> None:
    """The error names the proxy that was given, and the call that could not be made."""
    with serving(Demanding) as url:
        lines = lines_of(kn.connect(auth=KEYS, proxy=url, sts_role=ROLE), kn.ServiceError)
    assert lines[0].startswith(f"AssumeRole: proxy {url} wants a user and a password")


class Forbidding(Quiet):
    """A proxy that does not know the host."""

    def do_CONNECT(self) -> None:
        self.answer(403, b"")

    def do_POST(self) -> None:
        self.body()
        self.answer(403, b"<html>blocked by your company</html>", Content_Type="text/html")


@pytest.mark.parametrize("endpoint", ["https://kinesis.us-east-1.amazonaws.com", "http://127.0.0.1:9"])
def test_a_proxy_that_forbids_the_host(endpoint: str) -> None:
    """Final, and not taken for a missing permission in AWS."""
    with serving(Forbidding) as url:
        lines = lines_of(kn.connect(auth=KEYS, proxy=url, endpoint_url=endpoint), kn.ServiceError)
    assert "to be allowed" in lines[1]


def test_what_a_proxys_address_shows() -> None:
    """The password is in no text of it, and the whole is there for the connection."""
    for url in (f"http://ada:{PASSWORD}@host:3128", f"https://ada:{PASSWORD}@[::1]:3128"):
        proxy = Proxy.parse(url)
        assert PASSWORD not in f"{proxy} {proxy!r}"
        assert proxy.reveal() == url


ODD = ["p@ss", "a@b@c", "p:ss", "p%40ss", "100%25", "%2Fp%3F%23", "p%ss", "http", "a"]


@pytest.mark.parametrize("written", ODD)
def test_a_password_of_any_signs(written: str) -> None:
    """However it is written, it is in no text, and the proxy is sent what was meant."""
    meant = unquote(written)
    proxy = Proxy.parse(f"http://ada%40corp:{written}@proxy.example:3128")
    assert (proxy.address, proxy.user) == ("http://proxy.example:3128", "ada@corp")
    assert str(proxy) == "http://ada%40corp:********@proxy.example:3128"
    assert proxy.password == kn.Secret(meant)
    assert Proxy.parse(proxy.reveal()) == proxy
    sent = ProxyConfiguration({"https": proxy.reveal()}).proxy_headers_for(proxy.reveal())
    assert base64.b64decode(sent["Proxy-Authorization"].split()[1]).decode() == f"ada@corp:{meant}"


@pytest.mark.parametrize("written", [*ODD, "p/ss", "p?ss", "p#ss", "p%C3%A4"])
@pytest.mark.parametrize("proxy", ["ours", "the environment's"])
def test_no_error_shows_a_password_of_any_signs(monkeypatch: pytest.MonkeyPatch, written: str, proxy: str) -> None:
    """Neither its message nor what led to it, whether the proxy refuses, is away, or cannot even be named."""
    url = f"http://ada:CANARY{written}@127.0.0.1:9"
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    if proxy == "the environment's":
        monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(kn.KinesisError) as caught:
        kn.connect(auth=KEYS, **({"proxy": url} if proxy == "ours" else {}))._kinesis.list_streams()  # type: ignore[arg-type]
    assert "CANARY" not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    beneath = caught.value.with_traceback(caught.tb.tb_next)  # the test's own frame has it
    shown = "".join(traceback.TracebackException.from_exception(beneath, capture_locals=True).format())
    assert "CANARY" not in shown


@pytest.mark.parametrize("url", ["http://ada:p%C3%A4ss@host:1", "http://ad%C3%A4:x@host:1", "http://ada:p%0Ass@host:1"])
def test_a_password_that_cannot_be_sent(url: str) -> None:
    """HTTP knows no such letter: refused at once, unseen, in place of an error of botocore's that quotes it."""
    with pytest.raises(kn.ConfigError, match="has a character that cannot be sent\nhint: ") as caught:
        kn.connect(proxy=url)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "\xe4" not in shown


@pytest.mark.parametrize("text", ["see http://ada:p@ss@host for", "(http://:p/s:s@host)", "x http://a:b@h:1/ y"])
def test_what_is_masked_in_a_text_of_others(text: str) -> None:
    """From the first colon to the last @ of a word."""
    shown = masked(text)
    assert ":********@h" in shown
    assert not re.search(r"ss|s:s|:b@", shown)


@contextmanager
def tls(certificate: Path, key: Path) -> Generator[int]:
    """Serve ListStreams over TLS."""

    class Handler(Quiet):
        def do_POST(self) -> None:
            self.body()
            self.answer(200, b'{"StreamNames": [], "HasMoreStreams": false}')

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are the point
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate by it for localhost, and another CA that has nothing to do with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)

    def make(
        name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
    ) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by, signer = issuer or (subject, key)
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, issuer is None, issuer is None, False, False),
                critical=True,
            )
            .sign(signer, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )
        return subject, key

    authority = make("ca", None)
    make("server", authority)
    make("other-ca", None)
    return folder


def test_a_certificate_of_a_custom_ca(certificates: Path) -> None:
    """With the right CA the call works; with another one, or the default, two lines that say what to do."""
    with tls(certificates / "server.pem", certificates / "server.key") as port:
        url = f"https://localhost:{port}"
        right = kn.connect(auth=KEYS, endpoint_url=url, verify=str(certificates / "ca.pem"))
        assert right._kinesis.list_streams() == []
        for verify in (str(certificates / "other-ca.pem"), True):
            lines = lines_of(kn.connect(auth=KEYS, endpoint_url=url, verify=verify), kn.ServiceError)
            assert "certificate cannot be trusted" in lines[0]
            assert "verify=" in lines[1]
        elsewhere = kn.connect(auth=KEYS, endpoint_url=f"https://127.0.0.1:{port}", verify=str(certificates / "ca.pem"))
        lines = lines_of(elsewhere, kn.ServiceError)
        assert "certificate is not of this host" in lines[0]
        assert "endpoint_url=" in lines[1]
        with pytest.warns(InsecureRequestWarning):
            assert kn.connect(auth=KEYS, endpoint_url=url, verify=False)._kinesis.list_streams() == []


def test_the_ca_bundle_of_the_environment(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_CA_BUNDLE counts where verify was not given."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates / "ca.pem"))
    with tls(certificates / "server.pem", certificates / "server.key") as port:
        assert kn.connect(auth=KEYS, endpoint_url=f"https://localhost:{port}")._kinesis.list_streams() == []


def test_a_file_that_is_no_ca_bundle(tmp_path: Path) -> None:
    """A bundle without a certificate is refused before anything is sent."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text("not a certificate")
    with pytest.raises(kn.ConfigError, match=r"ca.pem' is not a CA bundle .*\nhint: give the path"):
        kn.connect(auth=KEYS, verify=str(bundle))


@pytest.mark.parametrize("server", [kinesalite, kinesis_mock])
def test_a_servers_own_certificate(server: Callable[..., AbstractContextManager[str]]) -> None:
    """A server that signed its own certificate is refused, and works with verify=False only."""
    with server(ssl=True) as url:
        lines = lines_of(kn.connect(auth=KEYS, endpoint_url=url), kn.ServiceError)
        assert "certificate cannot be trusted" in lines[0]
        with pytest.warns(InsecureRequestWarning):
            assert kn.connect(auth=KEYS, endpoint_url=url, verify=False)._kinesis.list_streams() == []


def test_a_trusted_certificate_of_another_host(tmp_path: Path) -> None:
    """With its own certificate as the CA, kinesis-mock's is still refused: it names no host, and the hint says so."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text(json.loads((KINESIS_MOCK / "server.json").read_text())["server"]["cert"])
    with kinesis_mock(ssl=True) as url:
        lines = lines_of(kn.connect(auth=KEYS, endpoint_url=url, verify=str(bundle)), kn.ServiceError)
    assert "certificate is not of this host" in lines[0]
    assert "endpoint_url=" in lines[1]


def test_streams_go_by_name_not_by_arn(source: kn.Source, streams: Streams, emulator: Emulator) -> None:
    """No request carries a StreamARN, which would send it to another host."""
    seen: list[dict[str, object]] = []
    streams.create()
    kinesis = source._kinesis
    kinesis._client.meta.events.register(  # type: ignore[attr-defined]
        "provide-client-params.kinesis.*", lambda params, **_: seen.append(params)
    )
    source.read("orders", progress=False)
    source.explore("orders")
    assert seen
    assert not [params for params in seen if "StreamARN" in params]


def test_a_denial_by_a_vpc_endpoints_policy(source: kn.Source, emulator: Emulator) -> None:
    """The policy to change is the endpoint's, not the user's."""
    why = (
        "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: kinesis:ListShards on resource: "
        "arn:aws:kinesis:us-east-1:123456789012:stream/orders because no VPC endpoint policy allows the "
        "kinesis:ListShards action"
    )
    emulator.on("ListShards", ErrorReply("AccessDeniedException", message=why))
    with pytest.raises(kn.AccessDenied) as caught:
        source._kinesis.list_shards("orders")
    assert "by the policy of the VPC endpoint" in caught.value.message
    assert "that policy" in caught.value.hint


def test_an_account_that_has_not_subscribed(source: kn.Source, emulator: Emulator) -> None:
    """OptInRequired is final, with what to do."""
    emulator.on("ListShards", ErrorReply("OptInRequired"))
    assert "subscribed" in lines_of(source, kn.ServiceError)[1]


def test_no_port_is_left_open() -> None:
    """The servers of these tests are gone when they are done."""
    with serving(Quiet) as url:
        port = int(url.rpartition(":")[2])
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


CONFIGURED = """
[default]
region = eu-north-1
[profile dev]
region = eu-west-1
[profile bare]
output = json
"""
BOTH = {"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-south-1"}


@pytest.mark.parametrize(
    ("options", "environment", "config", "region", "place"),
    [
        ({"region": "us-west-2"}, BOTH, CONFIGURED, "us-west-2", "<Source us-west-2, "),
        ({"auth": kn.Profile("dev")}, BOTH, CONFIGURED, "eu-west-1", "(profile 'dev')"),
        ({"auth": kn.Profile("bare")}, BOTH, CONFIGURED, "eu-central-1", "(AWS_REGION)"),
        ({"auth": kn.Profile("missing")}, {}, CONFIGURED, "us-east-1", "(by default)"),
        ({}, BOTH, CONFIGURED, "eu-central-1", "(AWS_REGION)"),
        ({"auth": KEYS}, {"AWS_DEFAULT_REGION": "eu-south-1"}, CONFIGURED, "eu-south-1", "(AWS_DEFAULT_REGION)"),
        ({}, {"AWS_PROFILE": "dev"}, CONFIGURED, "eu-west-1", "(the AWS configuration)"),
        ({"auth": KEYS}, {}, CONFIGURED, "eu-north-1", "(the AWS configuration)"),
        ({}, {"AWS_REGION": ""}, "", "us-east-1", "(by default)"),
        ({}, {}, "[[", "us-east-1", "(by default)"),
    ],
)
def test_the_region_that_nobody_gave(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: dict[str, Any],
    environment: dict[str, str],
    config: str,
    region: str,
    place: str,
) -> None:
    """The named profile, the environment, the configuration, us-east-1: in this order, and the source says which."""
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    source = kn.connect(**options)
    assert source.config.region == region
    assert place in repr(source)


def test_a_region_of_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.setenv("AWS_REGION", "us east")
    with pytest.raises(kn.ConfigError, match="AWS_REGION: 'us east' is not the name of a region"):
        kn.connect()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("eu-cntral-1", "eu-central-1"),
        ("eu-central1", "eu-central-1"),
        ("eu-central-1b", "eu-central-1"),
        ("EU_CENTRAL_1", "eu-central-1"),
        ("us-gov-wset-1", "us-gov-west-1"),
        ("ap-sutheast-2", "ap-southeast-2"),
    ],
)
def test_a_mistyped_region_is_refused_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    """Wherever it is from, before anything is sent."""
    monkeypatch.setenv("AWS_REGION", given)
    cases: list[dict[str, Any]] = [{"region": given}, {}]
    for options in cases:
        with pytest.raises(kn.ConfigError, match=f"{given}' is not the name of a region\nhint: did you mean '{meant}'"):
            kn.connect(**options)


def test_every_region_of_aws_is_one() -> None:
    """All partitions, as botocore lists them; a region that AWS may open tomorrow too."""
    session = botocore.session.Session()
    regions = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("kinesis", partition)
    ]
    assert len(regions) > 30
    for region in (*regions, "nz-south-1", "eu-central-3"):
        assert kn.connect(region=region).config.region == region


def test_a_region_that_botocore_does_not_know_is_asked_about() -> None:
    """It may be new, and it may be mistyped: a warning at the first use; not where the user names the server."""
    with pytest.warns(UserWarning, match="does not know the region 'eur-north-1'.*did you mean 'eu-north-1'"):
        KinesisClient(SourceConfig(region="eur-north-1", auth=KEYS))
    KinesisClient(SourceConfig(region="eu-central-1", auth=KEYS))
    KinesisClient(SourceConfig(region="eur-north-1", auth=KEYS, endpoint_url="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("config", "environment"),
    [
        ("endpoint_url=https://a.example.com", {}),
        (
            "endpoint_url=https://a.example.com\nservices=s\n[services s]\nkinesis =\n  endpoint_url=https://b.example.com",
            {},
        ),
        (
            "endpoint_url=https://a.example.com\nservices=s\n[services s]\ns3 =\n  endpoint_url=https://b.example.com",
            {},
        ),
        ("endpoint_url=https://a.example.com", {"AWS_ENDPOINT_URL": "https://c.example.com"}),
        ("", {"AWS_ENDPOINT_URL": "https://c.example.com", "AWS_ENDPOINT_URL_KINESIS": "https://d.example.com"}),
        ("", {}),
    ],
)
def test_a_source_shows_where_its_profile_leads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str, environment: dict[str, str]
) -> None:
    """The endpoint in the repr is the one that botocore takes; nothing where that is AWS's."""
    (tmp_path / "config").write_text(f"[profile lab]\nregion=eu-west-1\n{config}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    source = kn.connect(auth=kn.Profile("lab"))
    taken = KinesisClient(source.config)._client.meta.endpoint_url
    assert (f" at {taken} " in repr(source)) == ("example.com" in taken)
    assert " at " not in repr(source) or "example.com" in taken


def test_a_source_shows_no_password_of_a_configured_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request to it would be refused; the repr is not the place to learn the password either."""
    (tmp_path / "config").write_text("[profile lab]\nendpoint_url=https://ada:hunter2@a.example.com\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert "hunter2" not in repr(kn.connect(auth=kn.Profile("lab")))


def test_a_source_says_that_the_endpoint_of_the_environment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set it expects it to count."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:4567")
    assert "at AWS (AWS_ENDPOINT_URL_KINESIS counts only with a Profile)" in repr(kn.connect())
    assert "counts only" not in repr(kn.connect(endpoint_url="http://127.0.0.1:4567"))
