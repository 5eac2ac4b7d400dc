"""The front door: :class:`Source`, one short method per capability."""

from __future__ import annotations

import os
from datetime import UTC, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from kinesis_nb.access.credentials import Profile
from kinesis_nb.access.saved import save
from kinesis_nb.core.arguments import check_count, hinted, in_seconds
from kinesis_nb.core.interrupt import load, loading
from kinesis_nb.core.names import StreamArn, check_region, check_stream_name
from kinesis_nb.core.position import Kind, StartingPosition, check_end, moment
from kinesis_nb.core.process import of_one_process
from kinesis_nb.core.retry import RetryingReader
from kinesis_nb.core.transport import Clock, Kinesis, SystemClock
from kinesis_nb.errors import ConfigError, ExportsDisabled, forgetful, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from os import PathLike

    import polars as pl
    import pyarrow as pa

    from kinesis_nb.access.config import SourceConfig
    from kinesis_nb.access.permissions import IamPolicy, PermissionReport
    from kinesis_nb.agents.job import AgentExport, AgentSync, Job
    from kinesis_nb.agents.runner import AgentRunner
    from kinesis_nb.core.arguments import Seconds
    from kinesis_nb.core.frames import Records
    from kinesis_nb.core.types import Foreign, OnAmbiguous, OnBadKey, OnDataLoss, OnFull, Reshard, RowOrder
    from kinesis_nb.exploring.explore import Catalog, StreamView
    from kinesis_nb.exporting.encode import Encode
    from kinesis_nb.exporting.report import ExportReport
    from kinesis_nb.exporting.streaming import StreamingExport
    from kinesis_nb.exporting.target import Outlet
    from kinesis_nb.reading.plan import ReadPlan
    from kinesis_nb.reading.read import TimeRange
    from kinesis_nb.reading.tail import Tail
    from kinesis_nb.runner import LocalRunner
    from kinesis_nb.syncing.sync import Sync
    from kinesis_nb.table.storage import Storage

    Position = StartingPosition | str | datetime | timedelta


_CLIENT = "kinesis_nb.service.client"
_FUTURE = timedelta(minutes=1)  # less is a clock that goes wrong


