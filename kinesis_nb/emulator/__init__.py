"""An embedded Kinesis: the service's behaviour behind a real endpoint on this machine, with faults on request."""

from __future__ import annotations

import difflib
import errno
import os
import signal
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from .clock import Clock, ManualClock, SystemClock
from .errors import AwsError
from .faults import (
    DEFAULT_FAULTS,
    ERRORS,
    ClockSkew,
    CutBody,
    EmptyReply,
    ErrorReply,
    Fault,
    FaultPlan,
    Gap,
    Html,
    PartialFailure,
    Reset,
    SlowDrip,
    Stall,
)
from .model import Model, Quotas
from .server import KinesisServer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from types import FrameType, TracebackType

    from kinesis_nb.source import Source

__all__ = [
    "DEFAULT_FAULTS",
    "ERRORS",
    "AwsError",
    "Clock",
    "ClockSkew",
    "CutBody",
    "EmptyReply",
    "Emulator",
    "ErrorReply",
    "Fault",
    "ForkedProcess",
    "Gap",
    "Html",
    "ManualClock",
    "Model",
    "PartialFailure",
    "PortInUse",
    "Quotas",
    "Reset",
    "SlowDrip",
    "Stall",
    "SystemClock",
    "serve",
]

LOOPBACK = "127.0.0.1"
_KEY = "emulator"  # any key is accepted, but clients want one

_OPERATIONS = frozenset(
    """
    AddTagsToStream CreateStream DecreaseStreamRetentionPeriod DeleteResourcePolicy DeleteStream
    DeregisterStreamConsumer DescribeAccountSettings DescribeLimits DescribeStream DescribeStreamConsumer
    DescribeStreamSummary DisableEnhancedMonitoring EnableEnhancedMonitoring GetRecords GetResourcePolicy
    GetShardIterator IncreaseStreamRetentionPeriod ListShards ListStreamConsumers ListStreams ListTagsForResource
    ListTagsForStream MergeShards PutRecord PutRecords PutResourcePolicy RegisterStreamConsumer RemoveTagsFromStream
    SplitShard StartStreamEncryption StopStreamEncryption SubscribeToShard TagResource UntagResource
    UpdateAccountSettings UpdateMaxRecordSize UpdateShardCount UpdateStreamMode
    UpdateStreamRecordDistributionStrategy UpdateStreamWarmThroughput
    """.split()  # noqa: SIM905 - forty names read better as a paragraph
)


