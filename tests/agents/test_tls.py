"""Agents over TLS, with a CA of our own or what a scheduler on loopback makes: secrets travel nowhere else."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client
from distributed.security import Security

import kinesis_nb as kn
from kinesis_nb.agents.certificates import OwnCertificates, forget_certificates, resolve
from kinesis_nb.cli import main
from tests.agents_kill import loops
from tests.conftest import Streams, by_key, written_by_key
from tests.support.commands import SECONDS, Command, cluster

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from kinesis_nb.emulator import Emulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # on a machine that is busy

KEYS = kn.StaticCredentials("emulator", "hunter2-of-the-source")


def own_key(certificates: OwnCertificates) -> object:
    security: Any = certificates.security  # whose attributes are set from a table
    return security.tls_worker_key


def own_address() -> str:
    """Return an address of this machine that is not loopback, if there is one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        if not (address := probe.getsockname()[0]).startswith("127."):
            return str(address)
    return "127.0.0.1"


class Certificates:
    """A CA, and a certificate that it has signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.ca, self.cert, self.key = (folder / f"{name}-{what}.pem" for what in ("ca", "cert", "key"))
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} CA")])
        own_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.ca.write_bytes(_signed(ca_name, ca_key.public_key(), ca_name, ca_key, is_ca=True))
        self.cert.write_bytes(_signed(own_name, key.public_key(), ca_name, ca_key, is_ca=False))
        plain = serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))

    @property
    def options(self) -> list[str]:
        """Return what the commands are given."""
        return ["--tls-ca-file", str(self.ca), "--tls-cert", str(self.cert), "--tls-key", str(self.key)]

    @property
    def config(self) -> dict[str, str]:
        """Return the settings of Dask for a client."""
        files = {"ca-file": self.ca, "client.cert": self.cert, "client.key": self.key}
        return {f"distributed.comm.tls.{name}": str(file) for name, file in files.items()}

    @property
    def security(self) -> Security:
        return Security(
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.cert),
            tls_client_key=str(self.key),
            require_encryption=True,
        )


def _signed(name: x509.Name, key: Any, issuer: x509.Name, issuer_key: Any, *, is_ca: bool) -> bytes:
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer, name, key, x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), "others")


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[str]:
    """The address of a scheduler with two agents, beyond loopback and over TLS."""
    with cluster(*certificates.options, host=own_address(), agents=2) as (address, _):
        assert address.startswith("tls://")
        yield address


class Wiretap:
    """A way to a scheduler on which somebody listens."""

    def __init__(self, address: str) -> None:
        scheme, _, place = address.partition("://")
        host, _, port = place.rpartition(":")
        self._place = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._place)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                self.heard += data
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def wiretap(address: str) -> Generator[Wiretap]:
    tap = Wiretap(address)
    try:
        yield tap
    finally:
        tap.close()


def sync_and_look(source: kn.Source, streams: Streams, table: Path) -> set[str]:
    """Sync a stream through agents, check the rows; return the agents that took part."""
    streams.create(shards=4)
    streams.put(200)
    sync: Any = source.sync("orders", table, commit_interval=0.1)
    assert sync.wait(SECONDS)
    assert by_key(sync.scan().sort("partition_key", "shard_offset").collect()) == written_by_key(streams)
    agents = set(sync.agents()["agent"])
    sync.stop()
    return agents


def test_secrets_travel_over_tls(
    encrypted: str, certificates: Certificates, emulator: Emulator, streams: Streams, tmp_path: Path
) -> None:
    """A sync with keys in its source runs on agents beyond loopback, and who listens on the way hears no secret."""
    with wiretap(encrypted) as tap, Client(tap.address, security=certificates.security, set_as_default=False) as client:
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=client)
        assert sync_and_look(source, streams, tmp_path / "table") == {"agent-1", "agent-2"}
    assert len(tap.heard) > 10_000
    assert KEYS.secret_access_key.reveal().encode() not in tap.heard


def test_a_listener_would_hear_it_without_tls(emulator: Emulator, streams: Streams, tmp_path: Path) -> None:
    """The check above can fail: where there is no TLS, what has no secret is on the way as it is."""
    if (host := own_address()) == "127.0.0.1":
        pytest.skip("this machine has no address but loopback")
    own_keys = {"AWS_ACCESS_KEY_ID": "emulator", "AWS_SECRET_ACCESS_KEY": "emulator"}
    with cluster(host=host, agents=1, settings=own_keys) as (address, _), wiretap(address) as tap:
        source = kn.connect(endpoint_url=emulator.endpoint_url, agents=tap.address)
        assert sync_and_look(source, streams, tmp_path / "table-that-is-heard") == {"agent-1"}
        source._agents.cluster.client.close()
    assert b"table-that-is-heard" in tap.heard


def test_loopback_is_encrypted_without_a_word(emulator: Emulator, streams: Streams, tmp_path: Path) -> None:
    """A scheduler on loopback makes certificates of its own: one address is all it takes, and nobody hears a secret."""
    with cluster(agents=1) as (address, commands), wiretap(address) as tap:
        assert address.startswith("tls://127.0.0.1:")
        pem = Path(os.environ["XDG_STATE_HOME"], "kinesis_nb/agents/tls", address.rpartition(":")[2] + ".pem")
        pem.with_name(tap.address.rpartition(":")[2] + ".pem").write_bytes(pem.read_bytes())
        pem.with_name(tap.address.rpartition(":")[2] + ".pem").chmod(0o600)
        plain_address = tap.address.replace("tls://", "tcp://")
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=plain_address)
        assert sync_and_look(source, streams, tmp_path / "table") == {"agent-1"}
        assert {ip for command in commands for ip in command.listens_on()} == {"127.0.0.1"}
        source._agents.cluster.client.close()
    assert len(tap.heard) > 10_000
    assert KEYS.secret_access_key.reveal().encode() not in tap.heard


def test_certificates_that_others_may_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or file of certificates that is not this user's alone is not believed, and the error names it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    OwnCertificates(1234).keep(1234)
    assert resolve("tcp://127.0.0.1:1234")[0] == "tls://127.0.0.1:1234"
    assert resolve("tcp://localhost:1234")[0] == resolve("localhost:1234")[0] == "tls://localhost:1234"
    assert resolve("tcp://127.0.0.1:1235") == ("tcp://127.0.0.1:1235", None)
    assert resolve("tcp://10.0.0.1:1234") == ("tcp://10.0.0.1:1234", None)
    folder = tmp_path / "kinesis_nb/agents/tls"
    file = folder / "1234.pem"
    assert [path.stat().st_mode & 0o777 for path in (folder, file)] == [0o700, 0o600]
    for path, mode in ((file, 0o640), (folder, 0o750), (folder.parent, 0o701)):
        before = path.stat().st_mode
        path.chmod(mode)
        for use in (lambda: resolve("tcp://127.0.0.1:1234"), lambda: OwnCertificates(1234)):
            with pytest.raises(kn.AgentError, match=f"{path} is not yours alone: others may open it"):
                use()
        path.chmod(before)
    file.rename(folder / "elsewhere")
    file.symlink_to(folder / "elsewhere")
    with pytest.raises(kn.AgentError, match="is not yours alone"):
        resolve("tcp://127.0.0.1:1234")


def test_certificates_are_kept_for_the_next_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents without their scheduler recognize the next one at its port; certificates near their end are re-created."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = OwnCertificates(1234)
    first.keep(1234)
    assert own_key(OwnCertificates(1234)) == own_key(first)
    assert own_key(OwnCertificates(1235)) != own_key(first)
    monkeypatch.setattr("kinesis_nb.agents.certificates.RENEW_BEFORE", timedelta(days=366))
    assert own_key(OwnCertificates(1234)) != own_key(first)
    forget_certificates(1234)
    assert resolve("tcp://127.0.0.1:1234")[1] is None


def test_an_address_is_enough(
    encrypted: str, certificates: Certificates, emulator: Emulator, streams: Streams, tmp_path: Path
) -> None:
    """Certificates can come from Dask's configuration; then the address is all that a source needs."""
    with dask.config.set(certificates.config):
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=encrypted)
        assert sync_and_look(source, streams, tmp_path / "table") == {"agent-1", "agent-2"}
        source._agents.cluster.client.close()


