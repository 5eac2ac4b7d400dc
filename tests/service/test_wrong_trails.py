"""Errors lead to where the fault is: each of these once sent its reader elsewhere."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import EndpointConnectionError
from urllib3.exceptions import NewConnectionError

import kinesis_nb as kn
from kinesis_nb.errors import NotListening, ServiceError
from kinesis_nb.service.translate import translate_local
from kinesis_nb.table.option_names import check_option_names
from tests.support.aws import Quiet, serving

if TYPE_CHECKING:
    from pathlib import Path

    from kinesis_nb.emulator import Emulator

KEYS = kn.StaticCredentials("emulator", "emulator")
XML = b"<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>no</Message></Error></ErrorResponse>"


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (XML % b"SignatureDoesNotMatch", kn.CredentialsError, "does not belong to the access key id"),
        (XML % b"InvalidClientTokenId", kn.CredentialsError, "does not know this access key"),
        (XML % b"AccessDenied", kn.AccessDenied, "is denied"),
        (b"<html>blocked by policy</html>", kn.ServiceError, "a proxy or a firewall"),
    ],
)
def test_a_403_in_xml(body: bytes, error: type[kn.KinesisError], said: str) -> None:
    """What the service says in XML is understood as in JSON; only a page of others is a firewall's."""

    class Refusing(Quiet):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(403, body)

    with serving(Refusing) as url:
        kinesis = kn.connect(endpoint_url=url, auth=KEYS)._kinesis
        for call in (kinesis.list_streams, lambda: kinesis.put_records("orders", [])):
            with pytest.raises(error, match=said):
                call()


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>nope</html>"), (404, b""), (405, b"no POST")])
def test_a_server_that_is_no_kinesis(status: int, body: bytes) -> None:
    """What a web server responds leads to the address that was given."""

    class Web(Quiet):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(status, body)

    with (
        serving(Web) as url,
        pytest.raises(kn.ServiceError, match=rf"{status}.*\nhint: is this a Kinesis.*endpoint_url="),
    ):
        kn.connect(endpoint_url=url, auth=KEYS).explore()


def test_https_to_a_port_of_http(emulator: Emulator) -> None:
    """It is no matter of certificates."""
    source = kn.connect(endpoint_url=emulator.endpoint_url.replace("http://", "https://"), auth=KEYS)
    with pytest.raises(kn.ServiceError, match=r"does not speak TLS.*\nhint: .*http:// in endpoint_url="):
        source.explore()


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("half", r"incomplete: aws_secret_access_key is missing.*\nhint: add it"),
        ("empty", r"profile 'empty' of the AWS configuration has no credentials\nhint: .*--profile empty"),
    ],
)
def test_a_profile_without_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str, said: str
) -> None:
    """Whoever gave a profile is not asked to give one; and the key that is there is not shown."""
    (tmp_path / "credentials").write_text("[half]\naws_access_key_id=AKIAHALF\n")
    (tmp_path / "config").write_text("[profile half]\n[profile empty]\nregion=eu-west-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(kn.CredentialsError, match=said) as error:
        kn.connect(auth=kn.Profile(profile)).explore()
    assert "AKIAHALF" not in str(error.value)


def test_nothing_listens_on_this_machine() -> None:
    """It says so at once, with the port, and with nothing above it; what runs may still try again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = kn.connect(endpoint_url=f"http://127.0.0.1:{port}", auth=KEYS)
    with pytest.raises(
        NotListening, match=rf"nothing listens at http://127.0.0.1:{port}\nhint: .*--port {port}"
    ) as error:
        source.explore()
    assert error.value.retryable
    assert (error.value.__cause__, error.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("endpont_url", "endpoint_url"), ("AWS_ACCES_KEY_ID", "access_key_id"), ("regoin", "region")],
)
def test_a_misspelt_option_of_the_storage(tmp_path: Path, given: str, meant: str) -> None:
    """The libraries would ignore it, and go to another store than the one that was meant."""
    for call in (
        lambda options: kn.connect().sync("orders", tmp_path / "t", storage_options=options),
        lambda options: kn.connect(exports_enabled=True).export_stream(tmp_path / "t", ARN, storage_options=options),
    ):
        with pytest.raises(kn.ConfigError, match=f"has no option .*\nhint: did you mean '{meant}'") as error:
            call({given: "hunter2"})
        assert "hunter2" not in str(error.value)


def test_a_refusal_of_another_machine_may_be_over_soon() -> None:
    """Nobody here can start what runs there, but somebody there may be doing it."""
    refused = NewConnectionError(None, "refused")  # type: ignore[arg-type]
    refused.__cause__ = ConnectionRefusedError()
    for url, kind in (("https://kinesis.internal:4567/", ServiceError), ("http://[::1]:4567/", NotListening)):
        error = EndpointConnectionError(endpoint_url=url, error=refused)
        assert type(translate_local(error, "ListStreams")) is kind


ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/results"


def test_options_that_we_do_not_know() -> None:
    """The libraries may: only what is nearly one of the known names is refused."""
    check_option_names(["endpoint_url", "region", "object_store_concurrency_limit", "dynamo_table"])
