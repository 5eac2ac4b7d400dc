"""Every error this package raises.

::

    KinesisError
    ├── ConfigError (ValueError)           an argument or setting that cannot be right; nothing was sent
    │   └── ExportsDisabled                the source was not set up for exports
    ├── UnknownOption (TypeError)          a keyword that does not exist
    ├── StreamNotFound (LookupError)       no such stream, or it was deleted
    ├── AccessDenied (PermissionError)     the credentials are good, the policy says no
    ├── CredentialsError (PermissionError) no, expired, unknown or wrong credentials
    ├── ServiceError                       the service or the network, not the caller
    │   ├── Throttled                      a quota is used up for the moment
    │   ├── InvalidRequest                 the service will never take this request as it is
    │   ├── IteratorExpired                the shard iterator must be re-created
    │   ├── PositionTrimmed                the record of a sequence number is not kept any more
    │   ├── KeyUnavailable                 the stream's encryption key cannot be used now
    │   ├── NotListening                   nothing listens at an address of this machine
    │   └── MalformedResponse              a response that was incomplete or invalid
    ├── DataLoss                           records were gone before they could be read
    ├── TableError (ValueError)            the sync's target is not a table it may write to
    ├── AgentError                         the agents cannot be reached, or do not fit this process
    ├── Fenced                             another writer took this sync over
    ├── ForkedProcess (RuntimeError)       used in a child of the process that made it
    └── Closed                             your own code stopped it

Retry decisions look at :attr:`KinesisError.retryable`. A call that a user waits for also gives up at NotListening.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import traceback
import warnings
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from kinesis_nb.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

P = ParamSpec("P")
R = TypeVar("R")

_PACKAGE = f"{__name__.partition('.')[0]}."


class KinesisError(Exception):
    """What went wrong in one line, and a hint what to do in a second one.

    Parameters
    ----------
    message
        What happened.
    hint
        What the reader can do about it; empty if nothing is known to help.
    retryable
        Whether the same call may succeed later without a change by the user.

    Attributes
    ----------
    code
        The service's own code for it, such as ``"AccessDeniedException"``; empty when it is not the service's error.
    report
        The :class:`~kinesis_nb.ExportReport` of what an export had done before; None for everything else. What
        ends an export has one even if it is no error of ours: MemoryError, or an error of your own `progress=`.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> try:
    ...     kn.demo().read("ordres")
    ... except kn.KinesisError as error:
    ...     print(type(error).__name__, error.hint, sep=": ")
    StreamNotFound: did you mean 'orders'?
    """

    code: str = ""
    report: Any = None

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        self.message = one_line(message)  # may quote a record or a server
        self.hint = one_line(hint)
        super().__init__(self.message)
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a traceback: a user's mistake is not a bug."""
        return [f"{type(self).__name__}: {self.message}", *([f"hint: {self.hint}"] if self.hint else [])]


class ConfigError(KinesisError, ValueError):
    """An argument or setting that cannot be right; nothing was sent."""


class ExportsDisabled(ConfigError):
    """The source was connected without ``exports_enabled=True``."""


class UnknownOption(KinesisError, TypeError):
    """A keyword that does not exist."""


class StreamNotFound(KinesisError, LookupError):
    """There is no such stream (any more)."""


class AccessDenied(KinesisError, PermissionError):
    """The credentials are accepted, but no policy allows the action.

    Attributes
    ----------
    action
        Such as ``"kinesis:GetRecords"``.
    """

    action: str = ""


class CredentialsError(KinesisError, PermissionError):
    """No credentials, or expired, unknown or wrong ones."""


class ServiceError(KinesisError):
    """The service refused or failed, or the network between us did."""


class Throttled(ServiceError):
    """A quota of the shard, the stream or the account is used up for the moment."""


class InvalidRequest(ServiceError):
    """The service will never take this request as it is; parts of it perhaps."""


class IteratorExpired(ServiceError):
    """A shard iterator is older than 5 minutes, or unusable; make a new one."""


class PositionTrimmed(ServiceError):
    """The record of a sequence number is older than what the stream keeps."""


class KeyUnavailable(ServiceError):
    """The key that a stream is encrypted with cannot be used; somebody may fix that."""


class NotListening(ServiceError):
    """Nothing listens at an address of this machine: what runs tries again, but a call that begins need not wait."""


class MalformedResponse(ServiceError):
    """A response that was cut off, or did not come from the service."""


class DataLoss(KinesisError):
    """The stream's retention ended before records were read; they are gone."""


class TableError(KinesisError, ValueError):
    """The target of a sync is not a table this sync may write to."""


class AgentError(KinesisError):
    """The agents cannot be reached, or do not fit this process, or may not be told what they would need."""


class Fenced(KinesisError):
    """Another writer took this sync over; this one stopped without writing."""


class ForkedProcess(KinesisError, RuntimeError):
    """Threads and connections do not survive a fork; the child needs a source of its own."""


class Closed(KinesisError):
    """Your own code stopped it."""


def warn(message: str, hint: str = "") -> None:
    """Warn at the line of the user's that called this package, wherever in it something was noticed."""
    level = most = 1
    frame = inspect.currentframe()  # skip_file_prefixes= came with Python 3.12
    while frame is not None:  # to the very first one: at the end of the process there is no line of the user's
        if frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            most = level
        frame, level = frame.f_back, level + 1
    text = f"{one_line(message)}\nhint: {one_line(hint)}" if hint else one_line(message)
    warnings.warn(text, UserWarning, stacklevel=most + 1)


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of all that led to it: their frames hold keys, headers and passwords."""
    for led in _all_behind(error):
        led.__traceback__ = None


def _forget_variables(error: BaseException) -> None:
    """Keep the tracebacks of an error and of all that led to it, without what the variables in them held."""
    for led in _all_behind(error):
        traceback.clear_frames(led.__traceback__)


def _all_behind(error: BaseException) -> list[BaseException]:
    """Return an error and all that led to it, by either way."""
    found: list[BaseException] = [error]
    for one in found:
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        found += [led for led in (one.__cause__, one.__context__, *members) if led is not None and led not in found]
    return found


def forgetful(function: Callable[P, R]) -> Callable[P, R]:
    """Let no error out with secrets in its frames: the arguments of a function, or what it reached a table with.

    An error of ours loses its traceback. A bug, or an interrupt, keeps the lines in which it happened.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        failed: BaseException
        try:
            return function(*args, **kwargs)
        except KinesisError as error:
            forget_frames(failed := error)
        except BaseException as error:  # noqa: BLE001 - raised below
            _forget_variables(failed := error)
        del args, kwargs
        raise failed

    call.is_forgetful = True  # type: ignore[attr-defined]  # for who wraps it again
    return call


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``"did you mean 'x'?"`` for the known name nearest to `name`, else an empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {found[0]!r}?" if found else ""