def test_secrets_are_refused_over_plain_tcp(emulator: Emulator, streams: Streams, tmp_path: Path) -> None:
    """Beyond loopback and without TLS a source with keys is refused before anything is sent, one without is taken."""
    if (host := own_address()) == "127.0.0.1":
        pytest.skip("this machine has no address but loopback")
    streams.create()
    with (
        cluster(host=host, agents=1) as (address, _),
        wiretap(address) as tap,
        Client(tap.address, set_as_default=False) as client,
    ):
        source = kn.connect(endpoint_url=emulator.endpoint_url, auth=KEYS, agents=client, exports_enabled=True)
        with pytest.raises(kn.AgentError, match="is not encrypted, and this source has secrets") as raised:
            source.sync("orders", tmp_path / "table")
        assert "tls://" in raised.value.hint
        with pytest.raises(kn.AgentError, match="is not encrypted"):
            source.export_stream(tmp_path / "table", "arn:aws:kinesis:us-east-1:000000000000:stream/copies")
        assert source.jobs() == []
        plain = kn.connect(endpoint_url=emulator.endpoint_url, agents=client)
        assert plain.jobs() == []
    assert not (tmp_path / "table").exists()
    assert KEYS.secret_access_key.reveal().encode() not in tap.heard


def test_a_client_without_certificates(encrypted: str) -> None:
    """Without certificates there is no way in, the error says what is missing, and nothing of the client is left."""
    before = loops()
    with pytest.raises(kn.AgentError, match="needs certificates") as raised:
        kn.connect(auth=KEYS, agents=encrypted).jobs()
    assert "distributed.comm.tls" in raised.value.hint
    assert loops() == before


