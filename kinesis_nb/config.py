"""What a source is: region, authentication, networking. Values only; everything is checked before anything is sent."""

from __future__ import annotations

import functools
import inspect
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar
from urllib.parse import urlsplit

from kinesis_nb.errors import ConfigError, ForkedProcess, UnknownOption, closest

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+){1,3}-\d{1,2}")
_STREAM = re.compile(r"[a-zA-Z0-9_.-]{1,128}")  # AWS: StreamName


class Secret:
    """A text that does not show itself: not in a repr, a format, a log, a pickle or a copy.

    Examples
    --------
    >>> Secret("hunter2")
    Secret('********')
    >>> f"{Secret('hunter2')}"
    '********'
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself; for the signer only."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('********')"

    def __str__(self) -> str:
        return "********"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled or copied"
        raise TypeError(msg)


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """An access key of AWS, given here and now; the connector's "Static Credentials".

    Parameters
    ----------
    access_key_id
        Not secret by itself.
    secret_access_key, session_token
        Text or :class:`Secret`; kept as Secret.
    """

    access_key_id: str
    secret_access_key: Secret = field()
    session_token: Secret | None = None

    def __init__(
        self, access_key_id: str, secret_access_key: str | Secret, session_token: str | Secret | None = None
    ) -> None:
        if not access_key_id or not secret_access_key:
            msg = "static credentials need an access key id and a secret access key"
            raise ConfigError(msg, hint="leave auth out to use the credentials of your environment")
        object.__setattr__(self, "access_key_id", access_key_id)
        object.__setattr__(self, "secret_access_key", _secret(secret_access_key))
        object.__setattr__(self, "session_token", _secret(session_token) if session_token else None)

    def __str__(self) -> str:
        return f"static credentials {self.access_key_id!r}"


@dataclass(frozen=True, slots=True)
class Profile:
    """A named profile of the AWS configuration (SSO and role profiles included)."""

    name: str


Auth = StaticCredentials | Profile | None
"""None stands for boto3's default credential chain."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Everything that :func:`kinesis_nb.connect` takes, checked.

    Raises
    ------
    ConfigError
        For a region, an endpoint or a proxy that cannot be right.
    """

    region: str = "us-east-1"
    auth: Auth = None
    exports_enabled: bool = False
    endpoint_url: str | None = None
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True

    def __post_init__(self) -> None:
        if not _REGION.fullmatch(str(self.region)):
            msg = f"{self.region!r} is not the name of a region"
            raise ConfigError(msg, hint='regions look like "us-east-1" or "eu-central-1"')
        if not isinstance(self.auth, StaticCredentials | Profile | None):
            # the value itself may be a secret
            raise ConfigError(
                f"auth= takes no {type(self.auth).__name__}", hint="use StaticCredentials(...), Profile(...) or None"
            )
        for name, url in (("endpoint_url", self.endpoint_url), ("proxy", self.proxy)):
            _check_url(name, url)


def _secret(value: str | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)


def _check_url(name: str, url: str | None) -> None:
    """Refuse what is no address. The value is not shown: it may hold a password."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        has_user = parts.username is not None
    except ValueError:
        is_good = has_user = False
    if not is_good:
        raise ConfigError(f"{name} is not the address of a server", hint="it looks like https://host:443")
    if has_user and name == "endpoint_url":
        raise ConfigError("endpoint_url must not hold a user or a password", hint="credentials belong into auth=")


def check_stream_name(stream: object) -> str:
    """Return the name of a stream as it is, or raise ConfigError when no stream can have it.

    ``..`` is refused although AWS would allow it: in practice it is a path that slipped in.
    """
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream) or ".." in stream:
        msg = f"{stream!r} is not the name of a stream"
        raise ConfigError(msg, hint="1 to 128 letters, digits, '_', '.' and '-', without '..'")
    return stream


def hinted(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function answer a call that does not fit with :class:`UnknownOption` and what was probably meant."""
    signature = inspect.signature(function)
    known = [name for name in signature.parameters if name != "self"]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                msg = f"{function.__name__}() has no option {name!r}"
                raise UnknownOption(msg, hint=closest(name, known) or f"its options are {', '.join(known)}")
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            shown = ", ".join(str(signature.parameters[name]).partition(":")[0].partition("=")[0] for name in known)
            raise UnknownOption(
                f"{function.__name__}(): {error}", hint=f"call it as {function.__name__}({shown})"
            ) from None
        return function(*args, **kwargs)

    return call


def check_process(made_in: int) -> None:
    """Raise ForkedProcess in a child of the process with this id, whose threads and locks the child does not have."""
    if os.getpid() != made_in:
        raise ForkedProcess(
            f"this was made in process {made_in}, and is used in its child {os.getpid()}",
            hint="connect() in the child, or start it with the multiprocessing method 'spawn'",
        )


def check_count(name: str, value: object) -> None:
    """Raise ConfigError for anything but a whole number of 1 or more."""
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}: {value!r} is not a number of rows", hint="give a whole number, 1 or more")
