"""What travels to an agent and back: a source's settings, a job, an answer. Secrets only where nobody can listen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kinesis_nb.config import Proxy, SourceConfig, is_loopback
from kinesis_nb.credentials import Secret, StaticCredentials
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kinesis_nb.agents.place import Placement
    from kinesis_nb.position import StartingPosition
    from kinesis_nb.transport import Kinesis

_SECRET_WORDS = ("secret", "token", "password", "key", "credential", "sas")
_PRIVATE = ("tls", "wss", "inproc")  # how Dask's addresses begin where nobody else can read


class Answer(StrEnum):
    """What a part is told when it reports."""

    GO_ON = "go on"
    STOP = "stop"
    HAND_OVER = "hand over"  # commit, end, and let another agent go on
    NOT_YOURS = "not yours"  # another agent has it already


class Parcel:
    """The settings of a source, with its secrets, and options of a table; shown without any of them.

    It is pickled, which a :class:`Secret` is not: make one only for a private way (:func:`check_way`).
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

    def __repr__(self) -> str:
        return f"<Parcel of a source in {self.config.region}>"

    def __reduce__(self) -> tuple[Callable[..., Parcel], tuple[dict[str, Any], dict[str, str]]]:
        plain = {part.name: getattr(self.config, part.name) for part in fields(self.config)}
        if isinstance(auth := self.config.auth, StaticCredentials):
            token = auth.session_token.reveal() if auth.session_token else None
            plain["auth"] = (auth.access_key_id, auth.secret_access_key.reveal(), token)
        if (proxy := self.config.proxy) is not None:
            plain["proxy"] = (proxy.address, proxy.user, proxy.password.reveal() if proxy.password else None)
        return _unpack, (plain, self.storage_options)


def _unpack(plain: dict[str, Any], storage_options: dict[str, str]) -> Parcel:
    options = dict(plain)
    if isinstance(options["auth"], tuple):
        options["auth"] = StaticCredentials(*options["auth"])
    if options["proxy"] is not None:
        address, user, password = options["proxy"]
        options["proxy"] = Proxy(address, user, Secret(password) if password else None)
    return Parcel(SourceConfig(**options), storage_options)


@dataclass(frozen=True)
class SyncOrder:
    """A sync to be run by agents.

    Attributes
    ----------
    connect
        Makes the transport from the settings; given from above, as everything that knows AWS.
    """

    parcel: Parcel
    connect: Callable[[SourceConfig], Kinesis]
    stream: str
    uri: str
    start: StartingPosition
    commit_interval: float
    on_data_loss: str

    kind = "sync"

    def job(self) -> str:
        """Return the name that two orders for the same work have in common."""
        config = self.parcel.config
        return _name(self.kind, config.region, config.endpoint_url, self.stream, self.uri)


@dataclass(frozen=True)
class ExportOrder:
    """A streaming export of a table, to be run by an agent; `options` are those of ``Source.export_stream``."""

    parcel: Parcel
    connect: Callable[[SourceConfig], Kinesis]
    stream: str
    uri: str
    arn: str
    options: Any
    span: Any

    kind = "export"

    def job(self) -> str:
        """Return the name that two orders for the same work have in common."""
        return _name(self.kind, self.parcel.config.endpoint_url, self.arn, self.uri, repr(self.span))


Order = SyncOrder | ExportOrder


@dataclass(frozen=True)
class Task:
    """One part of a job, as a task of Dask runs it. Its name is the task's key."""

    key: str
    order: Order
    placement: Placement
    number: int

    def __repr__(self) -> str:
        return f"<part {self.number} of the {self.order.kind} of {self.order.stream}>"


def _name(kind: str, *parts: object) -> str:
    return f"kinesis_nb-{kind}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def check_way(parcel: Parcel, addresses: Iterable[str]) -> None:
    """Raise AgentError when secrets would travel where others can read them.

    Parameters
    ----------
    addresses
        Of the scheduler and of every worker, as Dask gives them.
    """
    if not parcel.has_secrets:
        return
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in _PRIVATE and not is_loopback(parts.hostname or ""):
            raise AgentError(
                f"the way to {parts.scheme}://{parts.hostname} is not encrypted, and this source has secrets",
                hint="use tls:// addresses, or let the agents have their own: leave auth out, or AwsInstance()",
            )