class PortInUse(OSError):
    """Another program listens on the port already."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} on {LOOPBACK} is in use\nhint: choose another one, or 0 for any that is free")
        self.errno = errno.EADDRINUSE
        self.port = port


class ForkedProcess(RuntimeError):
    """An emulator is used in a child of its process, where nothing serves."""

    def __init__(self) -> None:
        super().__init__(
            "this emulator runs in the parent of this process\n"
            "hint: use its endpoint_url here, or start the child with the multiprocessing method 'spawn'"
        )


class Emulator:
    """Amazon Kinesis Data Streams on a loopback port.

    Parameters
    ----------
    port
        Where to listen; 0 takes a free one. It stays the same when the emulator is stopped and started again.
    host
        ``127.0.0.1``. There is no authentication behind this endpoint, so nothing else is accepted.
    clock
        What the streams take for the time (arrival, iterator expiry, retention); the system's by default.
    quotas
        True for the service's limits per shard, a `Quotas` for others, False for none.
    seed
        Makes generated numbers and the choice of failing records repeatable.
    transition_seconds
        How long streams stay CREATING, UPDATING and DELETING, by `clock`.
    allowed_hosts
        Names beside ``127.0.0.1`` and ``localhost`` that requests may call it by, such as that of a container whose
        port is passed on to it. Others are refused, and so are web pages: they could reach the port by DNS rebinding.

    Examples
    --------
    >>> with Emulator() as emulator:
    ...     emulator.endpoint_url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        clock: Clock | None = None,
        quotas: Quotas | bool = False,
        seed: int = 0,
        transition_seconds: float = 0.0,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        if host not in (LOOPBACK, "localhost"):
            raise ValueError(f"the emulator serves {LOOPBACK} only, not {host!r}\nhint: leave host out")
        if isinstance(allowed_hosts, str):
            raise ValueError(f"allowed_hosts is a list of names, not {allowed_hosts!r}\nhint: give [{allowed_hosts!r}]")  # noqa: TRY004 - as for every argument here
        limits = (Quotas() if quotas else None) if isinstance(quotas, bool) else quotas
        self._own_model = Model(clock=clock, seed=seed, quotas=limits, transition_seconds=transition_seconds)
        self._own_plan = FaultPlan(seed)
        self._process = os.getpid()
        self._port = port
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)
        self._lock = threading.Lock()  # guards _server and _thread: start() and stop() run one at a time
        self._server: KinesisServer | None = None
        self._thread: threading.Thread | None = None
        self._earlier: Counter[str] = Counter()  # requests before the last stop()

    def _check_process(self) -> None:
        """Raise in a child of the process, which has the locks of the server without its threads."""
        if os.getpid() != self._process:
            raise ForkedProcess

    @property
    def model(self) -> Model:
        """The streams themselves, without HTTP."""
        self._check_process()
        return self._own_model

    @property
    def _plan(self) -> FaultPlan:
        self._check_process()
        return self._own_plan

    def start(self) -> Self:
        """Begin to serve; nothing happens when it does already.

        Raises
        ------
        PortInUse
            Another program listens on `port`.
        """
        self._check_process()
        with self._lock:
            if self._server is None:
                self._server = _listen(self._port, self.model, self._plan, self._allowed_hosts)
                self._port = self._server.server_address[1]
                self._thread = threading.Thread(
                    target=self._server.serve_forever, args=(0.02,), name="kinesis_nb emulator", daemon=True
                )
                self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection and end every thread; streams and scripted faults are kept for the next start."""
        self._check_process()
        with self._lock:
            server, thread, self._server, self._thread = self._server, self._thread, None, None
            if server is not None and thread is not None:
                server.close()
                thread.join()
                self._earlier += server.snapshot()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Emulator {f'serving {self.endpoint_url}' if self._server else 'stopped'}>"

    @property
    def endpoint_url(self) -> str:
        """Where it listens, for ``boto3.client("kinesis", endpoint_url=…)``."""
        if not self._port:
            raise RuntimeError("the emulator has no port yet\nhint: use it in a with statement, or call start()")
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything a client needs: ``boto3.client("kinesis", **emulator.settings)``. The keys are made up."""
        return {
            "endpoint_url": self.endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": _KEY,
            "aws_secret_access_key": _KEY,
        }

    def source(self, *, region: str = "us-east-1", exports_enabled: bool = True) -> Source:
        """Return a source of kinesis_nb on these streams, as ``kn.connect`` would.

        Parameters
        ----------
        region
            Whose streams; every region has its own.
        exports_enabled
            Whether the source may write.

        Examples
        --------
        >>> with Emulator() as emulator:
        ...     _ = emulator.model.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
        ...     emulator.source().explore()
        <Catalog us-east-1: orders>
        """
        from kinesis_nb.access.credentials import StaticCredentials
        from kinesis_nb.connection import connect

        keys = StaticCredentials(_KEY, _KEY)
        return connect(region=region, auth=keys, exports_enabled=exports_enabled, endpoint_url=self.endpoint_url)

    def on(self, operation: str, *faults: Fault) -> None:
        """Let the next requests to `operation` go wrong, one fault each, in this order.

        Parameters
        ----------
        operation
            An API operation, or "*" for any of them; faults for the operation itself come first.
        *faults
            What happens to the next request, the one after it, and so on. Requests beyond are served as usual.
        """
        _check_operation(operation)
        self._plan.script(operation, faults)

    def chaos(
        self,
        *,
        seed: int,
        rate: float,
        faults: Sequence[Fault] = DEFAULT_FAULTS,
        operations: Iterable[str] | None = None,
    ) -> None:
        """Let a share `rate` of all requests go wrong at random, until `calm()`.

        Parameters
        ----------
        seed
            The same seed and the same order of requests give the same faults.
        rate
            Between 0 and 1.
        faults
            What to choose from; each only hits operations that the service could answer so.
        operations
            Which operations are hit; None means all of them.
        """
        names = None if operations is None else frozenset(operations)
        for operation in names or ():
            _check_operation(operation)
        self._plan.chaos(seed, rate, faults, names)

    def calm(self) -> None:
        """End `chaos()`; faults scripted with `on()` stay."""
        self._plan.calm()

    @property
    def delivered(self) -> Counter[str]:
        """How many requests met each fault so far, by `Fault.name`: let a test fail when it is zero."""
        return self._plan.delivered

    @property
    def pending(self) -> list[tuple[str, Fault]]:
        """The scripted faults that no request has met yet."""
        return self._plan.pending

    @property
    def requests(self) -> Counter[str]:
        """How many requests each operation has had."""
        self._check_process()
        server = self._server
        return self._earlier + (server.snapshot() if server else Counter[str]())


def serve(
    port: int,
    *,
    quotas: Quotas | bool = False,
    streams: Mapping[str, int] | None = None,
    seed: int = 0,
    transition_seconds: float = 0.0,
    allowed_hosts: Iterable[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM; call it from the main thread.

    Parameters
    ----------
    port
        Where to listen; 0 takes a free one.
    quotas, seed, transition_seconds, allowed_hosts
        As for `Emulator`.
    streams
        Streams to begin with: name -> number of shards.

    Raises
    ------
    PortInUse
        Another program listens on `port`.
    AwsError
        A stream's name or number of shards is not valid.
    """
    emulator = Emulator(
        port=port, quotas=quotas, seed=seed, transition_seconds=transition_seconds, allowed_hosts=allowed_hosts
    )
    for name, shards in (streams or {}).items():
        emulator.model.call("CreateStream", {"StreamName": name, "ShardCount": shards})
    with _stop_signal() as stopped, emulator:
        print(_welcome(emulator.endpoint_url), flush=True)  # noqa: T201 - this is its user interface
        stopped.wait()


def _welcome(url: str) -> str:
    keys = f"AWS_ACCESS_KEY_ID={_KEY} AWS_SECRET_ACCESS_KEY={_KEY}"
    auth = f'auth=kn.StaticCredentials("{_KEY}", "{_KEY}")'
    return (
        f"Embedded Kinesis on {url} (streams live in memory; Ctrl-C ends it)\n"
        f'  source = kn.connect(region="us-east-1", endpoint_url="{url}", {auth}, exports_enabled=True)\n'
        f"  {keys} aws --region us-east-1 --endpoint-url {url} kinesis list-streams"
    )


@contextmanager
def _stop_signal() -> Generator[threading.Event]:
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    earlier = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _listen(port: int, model: Model, plan: FaultPlan, allowed_hosts: frozenset[str]) -> KinesisServer:
    try:
        return KinesisServer((LOOPBACK, port), model, plan, allowed_hosts)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(port) from error
        raise


def _check_operation(operation: str) -> None:
    if operation == "*" or operation in _OPERATIONS:
        return
    close = difflib.get_close_matches(operation, _OPERATIONS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else 'use a name of the API, such as "GetRecords", or "*"'
    raise ValueError(f"Kinesis has no operation {operation!r}\nhint: {hint}")