def test_strangers_are_refused(encrypted: str, others: Certificates) -> None:
    """No client or agent with certificates of another CA, or with none, gets in; each gets an error of two lines."""
    with dask.config.set(others.config), pytest.raises(kn.AgentError, match="no scheduler responds") as raised:
        kn.connect(auth=KEYS, agents=encrypted).jobs()
    assert "certificates" in raised.value.hint
    with pytest.raises(kn.AgentError, match="no scheduler responds"):
        kn.connect(auth=KEYS, agents=encrypted.replace("tls:", "tcp:")).jobs()
    agent = Command("agent", "--scheduler", encrypted, "--name", "stranger", *others.options)
    try:
        assert agent.process.wait(SECONDS) == 2
        agent.says(f"no scheduler responds at {encrypted}\nhint: .*certificates")
    finally:
        agent.stop()


@pytest.mark.parametrize("command", ["agent", "scheduler"])
def test_bad_certificates(
    certificates: Certificates, others: Certificates, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Files that are missing, no certificates, or of different pairs are refused before anything starts."""
    start = [command, *(["--scheduler", "tls://127.0.0.1:9"] if command == "agent" else [])]

    def error_of(*options: str) -> str:
        assert main([*start, *options]) == 2
        return capsys.readouterr().err

    _, ca, _, cert, _, key = certificates.options
    assert "there is no file /nowhere.pem" in error_of(
        "--tls-ca-file", ca, "--tls-cert", "/nowhere.pem", "--tls-key", key
    )
    assert "cannot be used" in error_of("--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", str(others.key))
    assert "cannot be used" in error_of("--tls-ca-file", __file__, "--tls-cert", cert, "--tls-key", key)
    assert "TLS needs a CA, a certificate and a key" in error_of("--tls-ca-file", ca)
    if command == "agent":
        assert "needs certificates" in error_of()
