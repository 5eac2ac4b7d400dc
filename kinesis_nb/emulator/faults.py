"""Everything that can go wrong on request, as values; the server carries them out."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The codes a Kinesis client meets: HTTP status, message, and the operations that answer so (empty: any of them).
# Source: the API reference's "Common Errors" and the service model of botocore.
_ERRORS: dict[str, tuple[int, str, frozenset[str]]] = {
    code: (status, message, frozenset(operations.split()))
    for code, status, operations, message in (
        (
            "ProvisionedThroughputExceededException",
            400,
            "GetRecords PutRecord PutRecords GetShardIterator",
            "Rate exceeded for shard shardId-000000000000.",
        ),
        ("LimitExceededException", 400, "", "Rate exceeded for the account."),
        ("ThrottlingException", 400, "", "Rate exceeded"),
        ("Throttling", 400, "", "Rate exceeded"),
        ("RequestLimitExceeded", 503, "", "Request limit exceeded."),
        ("SlowDown", 503, "", "Please reduce your request rate."),
        ("TooManyRequestsException", 429, "", "Too many requests."),
        ("InternalFailure", 500, "", "The request processing has failed because of an unknown error."),
        ("InternalFailureException", 500, "", "The request processing has failed because of an unknown error."),
        ("ServiceUnavailable", 503, "", "The request has failed due to a temporary failure of the server."),
        ("ExpiredIteratorException", 400, "GetRecords", "Iterator expired. The iterator was created over 300 s ago."),
        ("ExpiredNextTokenException", 400, "ListShards ListStreamConsumers", "The pagination token has expired."),
        ("InvalidArgumentException", 400, "", "A specified parameter is not valid."),
        ("ValidationException", 400, "", "1 validation error detected."),
        ("ResourceNotFoundException", 400, "", "The requested resource could not be found."),
        ("ResourceInUseException", 400, "", "The resource is not available for this operation."),
        ("DryRunOperationException", 400, "", "The request would have succeeded."),
        ("AccessDeniedException", 400, "", "User is not authorized to perform this operation."),
        ("ExpiredTokenException", 400, "", "The security token included in the request is expired"),
        ("ExpiredToken", 403, "", "The security token included in the request is expired"),
        ("UnrecognizedClientException", 400, "", "The security token included in the request is invalid."),
        ("InvalidClientTokenId", 403, "", "The security token included in the request is invalid."),
        ("MissingAuthenticationTokenException", 400, "", "Missing Authentication Token"),
        ("RequestExpired", 400, "", "The request reached the service more than 15 minutes after its date stamp."),
        ("InvalidSignatureException", 400, "", "The request signature we calculated does not match the signature."),
        ("SignatureDoesNotMatch", 403, "", "The request signature we calculated does not match the signature."),
        ("IncompleteSignature", 400, "", "The request signature does not conform to AWS standards."),
        ("OptInRequired", 403, "", "The access key needs a subscription for the service."),
        ("KMSThrottlingException", 400, "", "The request was denied due to request throttling by KMS."),
        ("KMSDisabledException", 400, "", "The KMS key is disabled."),
        ("KMSInvalidStateException", 400, "", "The state of the KMS key is not valid for this request."),
        ("KMSNotFoundException", 400, "", "The KMS key could not be found."),
        ("KMSAccessDeniedException", 400, "", "The ciphertext refers to a KMS key that you may not use."),
        ("KMSOptInRequired", 400, "", "The access key needs a subscription for KMS."),
    )
}


class Fault:
    """One way in which one request goes wrong; every kind is a frozen dataclass below."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What `Emulator.delivered` counts it as: the class, or the code of an `ErrorReply`."""
        return type(self).__name__

    @property
    def operations(self) -> frozenset[str]:
        """The only operations it can be delivered to; empty means all of them."""
        return frozenset()

    def plausible(self, operation: str) -> bool:
        """Whether the service could answer `operation` like this; random faults keep to it."""
        return not self.operations or operation in self.operations


