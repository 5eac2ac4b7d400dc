"""Where a table is: a folder of this machine, or a prefix in S3. The one place that knows the difference."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from kinesis_nb import deltalog
from kinesis_nb.errors import ConfigError, TableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    import polars as pl
    from pyarrow import Schema, Table

LOG = deltalog.LOG
NOTES = "_kinesis_nb"  # Delta leaves folders alone whose name begins so

# The object store's own retries must end before ours are of use: nobody can see what it is waiting for.
CONNECT_SECONDS, REQUEST_SECONDS = 5, 30
_PATIENCE = {
    "connect_timeout": f"{CONNECT_SECONDS}s",
    "timeout": f"{REQUEST_SECONDS}s",
    "max_retries": "2",
    "retry_timeout": "10s",
}
_SHOWN = {"region", "endpoint", "endpoint_url", "allow_http", *_PATIENCE}
_LOOKS: dict[str, Any] = {  # of a Parquet file
    "use_dictionary": ["partition_key", "shard_id"],
    "write_statistics": ["shard_id", "shard_offset"],
}
_READS = 8  # at once
_DRAFT_SECONDS = 3600  # so old is a draft whose process is gone
_MAGIC = b"PAR1"  # a Parquet file begins and ends so
MERGED_ROWS = 50_000  # in memory at a time, and in a row group
_NOISE = re.compile(r"\x1b\[[0-9;]*m|↳")


class Options(dict[str, str]):
    """What an object store needs, by name; shown without what may be secret."""

    def __repr__(self) -> str:
        return repr({name: value if name in _SHOWN else "********" for name, value in self.items()})


class Storage:
    """A place for one table.

    Parameters
    ----------
    uri
        An absolute path, or ``s3://bucket/prefix``.
    options
        Gives what the object store needs at this moment, by the names of ``deltalake`` and ``polars``; credentials
        that are refreshed change them.
    """

    def __init__(self, uri: str, options: Callable[[], Mapping[str, str]] = dict) -> None:
        self.uri = uri
        self.folder = None if "://" in uri else Path(uri)
        self._give_options = options
        self._files: tuple[dict[str, str], pafs.FileSystem] | None = None

    @classmethod
    def at(cls, table: str | os.PathLike[str], options: Callable[[], Mapping[str, str]] = dict) -> Storage:
        """Read what a user may write for the place of a table.

        Raises
        ------
        ConfigError
            For anything but a path or an ``s3://`` address.
        """
        if not isinstance(table, str | os.PathLike) or not str(table):
            raise ConfigError(f"a {type(table).__name__} is not the place of a table", hint="give a path or s3://…")
        uri = os.fspath(table)
        if "://" not in uri:
            return cls(str(Path(uri).resolve()))
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.*[^/].*", uri):
            raise ConfigError(f"{uri!r} is not the place of a table", hint="give a path, or s3://bucket/prefix")
        return cls(uri.rstrip("/"), options)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.uri.rpartition("/")[2]

    def options(self) -> Options:
        """Return what the object store needs now; empty for a folder."""
        if self.folder is not None:
            return Options()
        given = Options(self._give_options())
        if (_endpoint(given) or "").startswith("http://"):
            given.setdefault("allow_http", "true")
        return given

    def open(self, version: int | None = None) -> DeltaTable:
        """Open the table, the newest version by default.

        Raises
        ------
        OSError
            When that is not possible now.
        TableError
            When a file of the log is not whole.
        """
        with self._log_errors(version):
            return DeltaTable(self.uri, version, self.patient_options())

    @contextmanager
    def _log_errors(self, version: int | None) -> Generator[None]:
        """Raise what is wrong with the log by its name, also where Delta would not notice."""
        with storage_errors():
            if self.folder is not None:  # an object store keeps an object whole or not at all
                deltalog.check(self, version)
            try:
                yield
            except DeltaError as error:
                if (found := deltalog.explain(self, version)) is not None:
                    raise found from error
                raise

    def patient_options(self) -> Options:
        """Return the same with limits to how long deltalake tries by itself."""
        return Options({**_PATIENCE, **self.options()}) if self.folder is None else Options()

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the rows of a version, the newest by default.

        Raises
        ------
        TableError
            When a file of the log, or of the rows in a folder, is not whole.
        """
        if self.folder is not None:
            _check_files(self.folder, self.open(version))
        return self._scan(version)

    def schema(self) -> pl.Schema:
        """Return the columns of the newest version, whatever became of its rows."""
        with self._log_errors(None):
            return self._scan(None).collect_schema()

    def _scan(self, version: int | None) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_delta(self.uri, version=version, storage_options=self.options() or None)

    def exists(self) -> bool:
        """Whether there is a Delta table."""
        with storage_errors():
            return deltalog.hinted(self)[0] >= 0 or any(
                name.endswith((".json", ".parquet")) for name in self.names(LOG)
            )

    def refuse_foreign(self) -> None:
        """Accept a table, an empty place, or nothing at all; raise TableError for anything else."""
        with storage_errors():
            found = self.names()
        if found - {NOTES} and LOG not in found:
            msg = f"{self.uri} is not a Delta table, and not empty"
            raise TableError(msg, hint="give a new place, or the place of a table that this sync made before")

    def names(self, within: str = "") -> set[str]:
        """Return the names of what is there, or in a folder there."""
        if self.folder is not None:
            folder = self.folder / within
            if folder.exists() and not folder.is_dir():
                return {folder.name}
            return {path.name for path in folder.iterdir()} if folder.exists() else set()
        files, root = self._file_system()
        found = files.get_file_info(pafs.FileSelector(f"{root}/{within}".rstrip("/"), allow_not_found=True))
        return {info.base_name for info in found}

    def sizes(self, within: str) -> dict[str, int]:
        """Return the names of the files in a folder there, and how many bytes each has."""
        if self.folder is None:
            files, root = self._file_system()
            found = files.get_file_info(pafs.FileSelector(f"{root}/{within}", allow_not_found=True))
            return {info.base_name: info.size or 0 for info in found if info.is_file}
        sizes = {}
        with suppress(FileNotFoundError), os.scandir(self.folder / within) as found:
            for item in found:
                with suppress(FileNotFoundError):  # removed meanwhile
                    sizes[item.name] = item.stat().st_size
        return sizes

    # --- files

    def write_parquet(self, rows: Table) -> tuple[str, int]:
        """Write rows to a durable file of a new name; return the name and its size in bytes."""
        name = f"part-{uuid.uuid4()}.parquet"
        if self.folder is None:
            body = io.BytesIO()
            _write_parquet(rows, body)
            self.write(name, body.getvalue())
            return name, body.tell()
        path = self.folder / name
        try:
            with path.open("wb") as file:
                _write_parquet(rows, file)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            _sync_folder(self.folder)
        except BaseException:
            self.discard([name])
            raise
        return name, size

    def merge_parquet(self, names: Iterable[str], schema: Schema) -> tuple[str, int, int]:
        """Write the rows of some files to a durable file of a new name; return the name, its size, and the rows.

        Memory holds one batch at a time.
        """
        name = f"part-{uuid.uuid4()}.parquet"
        files, root = (pafs.LocalFileSystem(), str(self.folder)) if self.folder is not None else self._file_system()
        rows = 0
        try:
            with files.open_output_stream(f"{root}/{name}") as target:
                with pq.ParquetWriter(target, schema, compression="zstd", **_LOOKS) as writer:
                    for source in names:
                        with files.open_input_file(f"{root}/{source}") as file:
                            for batch in pq.ParquetFile(file).iter_batches(MERGED_ROWS):
                                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
                                rows += batch.num_rows
                size = target.tell()
            if self.folder is not None:
                _fsync(self.folder / name)
                _sync_folder(self.folder)
        except BaseException:
            self.discard([name])
            raise
        return name, size, rows

    def discard(self, names: Iterable[str]) -> None:
        """Remove files that never became part of the table: on a full disk every try would leave more of them.

        Those in a bucket wait for the vacuum.
        """
        if self.folder is None:
            return
        for name in names:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def write(self, name: str, body: bytes) -> None:
        """Write a small durable file whole or not at all, over what is there."""
        if self.folder is None:
            files, root = self._file_system()
            with files.open_output_stream(f"{root}/{name}") as file:
                file.write(body)
            return
        path = self.folder / name
        with _drafted(path, body) as draft:
            draft.replace(path)

    def read(self, name: str) -> bytes | None:
        """Return a small file, None when there is none."""
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            files, root = self._file_system()
            with files.open_input_file(f"{root}/{name}") as file:
                body: bytes = file.read()
                return body
        except FileNotFoundError:
            return None

    def read_all(self, names: list[str]) -> list[bytes | None]:
        """Return small files, those of an object store fetched side by side."""
        if self.folder is not None:
            return list(map(self.read, names))
        with ThreadPoolExecutor(_READS, "kinesis_nb table") as pool:
            return list(pool.map(self.read, names))

    # --- the log

    def last_log_checkpoint(self) -> int:
        """Return the version of the newest checkpoint of the log, 0 when there is none."""
        hint, _ = deltalog.hinted(self)
        return hint if hint >= 0 else max(deltalog.live(self.sizes(LOG)).checkpoint, 0)

    def make_durable(self, versions: range) -> None:
        """Make log entries survive a power cut; an object store does that before it answers."""
        if self.folder is None:
            return
        for version in versions:  # in order: no entry is on disk before one that it relies on
            with suppress(FileNotFoundError):  # cleaned up already: a checkpoint of the log holds it
                _fsync(self.folder / deltalog.entry(version))
        _sync_folder(self.folder / LOG)

    def make_all_durable(self, version: int) -> None:
        """Make survive a power cut what a reader of a version needs of the log, whoever wrote it."""
        if self.folder is None:
            return
        found = deltalog.live(self.sizes(LOG), version)
        for name in (*(f"{LOG}/{part}" for part in found.parts), deltalog.LAST_CHECKPOINT):
            with suppress(FileNotFoundError):
                _fsync(self.folder / name)
        self.make_durable(range(found.checkpoint + 1, version + 1))
        for folder in (self.folder, *self.folder.parents):  # some of them may have been made with the table
            with suppress(OSError):
                _sync_folder(folder)

    def settle(self) -> list[int]:
        """Set straight what a power cut tore before anybody was told of it; return the versions of those commits."""
        return [] if self.folder is None else deltalog.settle(self)

    @contextmanager
    def creating(self) -> Generator[str]:
        """Give an address where a table is to be made; what was made is here afterwards, durable, or nothing is.

        Raises
        ------
        FileExistsError
            When another process made a table here meanwhile.
        """
        if self.folder is None:
            yield self.uri
            return
        with self._draft() as draft:
            yield str(draft)
            body = (draft / deltalog.entry(0)).read_bytes()
            path = self.folder / deltalog.entry(0)
            with _drafted(path, body.replace(f"{NOTES}/{draft.name}/".encode(), b"")) as entry:  # its address, in words
                os.link(entry, path)
        _sync_folder(self.folder)

    def checkpoint_log(self, table: DeltaTable) -> None:
        """Write a checkpoint of the log at the version of a handle; nothing refers to it before it is durable.

        deltalake writes the checkpoint and what refers to it in one go, so it does that in a place of its own.
        """
        if self.folder is None:
            table.create_checkpoint()
            return
        version, hint = table.version(), b""
        found = deltalog.live(self.sizes(LOG), version)
        if found.checkpoint < version:
            with self._draft() as draft:
                for name in (*found.parts, *(f"{number:020d}.json" for number in found.entries)):
                    os.link(self.folder / LOG / name, draft / LOG / name)
                DeltaTable(draft).create_checkpoint()
                for name in deltalog.live({path.name: 0 for path in (draft / LOG).iterdir()}).parts:
                    _fsync(draft / LOG / name)
                    with suppress(FileExistsError):  # another one was faster
                        os.link(draft / LOG / name, self.folder / LOG / name)
                hint = (draft / deltalog.LAST_CHECKPOINT).read_bytes()
        self.make_all_durable(version)
        if hint and version > deltalog.hinted(self)[0]:
            self.write(deltalog.LAST_CHECKPOINT, hint)

    @contextmanager
    def _draft(self) -> Generator[Path]:
        """Give a folder with an empty log, on the same disk; it is gone afterwards, and so are forgotten ones."""
        notes = Path(self.uri, NOTES)
        draft = notes / f"draft-{uuid.uuid4().hex}"
        (draft / LOG).mkdir(parents=True)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            for old in notes.glob("draft-*"):
                with suppress(FileNotFoundError):
                    if time.time() - old.stat().st_mtime > _DRAFT_SECONDS:
                        shutil.rmtree(old, ignore_errors=True)

    def _file_system(self) -> tuple[pafs.FileSystem, str]:
        """Return the bucket as Arrow reaches it, and the prefix of the table there.

        Not as deltalake does: its files are read and written with the interpreter locked.
        """
        options = self.options()
        if self._files is None or self._files[0] != options:
            self._files = options, _s3(options)
        return self._files[1], self.uri.removeprefix("s3://")

    def __repr__(self) -> str:
        return f"<Storage {self.uri}>"


