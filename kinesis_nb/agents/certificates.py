"""What only this user of this machine can open: the certificates of a scheduler here, and orders that outlive agents.

A folder that others may open or that is somebody else's is refused before anything in it is believed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from kinesis_nb.access.config import is_loopback
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from distributed.security import Security

RENEW_BEFORE = timedelta(days=30)  # certificates of Dask's are good for a year
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_KEY = "-----BEGIN PRIVATE KEY-----"


class PrivateFolder:
    """A folder of mode 0700 with files of mode 0600, below the user's own state."""

    def __init__(self, *names: str) -> None:
        import platformdirs

        parts = ("agents", *names)
        root = platformdirs.user_state_path("kinesis_nb")
        self._chain = [root, *(root.joinpath(*parts[: number + 1]) for number in range(len(parts)))]
        self.path = self._chain[-1]

    def names(self) -> list[str]:
        """Return the names of its files, sorted."""
        found = self.path.iterdir() if self._is_there() else ()
        return sorted(one.name for one in found if not one.name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return what a file holds; None where there is none.

        Raises
        ------
        AgentError
            When the folder or the file is not this user's alone.
        """
        if not self._is_there():
            return None
        try:
            handle = os.open(self.path / name, os.O_RDONLY | _NO_LINK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(self.path / name, error.strerror or "") from None
        with os.fdopen(handle, "rb") as file:
            _check(self.path / name, os.fstat(handle))
            return file.read()

    def write(self, name: str, body: bytes) -> None:
        """Write a file, whole or not at all. Raises as :meth:`read` does, and OSError where nothing can be written."""
        self._chain[0].parent.mkdir(parents=True, exist_ok=True)
        for one in self._chain:
            one.mkdir(mode=0o700, exist_ok=True)
            _check_folder(one)
        handle, draft = tempfile.mkstemp(dir=self.path, prefix=".")  # mode 0600, never through a link
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            Path(draft).replace(self.path / name)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def _is_there(self) -> bool:
        for one in self._chain:
            try:
                _check_folder(one)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True


def _check_folder(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(path, "it is not a folder")
    _check(path, found)


def _check(path: Path, found: os.stat_result) -> None:
    if os.name != "posix":
        return
    if found.st_uid != os.getuid():
        raise _refused(path, "it belongs to another user")
    if found.st_mode & 0o077:
        raise _refused(path, "others may open it")


def _refused(path: Path, why: str) -> AgentError:
    return AgentError(f"{path} is not yours alone: {why}", hint="check who owns it and remove it; it is re-created")


def security_of(ca: str, cert: str, key: str) -> Security:
    """Return Dask's TLS settings; each is the name of a file, or PEM itself."""
    from distributed.security import Security

    role = {
        f"tls_{role}_{kind}": one
        for role in ("scheduler", "worker", "client")
        for kind, one in (("cert", cert), ("key", key))
    }
    return Security(tls_ca_file=ca, require_encryption=True, **role)


def way(address: str) -> tuple[str, Security | None]:
    """Return how to reach a scheduler: over TLS where it is one that this user has started on this machine.

    Parameters
    ----------
    address
        What a user gave; ``tcp://127.0.0.1:8786`` means such a scheduler too.

    Raises
    ------
    AgentError
        When its certificates are not this user's alone.
    """
    parts = _parts(address)
    if parts.scheme not in ("tcp", "tls") or not is_loopback(parts.hostname or ""):
        return address, None
    pem = _certificates().read(f"{parts.port}.pem")
    return (address, None) if pem is None else (f"tls://{parts.netloc}", _security(pem.decode()))


def _parts(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"tcp://{address}")  # as Dask has it


class OwnCertificates:
    """The certificates of a scheduler of this user on this machine; those of its port, if they are good for a while.

    Agents that go on without their scheduler know it again then.
    """

    def __init__(self, port: int) -> None:
        known = _certificates().read(f"{port}.pem") if port else None
        self._pem = known.decode() if known and _lasts(known) else _made()
        self.security = _security(self._pem)

    def keep(self, port: int) -> None:
        """Let this user's clients and agents find them; called when the scheduler listens there."""
        try:
            _certificates().write(f"{port}.pem", self._pem.encode())
        except OSError as error:
            raise AgentError(
                f"the certificates cannot be kept in {_certificates().path}: {error.strerror or error}",
                hint="make that folder writable, set XDG_STATE_HOME to another one, or give --tls-ca-file and so on",
            ) from error


def forget_certificates(port: int) -> None:
    """Let nobody look for a scheduler of :class:`OwnCertificates` at a port where another one listens."""
    _certificates().remove(f"{port}.pem")


def _certificates() -> PrivateFolder:
    return PrivateFolder("tls")


def _security(pem: str) -> Security:
    cert, _, key = pem.partition(_KEY)
    return security_of(cert, cert, _KEY + key)


def _made() -> str:
    from distributed.security import Security

    try:
        made = Security.temporary()
    except ImportError:
        raise AgentError("TLS needs the package cryptography", hint="pip install 'kinesis-nb[dask]'") from None
    return f"{made.tls_scheduler_cert}{made.tls_scheduler_key}"


def _lasts(pem: bytes) -> bool:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc - RENEW_BEFORE > datetime.now(UTC)
    except ValueError:
        return False


def orders(scheduler: str) -> PrivateFolder:
    """Return the folder for the orders of the scheduler at an address."""
    place = _parts(scheduler).netloc
    return PrivateFolder("orders", "".join(one if one.isalnum() or one in ".-" else "_" for one in place))