@dataclass(frozen=True, slots=True)
class ErrorReply(Fault):
    """An API error.

    Parameters
    ----------
    code
        The AWS error code; for those in `ERRORS`, status and message follow from it.
    status
        The HTTP status; 0 takes the usual one of the code.
    message
        The text; empty takes the usual one of the code.
    applied
        Whether the request is carried out before it is answered with the error. On SubscribeToShard True means
        that the error arrives inside the event stream.

    Examples
    --------
    >>> ErrorReply("ServiceUnavailable").status
    503
    """

    code: str
    status: int = 0
    message: str = ""
    applied: bool = False

    def __post_init__(self) -> None:
        status, message, _ = _ERRORS.get(self.code, (400, "", frozenset()))
        object.__setattr__(self, "status", self.status or status)  # frozen: this is the way to fill a default in
        object.__setattr__(self, "message", self.message or message)

    @property
    def name(self) -> str:
        """The error code."""
        return self.code

    def plausible(self, operation: str) -> bool:
        """Whether the service answers `operation` with this code."""
        operations = _ERRORS[self.code][2] if self.code in _ERRORS else frozenset[str]()
        return not operations or operation in operations


@dataclass(frozen=True, slots=True)
class CutBody(Fault):
    """The reply ends too early, after the request was carried out.

    Parameters
    ----------
    at
        Where it is cut: a fraction of the body, or a number of bytes when it is an int. At least one byte is lost.
    chunked
        Send it as chunks without the last one, instead of a Content-Length that is larger than what follows.
    short
        Let Content-Length match what is sent: no client can notice by counting. The connection stays open.
    """

    at: float = 0.5
    chunked: bool = False
    short: bool = False

    def keep(self, length: int) -> int:
        """Return how many of `length` bytes are sent."""
        wanted = self.at if isinstance(self.at, int) else int(self.at * length)
        return max(0, min(wanted, length - 1))


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """The connection is reset (TCP RST) before or after the request was carried out."""

    before: bool = True


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """The request is read, and carried out if `applied`; the answer takes another `seconds`."""

    seconds: float
    applied: bool = True


@dataclass(frozen=True, slots=True)
class SlowDrip(Fault):
    """The body of the reply arrives at so many bytes per second: no read timeout ever fires."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Html(Fault):
    """A proxy's page instead of an answer."""

    status: int = 502
    applied: bool = False


@dataclass(frozen=True, slots=True)
class EmptyReply(Fault):
    """Status 200 and `{}`."""

    applied: bool = True


@dataclass(frozen=True, slots=True)
class ClockSkew(Fault):
    """The server's clock is `seconds` ahead of the client's (negative: behind) for one request.

    Parameters
    ----------
    seconds
        What is added to the Date header.
    code
        None answers the request as usual; otherwise it is refused with this code, and with AWS's message about the
        two times for ``InvalidSignatureException``.
    """

    seconds: float
    code: str | None = None


@dataclass(frozen=True, slots=True)
class PartialFailure(Fault):
    """Some entries of a PutRecords request fail and are not stored.

    Parameters
    ----------
    amount
        A fraction of the request (at least one entry), or a number of entries when it is an int.
    code
        The entries' ErrorCode.
    """

    amount: float = 0.5
    code: str = "ProvisionedThroughputExceededException"

    @property
    def operations(self) -> frozenset[str]:
        """Only PutRecords has entries."""
        return frozenset({"PutRecords"})

    def count(self, size: int) -> int:
        """Return how many of `size` entries fail."""
        wanted = self.amount if isinstance(self.amount, int) else max(1, round(self.amount * size))
        return min(wanted, size)


@dataclass(frozen=True, slots=True)
class Gap(Fault):
    """GetRecords answers nothing for `calls` calls along one iterator chain, and says that it is behind.

    Each call gives a new iterator, which keeps the age of the first. `Model.gap` does the same to a whole shard.
    """

    calls: int = 1

    @property
    def operations(self) -> frozenset[str]:
        """Only GetRecords has gaps."""
        return frozenset({"GetRecords"})


