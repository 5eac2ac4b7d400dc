"""TLS between schedulers, agents and clients: with certificates of our own on this machine, found by the port."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from kinesis_nb.access.config import is_loopback
from kinesis_nb.agents.private_folder import PrivateFolder
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from distributed.security import Security

RENEW_BEFORE = timedelta(days=30)  # certificates made by Dask are valid for a year
_KEY = "-----BEGIN PRIVATE KEY-----"


def security_of(ca: str, cert: str, key: str) -> Security:
    """Return Dask's TLS settings; each argument is the name of a file, or PEM itself."""
    from distributed.security import Security

    role = {
        f"tls_{role}_{kind}": one
        for role in ("scheduler", "worker", "client")
        for kind, one in (("cert", cert), ("key", key))
    }
    return Security(tls_ca_file=ca, require_encryption=True, **role)


def resolve(address: str) -> tuple[str, Security | None]:
    """Return the address and the TLS settings to connect to a scheduler with.

    For a scheduler that this user has started on this machine that is a ``tls://`` address and its own certificates.

    Parameters
    ----------
    address
        As a user gave it; ``tcp://127.0.0.1:8786`` finds such a scheduler too.

    Raises
    ------
    AgentError
        When others than this user can open its certificates.
    """
    parts = split_address(address)
    if parts.scheme not in ("tcp", "tls") or not is_loopback(parts.hostname or ""):
        return address, None
    pem = _folder().read(f"{parts.port}.pem")
    return (address, None) if pem is None else (f"tls://{parts.netloc}", _security(pem.decode()))


def split_address(address: str) -> SplitResult:
    """Parse the address of a scheduler; it is ``tcp`` if it does not say otherwise, as for Dask."""
    return urlsplit(address if "://" in address else f"tcp://{address}")


class OwnCertificates:
    """The certificates of a scheduler of this user on this machine.

    Those of its port are used again while they are valid, so that agents recognize a restarted scheduler.
    """

    def __init__(self, port: int) -> None:
        known = _folder().read(f"{port}.pem") if port else None
        self._pem = known.decode() if known and _is_valid_for_long(known) else _new_pem()
        self.security = _security(self._pem)

    def keep(self, port: int) -> None:
        """Let this user's clients and agents find them; called when the scheduler listens at the port."""
        try:
            _folder().write(f"{port}.pem", self._pem.encode())
        except OSError as error:
            raise AgentError(
                f"the certificates cannot be kept in {_folder().path}: {error.strerror or error}",
                hint="make that folder writable, set XDG_STATE_HOME to another one, or give --tls-ca-file, --tls-cert"
                " and --tls-key",
            ) from error


def forget_certificates(port: int) -> None:
    """Remove the certificates of a port at which another kind of scheduler listens now."""
    _folder().remove(f"{port}.pem")


def _folder() -> PrivateFolder:
    return PrivateFolder("tls")


def _security(pem: str) -> Security:
    cert, _, key = pem.partition(_KEY)
    return security_of(cert, cert, _KEY + key)


def _new_pem() -> str:
    from distributed.security import Security

    try:
        new = Security.temporary()
    except ImportError:
        raise AgentError("TLS needs the package cryptography", hint="pip install 'kinesis-nb[dask]'") from None
    return f"{new.tls_scheduler_cert}{new.tls_scheduler_key}"


def _is_valid_for_long(pem: bytes) -> bool:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc - RENEW_BEFORE > datetime.now(UTC)
    except ValueError:
        return False
