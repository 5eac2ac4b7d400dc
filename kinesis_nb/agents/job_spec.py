"""What travels to an agent and back: a source's settings, a job, an answer. Secrets only where nobody can listen."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kinesis_nb.access.config import Proxy, SourceConfig
from kinesis_nb.access.credentials import Secret, StaticCredentials
from kinesis_nb.core.foreign import Foreign
from kinesis_nb.core.selection import EVERYTHING
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kinesis_nb.agents.placement import Placement
    from kinesis_nb.core.position import StartingPosition
    from kinesis_nb.core.selection import Selection
    from kinesis_nb.core.transport import Kinesis

_SECRET_WORDS = ("secret", "token", "password", "key", "credential", "sas")
_PRIVATE = ("tls", "wss", "inproc")  # how Dask's addresses begin where nobody else can read


class Instruction(StrEnum):
    """What a part is told when it reports."""

    GO_ON = "go on"
    STOP = "stop"
    HAND_OVER = "hand over"  # commit, end, and let another agent go on
    NOT_YOURS = "not yours"  # another agent has it already
    LEFT_ALONE = "left alone"  # the scheduler is not the one that gave it: go on with what it has, and take nothing
    NONE = ""  # the scheduler did not answer: the same


class PortableSettings:
    """The settings of a source, with its secrets, and options of a table; shown without any of them.

    It is pickled, which a :class:`Secret` is not: make one only for a private way (:func:`check_encrypted`).
    """

    def __init__(self, config: SourceConfig, storage_options: Mapping[str, str]) -> None:
        self.config = replace(config, agents="tcp://agent:0")  # it is with an agent then, whichever
        self.storage_options = dict(storage_options)

    @property
    def has_secrets(self) -> bool:
        """Whether something in it must not be read on the way."""
        proxy = self.config.proxy
        return (
            isinstance(self.config.auth, StaticCredentials)
            or (proxy is not None and proxy.password is not None)
            or any(word in name.lower() for name in self.storage_options for word in _SECRET_WORDS)
        )

    def fingerprint(self) -> str:
        """Return what differs for other settings, and tells nothing of them."""
        _, (plain, options) = self.__reduce__()
        del plain["exports_enabled"]  # an order was allowed, whatever else is
        return _digest(sorted(plain.items()), sorted(options.items()))

    def __repr__(self) -> str:
        return f"<PortableSettings of a source in {self.config.region}>"

    def __reduce__(self) -> tuple[Callable[..., PortableSettings], tuple[dict[str, Any], dict[str, str]]]:
        plain = {part.name: getattr(self.config, part.name) for part in fields(self.config)}
        if isinstance(auth := self.config.auth, StaticCredentials):
            token = auth.session_token.reveal() if auth.session_token else None
            plain["auth"] = (auth.access_key_id, auth.secret_access_key.reveal(), token)
        if (proxy := self.config.proxy) is not None:
            plain["proxy"] = (proxy.address, proxy.user, proxy.password.reveal() if proxy.password else None)
        return _unpack, (plain, self.storage_options)


def _unpack(plain: dict[str, Any], storage_options: dict[str, str]) -> PortableSettings:
    options = dict(plain)
    if isinstance(options["auth"], tuple):
        options["auth"] = StaticCredentials(*options["auth"])
    if options["proxy"] is not None:
        address, user, password = options["proxy"]
        options["proxy"] = Proxy(address, user, Secret(password) if password else None)
    return PortableSettings(SourceConfig(**options), storage_options)


@dataclass(frozen=True)
class SyncSpec:
    """A sync to be run by agents.

    Attributes
    ----------
    connect
        Makes the transport from the settings; given from above, as everything that knows AWS.
    """

    settings: PortableSettings
    connect: Callable[[SourceConfig], Kinesis]
    stream: str
    uri: str
    start: StartingPosition
    commit_interval: float
    on_data_loss: str
    foreign: Foreign = Foreign.AUTO
    selection: Selection = EVERYTHING

    kind = "sync"

    def job(self) -> str:
        """Return the name that all orders for this table have in common: nobody else may write it."""
        return _name(self.kind, self.uri, _endpoint(self.settings))

    def setup(self) -> str:
        """Return what differs for a call with other options; where to start counts only for a new table."""
        options = float(self.commit_interval), self.on_data_loss, self.foreign.value, self.selection.record()
        return _digest(self.settings.fingerprint(), self.stream, *options)


@dataclass(frozen=True)
class ExportSpec:
    """A streaming export of a table, to be run by an agent; `options` are those of ``Source.export_stream``."""

    settings: PortableSettings
    connect: Callable[[SourceConfig], Kinesis]
    stream: str
    uri: str
    arn: str
    options: Any
    span: Any

    kind = "export"

    def job(self) -> str:
        """Return the name that all orders for this table and output have in common; a time range is one of its own."""
        start, end = self.span.start, self.span.end
        span = (start.kind, start.timestamp and start.timestamp.timestamp(), end.timestamp()) if end else ()
        return _name(self.kind, self.uri, _endpoint(self.settings), self.arn, self.settings.config.endpoint_url, *span)

    def setup(self) -> str:
        """Return what differs for a call with other options; where to start counts only for a new export."""
        rate = None if self.span.rate is None else float(self.span.rate)
        return _digest(self.settings.fingerprint(), self.stream, astuple(self.options), rate, str(self.span.journal))


Work = SyncSpec | ExportSpec


@dataclass(frozen=True)
class PartTask:
    """One part of a job, as a task of Dask runs it. Its name is the task's key."""

    key: str
    order: Work
    placement: Placement
    number: int

    def __repr__(self) -> str:
        return f"<part {self.number} of the {self.order.kind} of {self.order.stream}>"


def _name(kind: str, *parts: object) -> str:
    return f"kinesis_nb-{kind}-{_digest(*parts)[:12]}"


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _endpoint(settings: PortableSettings) -> str:
    """Return the object store, where one was named: a bucket of the same name may be in another one too."""
    options = settings.storage_options
    return options.get("endpoint_url") or options.get("endpoint") or options.get("aws_endpoint_url", "")


def check_encrypted(settings: PortableSettings, addresses: Iterable[str]) -> None:
    """Raise AgentError when secrets would travel where others can read them.

    Parameters
    ----------
    addresses
        Of the scheduler and of every worker, as Dask gives them.
    """
    if not settings.has_secrets:
        return
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in _PRIVATE:  # loopback is not: other users of this machine are on it too
            raise AgentError(
                f"the way to {parts.scheme}://{parts.hostname} is not encrypted, and this source has secrets",
                hint="start scheduler and agents with kinesis-nb as this user of this machine, use tls:// addresses, or"
                " let the agents have their own: leave auth out, or AwsInstance()",
            )