ERRORS: dict[str, ErrorReply] = {code: ErrorReply(code) for code in _ERRORS}
"""Every known code, ready to be used."""

DEFAULT_FAULTS: tuple[Fault, ...] = (
    ErrorReply("ProvisionedThroughputExceededException"),
    ErrorReply("LimitExceededException"),
    ErrorReply("ThrottlingException"),
    ErrorReply("KMSThrottlingException"),
    ErrorReply("InternalFailure"),
    ErrorReply("InternalFailure", applied=True),
    ErrorReply("ServiceUnavailable"),
    ErrorReply("ExpiredIteratorException"),
    ErrorReply("ExpiredNextTokenException"),
    CutBody(),
    CutBody(chunked=True),
    CutBody(short=True),
    Reset(before=True),
    Reset(before=False),
    Stall(0.1),
    Html(200),
    Html(502),
    EmptyReply(),
    PartialFailure(0.3),
    Gap(2),
)
"""What a client must survive without its user noticing: no lost permission, no expired credentials."""


@dataclass
class _Chaos:
    rng: random.Random
    rate: float
    faults: tuple[Fault, ...]
    operations: frozenset[str] | None

    def draw(self, operation: str) -> Fault | None:
        if self.operations is not None and operation not in self.operations:
            return None
        if self.rng.random() >= self.rate:
            return None
        fitting = [fault for fault in self.faults if fault.plausible(operation)]
        return self.rng.choice(fitting) if fitting else None


class FaultPlan:
    """Which fault hits which request: scripts first, then chance. Thread-safe."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._scripts: dict[str, deque[Fault]] = {}
        self._chaos: _Chaos | None = None
        self._delivered: Counter[str] = Counter()

    def script(self, operation: str, faults: Iterable[Fault]) -> None:
        """Append one-shot faults to the queue of `operation` ("*": of any)."""
        faults = tuple(faults)
        for fault in faults:
            _check_deliverable(operation, fault)
        with self._lock:
            self._scripts.setdefault(operation, deque()).extend(faults)

    def chaos(self, seed: int, rate: float, faults: Sequence[Fault], operations: Iterable[str] | None) -> None:
        """Draw a fault for a share `rate` of all requests from now on."""
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie between 0 and 1, not {rate}")
        names = None if operations is None else frozenset(operations)
        with self._lock:
            rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
            self._chaos = _Chaos(rng, rate, tuple(faults), names)

    def calm(self) -> None:
        """Draw no more faults; scripted ones stay."""
        with self._lock:
            self._chaos = None

    def take(self, operation: str) -> Fault | None:
        """Return the fault for the next request to `operation`, removing it from its queue."""
        with self._lock:
            for queue in (self._scripts.get(operation), self._scripts.get("*")):
                if queue and (not queue[0].operations or operation in queue[0].operations):
                    return queue.popleft()
            return self._chaos.draw(operation) if self._chaos else None

    def count(self, fault: Fault) -> None:
        """Note that `fault` takes effect now."""
        with self._lock:
            self._delivered[fault.name] += 1

    def sample(self, size: int, count: int) -> frozenset[int]:
        """Choose `count` of `size` positions."""
        with self._lock:
            return frozenset(self._rng.sample(range(size), count))

    @property
    def delivered(self) -> Counter[str]:
        """How often each fault took effect, by name."""
        with self._lock:
            return self._delivered.copy()

    @property
    def pending(self) -> list[tuple[str, Fault]]:
        """Scripted faults that nobody has met yet, as (operation, fault)."""
        with self._lock:
            return [(operation, fault) for operation, queue in self._scripts.items() for fault in queue]


def _check_deliverable(operation: str, fault: Fault) -> None:
    if operation != "*" and fault.operations and operation not in fault.operations:
        raise ValueError(f"{fault.name} cannot hit {operation}\nhint: use it on {', '.join(sorted(fault.operations))}")