def _write_parquet(rows: Table, where: IO[bytes]) -> None:
    """Write rows fast rather than small: what is appended is compacted later."""
    pq.write_table(
        rows,
        where,
        compression="lz4",
        **_LOOKS,
    )


def _s3(options: Mapping[str, str]) -> pafs.FileSystem:
    endpoint = _endpoint(options)
    return pafs.S3FileSystem(
        access_key=options.get("access_key_id"),
        secret_key=options.get("secret_access_key"),
        session_token=options.get("session_token") or options.get("token"),
        region=options.get("region"),
        endpoint_override=endpoint,
        scheme=endpoint.partition("://")[0] if endpoint else "https",
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _endpoint(options: Mapping[str, str]) -> str | None:
    given = options.get("endpoint_url") or options.get("endpoint")
    return given or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@contextmanager
def storage_errors() -> Generator[None]:
    """Raise what Delta and the object store say of their storage as one line and as the OSError that it is."""
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise OSError(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """Return the message of an object store, which is drawn as a tree of many lines, in one."""
    text = " ".join(_NOISE.sub(" ", str(error)).split())
    return text if len(text) <= 400 else f"{text[:399]}…"  # noqa: PLR2004 - a few lines of a screen


def explain(uri: str, error: OSError) -> TableError:
    """Return what a user can do about a place that cannot be used."""
    said = str(error)
    if "NoSuchBucket" in said:
        return TableError(f"{uri}: there is no such bucket", hint="make the bucket first, and check its region")
    if any(
        word in said for word in ("AccessDenied", "ACCESS_DENIED", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch")
    ):
        return TableError(
            f"{uri}: access denied ({said})",
            hint="the credentials need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there",
        )
    return TableError(f"{uri} cannot be used: {said}", hint="check the place and its permissions")


@contextmanager
def _drafted(path: Path, body: bytes) -> Generator[Path]:
    """Give a durable file that is to get the name `path` in the block; that name is durable afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(body)
        _fsync(draft)
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _check_files(folder: Path, table: DeltaTable) -> None:
    """Raise TableError for a file of rows that is gone, or whose length or ends are not those of what was written."""
    found = pa.table(table.get_add_actions())
    for path, size in zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True):
        if "://" in path:
            continue
        try:
            with (folder / unquote(path)).open("rb") as file:
                is_whole = file.read(4) == _MAGIC
                is_whole &= file.seek(-4, io.SEEK_END) == size - 4 and file.read() == _MAGIC
            state = "not whole"
        except FileNotFoundError:
            is_whole, state = False, "missing"
        except OSError:  # shorter than that
            is_whole, state = False, "not whole"
        if not is_whole:
            msg = f"{folder}: the rows of version {table.version():,} are not all there: {path} is {state}"
            raise TableError(msg, hint="put the file back from a backup, or sync into a new place")


def _fsync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut.

    Where folders cannot be opened (Windows) there is nothing to do.
    """
    with suppress(PermissionError):
        _fsync(folder)