def default_region(auth: object) -> tuple[str, str]:
    """Return the region of a source that was given none, and where it is from.

    That of the profile that was named, of the environment, of the default profile where none was named; Amazon's first
    one where none of them says.
    """
    load("kinesis_nb.service.session")
    from kinesis_nb.service.session import configured_region

    named = f"profile {auth.name!r}" if isinstance(auth, Profile) else ""
    found = [(configured_region(auth.name), named)] if isinstance(auth, Profile) else []
    found += [(os.environ.get(name, ""), name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")]
    region, place = next((one for one in found if one[0]), ("", ""))
    if not region and not named and (region := configured_region(None)):
        place = "the AWS configuration"
    return (check_region(region, place), place) if region else ("us-east-1", "by default")


def open_kinesis(config: SourceConfig) -> Kinesis:
    """Return the transport of a source, for an agent that has only its settings."""
    return Source(config)._kinesis  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


@of_one_process
class Source:
    """Streams of one account and region; made by :func:`~kinesis_nb.connection.connect`.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> source = kn.demo()
    >>> source.explore()
    <Catalog us-east-1: clicks, orders, results>
    >>> source.read("orders", progress=False)
    <Records: 1,000 rows>
    """

    def __init__(
        self,
        config: SourceConfig,
        *,
        kinesis: Kinesis | None = None,
        clock: Clock | None = None,
        region_from: str = "",
    ) -> None:
        self.config = config
        self._region_from = region_from  # where the region is from that nobody gave
        self._clock = clock or SystemClock()
        self._kinesis_given = kinesis
        self._kinesis_made: Kinesis | None = None

    @property
    def _kinesis(self) -> Kinesis:
        """The transport; made when first needed, because boto3 takes its time."""
        if self._kinesis_given is not None:
            return self._kinesis_given
        if self._kinesis_made is None:
            from kinesis_nb.service.client import KinesisClient

            self._kinesis_made = KinesisClient(self.config, self._clock)
        return self._kinesis_made

    @property
    def _runner(self) -> LocalRunner | AgentRunner:
        """What starts syncs and streaming exports."""
        from kinesis_nb.runner import LocalRunner

        if self.config.agents is not None:
            return self._agents
        return LocalRunner(self.config, lambda: self._kinesis, self._clock)

    @cached_property
    def _agents(self) -> AgentRunner:
        load("kinesis_nb.agents.runner")
        from kinesis_nb.agents.runner import AgentRunner

        return AgentRunner(self.config, open_kinesis)

    @forgetful
    @hinted
    def jobs(self) -> list[Job]:
        """Return the syncs and exports that the agents of this source know, each with status(), stop() and logs().

        Raises
        ------
        ConfigError
            When the source was connected without ``agents=``.
        AgentError
            When the agents cannot be reached.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> kn.demo().jobs()
        Traceback (most recent call last):
            ...
        kinesis_nb.errors.ConfigError: this source has no agents
        hint: connect it with agents=, the address of a scheduler
        """
        return self._runner.jobs()

    @property
    def _listings(self) -> RetryingReader:
        return RetryingReader(self._kinesis, self._clock)

    @overload
    def explore(self) -> Catalog: ...

    @overload
    def explore(self, stream: str) -> StreamView: ...

    @forgetful
    @hinted
    @loading(_CLIENT, "kinesis_nb.exploring.explore", "kinesis_nb.reading.read")
    def explore(self, stream: str | None = None) -> Catalog | StreamView:
        """Return a :class:`~kinesis_nb.exploring.explore.Catalog` of all streams, or a StreamView of one.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> kn.demo().explore()
        <Catalog us-east-1: clicks, orders, results>
        >>> kn.demo().explore("orders").open_shards
        2
        """
        from kinesis_nb.exploring.explore import Catalog, StreamView

        if stream is None:
            return Catalog(self._listings, self.config.region, self._sample)
        view = StreamView(self._listings, self._address(stream), self._sample)
        _ = view.summary  # an unknown stream is reported now, not when the view is first used
        return view

    def _sample(self, stream: str, start: StartingPosition, limit: int | None, newest: int | None) -> Records:
        from kinesis_nb.reading.read import TimeRange, read_range

        feed = self._feed(stream)
        end = self._kinesis.server_time().latest
        return read_range(feed, TimeRange(start, end, limit=limit, newest=newest))

    def _feed(
        self,
        stream: str,
        shards: Iterable[str] | None = None,
        key: str | None = None,
        *,
        reshard: Reshard = "ordered",
        decompress: bool = False,
        foreign: Foreign = "auto",
    ) -> ReadPlan:
        """List a stream; ``shards=`` must be among its shards."""
        from kinesis_nb.core.compression import decompressed, unchanged
        from kinesis_nb.reading.choice import shard_filter
        from kinesis_nb.reading.plan import ReadPlan

        listing = self._listings.list_shards(stream)
        wanted = shard_filter(stream, listing, shards, key)
        return ReadPlan(
            self._kinesis,
            stream,
            self._clock,
            tuple(filter(wanted, listing)),
            wanted,
            is_ordered=reshard == "ordered",
            unpack=decompressed if decompress else unchanged,
            foreign=foreign,
        )

    @forgetful
    @hinted
    @loading(_CLIENT, "kinesis_nb.reading.read")
    def read(
        self,
        stream: str,
        start: Position = "trim_horizon",
        end: Position = "now",
        *,
        shards: Iterable[str] | None = None,
        key: str | None = None,
        where: pl.Expr | None = None,
        limit: int | None = None,
        reshard: Reshard = "ordered",
        decompress: bool = False,
        foreign: Foreign = "auto",
        progress: bool = True,
    ) -> Records:
        """Read all records between two positions, from all shards, into memory.

        Parameters
        ----------
        stream
            Its name; its ARN for a stream of another account that is shared with this one.
        start, end
            ``"trim_horizon"``, ``"now"``, a datetime, a timedelta before now, ``"-15m"`` or a StartingPosition. The
            end is fixed when you call; of one in the future a warning says that only what is there now is read.
        shards
            Read only these shard ids.
        key
            Only the records of this partition key, from the shards whose hash keys hold it. One that was placed
            elsewhere, with an explicit hash key or in an aggregate of several keys, is found with ``where=`` only.
        where
            A polars expression over the columns of a row; only what it lets through is held. One that depends on other
            rows (``shift``, ``over``, ``is_first_distinct``, sums) is refused: it is applied batch by batch.
        limit, progress
            The most rows to return; whether to show a progress bar.
        reshard
            ``"ordered"`` reads a child shard after its parents; ``"relaxed"`` all at once, without order per key.
        decompress
            Turn gzip (CloudWatch Logs) and zstd data into the text that is in it.
        foreign
            ``"keep"`` or ``"drop"`` user records of aggregates whose hash keys are another shard's; ``"auto"`` drops
            them only up to two minutes after a reshard, when a KPL writes them again. A warning says what is dropped.

        Returns
        -------
        Records
            In order of arrival; the rows of one partition key in the order they were written.

        Raises
        ------
        ConfigError, StreamNotFound
            For a window, shards, a key or a limit that cannot be right; when there is no such stream.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> kn.demo().read("orders", start="-1h", progress=False)
        <Records: 1,000 rows>
        >>> kn.demo().read("orders", key="Ada", limit=5, progress=False)[0].partition_key
        'Ada'
        """
        from kinesis_nb.core.bars import share_bar
        from kinesis_nb.reading.choice import check_shards
        from kinesis_nb.reading.read import read_range, row_filter

        keep = row_filter(key, where)
        start, end = moment(start), moment(end)
        if limit is not None:
            check_count("limit", limit)
        self._check_window(start, end, shards := check_shards(shards))
        stream = self._address(stream)
        feed = self._feed(stream, shards, key, reshard=reshard, decompress=decompress, foreign=foreign)
        with share_bar(stream, shown=progress) as bar:
            return read_range(feed, self._window(start, end, keep, limit), bar)

    def _window(
        self, start: Position, end: Position, keep: Callable[[pa.RecordBatch], pa.RecordBatch], limit: int | None
    ) -> TimeRange:
        """Fix both ends, by the service's clock."""
        from kinesis_nb.reading.read import TimeRange

        now = self._kinesis.server_time().likely(self._clock.now())
        first = StartingPosition.parse(start, now)
        last = check_end(first, StartingPosition.parse(end, now), now)
        if last - now > _FUTURE:
            warn(
                f"the end {last.astimezone(UTC)} is in the future: read() reads up to now, sync(end=) waits for its end"
            )
        return TimeRange(first, last, keep, limit)

    @forgetful
    @hinted
    @loading(_CLIENT, "kinesis_nb.reading.tail")
    def tail(
        self,
        stream: str,
        start: Position = "latest",
        *,
        shards: Iterable[str] | None = None,
        max_rows: int = 100_000,
        max_bytes: int = 64 * 2**20,
        on_full: OnFull = "drop_oldest",
        reshard: Reshard = "ordered",
        decompress: bool = False,
        foreign: Foreign = "auto",
        name: str | None = None,
    ) -> Tail:
        """Follow a stream in memory.

        The tail is running when you get it. An earlier one of the same stream and shards is stopped, so that a cell may
        be run again; those of other shards, and those with a `name`, continue.

        Parameters
        ----------
        stream, start
            As for :meth:`read`; ``"latest"`` as well.
        shards
            Follow only these shard ids.
        max_rows, max_bytes
            What the tail may hold.
        on_full
            ``"drop_oldest"`` forgets the oldest rows and counts them; ``"block"`` stops reading until you take rows
            out.
        reshard, decompress, foreign
            As for :meth:`read`.
        name
            Stop the earlier tail of this name, whatever it reads, and no other one.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> with kn.demo().tail("clicks", max_rows=10_000) as tail:
        ...     tail.take(10, timeout=10)
        <Records: 10 rows>
        """
        from kinesis_nb.reading.buffer import Buffer
        from kinesis_nb.reading.choice import check_shards
        from kinesis_nb.reading.tail import Tail, tails

        buffer, start = Buffer(max_rows, max_bytes, on_full), moment(start)
        self._check_window(start, "now", shards := check_shards(shards))
        stream = self._address(stream)
        feed = self._feed(stream, shards, reshard=reshard, decompress=decompress, foreign=foreign)
        position = StartingPosition.parse(start, self._kinesis.server_time().earliest)
        same = name or (stream, None if shards is None else frozenset(shards))
        return tails.replace((self.config, same), lambda: Tail(feed, position, buffer))

    @forgetful
    @hinted
    @loading(_CLIENT, "kinesis_nb.syncing.sync")
    def sync(
        self,
        stream: str,
        table: str | PathLike[str],
        start: Position = "trim_horizon",
        *,
        end: Position | None = None,
        shards: Iterable[str] | None = None,
        key: str | None = None,
        where: pl.Expr | None = None,
        decompress: bool = False,
        commit_interval: Seconds = 1.0,
        on_data_loss: OnDataLoss = "fail",
        foreign: Foreign = "auto",
        storage_options: Mapping[str, str] | None = None,
    ) -> Sync | AgentSync:
        """Keep a Delta table in step with a stream: every record once, in order, across restarts, crashes and reshards.

        The sync is running when you get it. Calling it again, in any process, continues after the last commit.

        Parameters
        ----------
        stream
            As for :meth:`read`.
        table
            A local folder, or ``s3://bucket/prefix``; made if there is none.
        start
            Where to start when the table is made; later ignored, because the table knows where it stands.
        end
            The sync ends by itself when everything that arrived by then is in the table, by the service's clock; a time
            to come, too. Records that arrived later are left for the next sync of the table, except those that stand
            in their shard before one that arrived in time. None for a sync that runs until it is stopped.
        shards, key, where, decompress
            As for :meth:`read`. Rows that are not kept are counted: by :meth:`Sync.status` and :meth:`Sync.verify`, and
            in the history of the table. A table keeps one selection for good: a call with another one is refused.
            `shards` are these alone, and not what comes out of them at a reshard; `key` is followed from shard to
            shard. `where` decides on each row by itself, before it is committed: without Python functions and without
            ``foundry_ingestion_timestamp``.
        commit_interval
            Seconds between commits, or a timedelta.
        on_data_loss
            What happens when the stream did not keep records until they were read, because the sync was stopped for
            longer than its retention: ``"fail"`` stops with :class:`DataLoss`; ``"warn"`` records the gap in the
            table, where :meth:`Sync.verify` finds it, and continues.
        foreign
            As for :meth:`read`. Another choice than before counts from the next record on; what was dropped stays so.
        storage_options
            For S3, by the names of polars and deltalake: ``endpoint_url``, ``region`` and so on. They override
            the region and the credentials of this source, which are used otherwise.

        Raises
        ------
        ConfigError
            For a place, a start, an end, a selection, an interval or options that cannot be right.
        TableError
            When the place cannot be used, holds something else, or the table of another stream or selection.

        Examples
        --------
        >>> import tempfile
        >>> import kinesis_nb as kn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sync = kn.demo().sync("orders", f"{folder}/orders", end="now")
        ...     sync.wait(timeout=60, until_caught_up=False), len(sync)
        ...     sync.stop()
        (True, 1000)
        """
        from kinesis_nb.reading.choice import check_shards, selection
        from kinesis_nb.runner import SyncCall
        from kinesis_nb.table.options import read_options

        position = StartingPosition.parse(start, self._clock.now())
        chosen = selection(check_shards(shards), key, where, decompress=decompress)
        if end is not None:
            check_end(position, StartingPosition.parse(end, self._clock.now()))
        call = SyncCall(
            stream=self._address(stream),
            table=table,
            storage=self._place(table, storage_options),
            storage_options=read_options(storage_options),
            start=position,
            end=end,
            commit_interval=in_seconds(commit_interval),
            on_data_loss=on_data_loss,
            foreign=foreign,
            selection=chosen,
        )
        return self._runner.sync(call)

    def _place(self, table: str | PathLike[str], storage_options: Mapping[str, str] | None) -> Storage:
        from kinesis_nb.table.options import read_options
        from kinesis_nb.table.storage import Storage

        given = read_options(storage_options)
        return Storage.at(table, lambda: {**self._kinesis.storage_options(), **given})

    @forgetful
    @hinted
    @loading(_CLIENT, "kinesis_nb.exporting.frame")
    def export_df(
        self,
        df: Any,
        output_stream_arn: str,
        *,
        partition_column: str | None = None,
        encode: Encode | None = None,
        data_column: str | None = None,
        order: RowOrder = "per_key",
        aggregate: bool = False,
        on_bad_key: OnBadKey = "fail",
        on_ambiguous: OnAmbiguous = "resend",
        resume: ExportReport | None = None,
        progress: bool | Callable[[int], None] = True,
    ) -> ExportReport:
        """Write every row of a frame to another stream.

        Parameters
        ----------
        df
            A frame or Series of polars or pandas, a LazyFrame, an Arrow table or stream, anything with
            ``__arrow_c_stream__``. Values arrive exactly, or are refused (docs/exports.md).
        output_stream_arn, partition_column
            An ARN of this source's region; what gives the partition key, the first string column by default.
        encode, data_column
            A function from a row (a dict) to its data, or a column to send as it is. By default one JSON object per
            row; a frame of records, with ``partition_key``, ``data`` and no columns but theirs, is sent as it is.
        order, aggregate
            ``"per_key"`` keeps the order of the rows of a key; ``"none"`` is faster. For few keys, KPL aggregates are
            fast and keep it; readers must unpack them, as ours do.
        on_bad_key
            What to do with a key that is null, empty or over 256 characters: ``"fail"``, ``"skip"`` the row and report
            it, or ``"hash"``: use a SHA-256 of the key, or of the data where there is no key.
        on_ambiguous
            When a response is lost: ``"resend"`` and count possible duplicates, or ``"stop"``.
        resume
            The report of an export of these rows in this order: those that are not done are sent. Others are refused.
        progress
            Show a bar, or call a function with the rows written so far; a KinesisError from it stops the export.

        Returns
        -------
        ExportReport
            Of this call; after an interrupt, of what was sent.

        Raises
        ------
        ConfigError
            For a frame, column, key, size or ARN that cannot be right, and ExportsDisabled. Nothing was sent, except
            earlier batches of a frame that is read while it is sent (see ``error.report``).
        StreamNotFound, ServiceError
            No such stream; the service refuses for good. After any error, ``error.report`` can be resumed.

        Examples
        --------
        >>> import polars as pl
        >>> import kinesis_nb as kn
        >>> source = kn.demo()
        >>> frame = pl.DataFrame({"customer": ["Ada", "Alan"], "total": [4.5, 3.2]})
        >>> report = source.export_df(frame, source.explore("results").summary.arn, progress=False)
        >>> report.rows, report.possible_duplicates
        (2, 0)
        """
        from kinesis_nb.core.bars import row_bar
        from kinesis_nb.exporting.frame import export_frame
        from kinesis_nb.exporting.options import Delivery, RecordOptions

        outlet = self._outlet(output_stream_arn)
        options = RecordOptions(partition_column, encode, data_column, on_bad_key, aggregate)
        delivery = Delivery(order, on_ambiguous, resume)
        with row_bar(outlet.stream, shown=progress) as bar:
            return export_frame(outlet, df, options, delivery, bar)

    @forgetful
    @hinted
    @loading(_CLIENT, "kinesis_nb.exporting.start")
    def export_stream(
        self,
        table_or_tail: Sync | AgentSync | Tail | str | PathLike[str],
        output_stream_arn: str,
        *,
        partition_column: str | None = None,
        start: Position = "trim_horizon",
        end: Position | None = None,
        rate: float | None = None,
        aggregate: bool = False,
        on_bad_key: OnBadKey = "fail",
        journal: str | PathLike[str] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> StreamingExport | AgentExport:
        """Write a synced table to another stream as it grows, byte for byte and in order per partition key.

        The export is running when you get it. Calling it again, in this process or another one, continues where it was:
        after a crash only the records without a response yet are sent again, and counted.

        Parameters
        ----------
        table_or_tail
            A :class:`Sync`, the path of its table, or a :class:`Tail`. The rows of a tail are taken out of it and are
            nowhere else, so only the export of a table can be resumed.
        output_stream_arn, partition_column
            As for :meth:`export_df`; by default the records keep their own keys.
        start
            Where to start when the export is created, by arrival in the source stream; ignored when it continues.
        end
            Export what arrived until then, and end; with `start`, a replay of a time range. Different ranges are
            different exports.
        rate
            The most rows per second.
        aggregate, on_bad_key
            As for :meth:`export_df`.
        journal
            The file that keeps the position; by default in the folder ``_exports`` of the table. A table in S3 has no
            such folder and needs it; `storage_options` are those of :meth:`sync`.

        Raises
        ------
        ExportsDisabled
            When the source was connected without ``exports_enabled=True``.
        ConfigError
            For an argument that cannot be right; nothing was sent.
        TableError
            When there is no synced table.
        Fenced
            When another process runs this export.

        Examples
        --------
        >>> import tempfile
        >>> import kinesis_nb as kn
        >>> source = kn.demo()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sync = source.sync("orders", f"{folder}/orders")
        ...     export = source.export_stream(sync, source.explore("results").summary.arn, end="now")
        ...     export.wait(timeout=60, until_caught_up=False), export.status().rows
        ...     sync.stop()
        (True, 1000)
        """
        from kinesis_nb.exporting.options import Range, RecordOptions
        from kinesis_nb.exporting.rows import Rows
        from kinesis_nb.runner import ExportCall
        from kinesis_nb.table.options import read_options

        outlet = self._outlet(output_stream_arn)
        call = ExportCall(
            outlet=outlet,
            rows=Rows.of(table_or_tail, storage_options, self._place),
            options=RecordOptions.of_records(partition_column, on_bad_key, aggregate),
            span=Range(*self._range(start, end), rate, journal),
            storage_options=read_options(storage_options),
        )
        return self._runner.export_stream(call)

    def _range(self, start: Position, end: Position | None) -> tuple[StartingPosition, datetime | None]:
        """Return where to start and where to end, by the service's clock; the end may be left out."""
        now = self._kinesis.server_time().likely(self._clock.now())
        first = StartingPosition.parse(start, now)
        return first, None if end is None else check_end(first, StartingPosition.parse(end, now), now)

    def _outlet(self, arn: str) -> Outlet:
        """Return the way to a stream that an export may write to."""
        from kinesis_nb.exporting.target import Outlet

        if not self.config.exports_enabled:
            raise ExportsDisabled("exports are not enabled on this source", hint="connect it with exports_enabled=True")
        stream = self._kinesis.address(StreamArn.parse(arn, self.config.region))
        return Outlet(self._kinesis, self._clock, stream, arn)

    def _address(self, stream: object) -> str:
        """Return what calls name a stream by that a user gave by its name or, of another account, by its ARN."""
        if isinstance(stream, str) and stream.startswith("arn:"):
            return self._kinesis.address(StreamArn.parse(stream, self.config.region))
        return check_stream_name(stream)

    def _check_window(self, start: Position, end: Position, shards: tuple[str, ...] | None) -> None:
        """Refuse a start or an end that cannot be right before anything is sent."""
        now = self._clock.now()
        position = StartingPosition.parse(start, now)
        check_end(position, StartingPosition.parse(end, now), now)
        if position.kind is Kind.AFTER_SEQUENCE_NUMBER and (shards is None or len(shards) != 1):
            raise ConfigError("a sequence number is a place in one shard", hint="name that shard with shards=[...]")

    @forgetful
    @hinted
    def save(self, name: str) -> None:
        """Save the settings under a name, for ``kn.connect(name)``; an earlier source of that name is replaced.

        Secrets go to the keyring of the system if there is one, and never into the file; otherwise a warning says what
        is not kept, and it is asked for when the source is connected.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> kn.connect(region="eu-central-1").save("orders-prod")  # doctest: +SKIP
        >>> kn.connect("orders-prod", exports_enabled=True)  # doctest: +SKIP
        <Source eu-central-1, default credentials, exports enabled>
        """
        if lost := save(self.config, name):
            warn(
                f"source {name!r} is saved without its {' and '.join(lost)}: there is no keyring to keep secrets",
                hint=f"kn.connect({name!r}) asks for it; or pip install 'kinesis_nb[keyring]' and save it again",
            )

    @forgetful
    @hinted
    @loading(_CLIENT)
    def iam_policy(
        self,
        read: Iterable[str] = (),
        write: Iterable[str] = (),
        *,
        list_streams: bool = False,
        summary: bool = False,
        fan_out: bool = False,
        kms_key: str | None = None,
        cross_account: str | None = None,
        trust: str | None = None,
    ) -> IamPolicy:
        """Write the policy that allows reading and writing streams, and nothing else.

        Parameters
        ----------
        read, write
            Names or ARNs of streams. For a name the stream, or else STS, is asked for the account.
        list_streams, summary
            Also what :meth:`explore` shows beyond a reader's needs: all streams; consumers, channels and queues.
        fan_out
            Also enhanced fan-out: registering a consumer, and its subscriptions.
        kms_key
            Also the key, by its ARN, of streams that a customer's own key encrypts.
        cross_account
            The ARN of a role or user of another account that is to use the streams: ``resource_policies`` holds what
            the streams' own account attaches to them.
        trust
            The ARN of who may assume the role of this source: ``trust_policy`` holds what the role's own account sets,
            with this source's external id.

        Raises
        ------
        ConfigError
            For what is not a stream, ARN or principal, and when the account of a name cannot be found out.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> policy = kn.demo().iam_policy(read=["orders"])
        >>> policy.to_dict()["Statement"][0]["Resource"]
        'arn:aws:kinesis:us-east-1:000000000000:stream/orders'
        """
        from kinesis_nb.access.permissions import PolicyExtras, write_policy

        extras = PolicyExtras(
            list_streams=list_streams,
            summary=summary,
            fan_out=fan_out,
            kms_key=kms_key,
            cross_account=cross_account,
            trust=trust,
            external_id=self.config.sts_role.external_id if self.config.sts_role else None,
        )
        return write_policy(
            [str(arn) for arn in self._arns("read", read)],
            [str(arn) for arn in self._arns("write", write)],
            extras,
        )

    @forgetful
    @hinted
    @loading(_CLIENT)
    def check(self, *, read: Iterable[str] = (), write: Iterable[str] = ()) -> PermissionReport:
        """Ask AWS, action by action, whether these credentials may read and write streams. Nothing is changed.

        Where a stream is encrypted with a customer's own key, one record is read to see whether the key may be used;
        whether it may be written with stays unknown. Enhanced fan-out is not asked about: nothing here uses it.

        Parameters
        ----------
        read, write
            Names or ARNs of streams.

        Returns
        -------
        PermissionReport
            What is allowed, denied or not known, what each denial disables, and the policy that would fix it.

        Examples
        --------
        >>> import kinesis_nb as kn
        >>> report = kn.demo().check(read=["orders"], write=["results"])
        >>> report.is_sufficient
        True
        """
        from kinesis_nb.access.permissions import check

        return check(self._kinesis, self._arns("read", read), self._arns("write", write))

    def _arns(self, name: str, streams: Iterable[str]) -> list[StreamArn]:
        from kinesis_nb.access.permissions import stream_arns

        return stream_arns(self._kinesis, self.config.region, name, streams)

    def __repr__(self) -> str:
        place = f" ({self._region_from})" if self._region_from else ""
        place += _shown_endpoint(self.config)
        exports = ", exports enabled" if self.config.exports_enabled else ""
        auth = f"{self.config.auth or 'default credentials'}{f', {role}' if (role := self.config.sts_role) else ''}"
        return f"<Source {self.config.region}{place}, {auth}{exports}{_shown_agents(self.config.agents)}>"


def _shown_agents(agents: object) -> str:
    """Say where syncs and streaming exports run when that is not this process."""
    if agents is None:
        return ""
    return f", agents at {agents}" if isinstance(agents, str) else ", agents of a Dask client"


def _shown_endpoint(config: SourceConfig) -> str:
    """Say where requests go when that is not AWS's endpoint, or when the environment seems to say otherwise."""
    if config.endpoint_url:
        return f" at {config.endpoint_url}"
    if isinstance(config.auth, Profile):
        load("kinesis_nb.service.session")
        from kinesis_nb.service.session import configured_endpoint

        endpoint = configured_endpoint(config.auth.name)
        return f" at {endpoint} (of the AWS configuration)" if endpoint else ""
    ignored = next((name for name in ("AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL") if os.environ.get(name)), "")
    return f" at AWS ({ignored} counts only with a Profile)" if ignored else ""
