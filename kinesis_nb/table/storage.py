"""Where a table is: a folder of this machine, or a prefix in S3. The one place that knows the difference."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
from collections import deque
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

from kinesis_nb.errors import KinesisError, TableError, forget_frames
from kinesis_nb.table import address, deltalog, fencing
from kinesis_nb.table.address import Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    import polars as pl
    from pyarrow import Schema, Table

LOG = deltalog.LOG
NOTES = "_kinesis_nb"  # Delta leaves folders alone whose name begins so

_FENCED = f"{NOTES}/conditional-put"
_NOT_IMPLEMENTED = re.compile("501 Not Implemented|NotImplemented")

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
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN}
_DROPPINGS = {
    *(".ds_store", ".localized", "icon\r", "desktop.ini", "thumbs.db", "ehthumbs.db", ".directory", "@eadir"),
    *(".gitkeep", ".keep", ".gitignore", ".gitattributes", ".placeholder", ".ipynb_checkpoints", "lost+found"),
}
_NOISE = re.compile(r"\x1b\[[0-9;]*m|↳")
_DATA_FILE = re.compile(r"part-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.parquet")
_CHECKED = 20  # hexadecimal digits of a file's name; the other 12 are computed from them
_IN_FLIGHT = 8  # files of rows, the newest, that may still be on their way into the log


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
        self._written: deque[str] = deque(maxlen=_IN_FLIGHT)

    @classmethod
    def at(cls, table: str | os.PathLike[str], options: Callable[[], Mapping[str, str]] = dict) -> Storage:
        """Read what a user may write for the place of a table.

        Raises
        ------
        ConfigError
            For anything but a path or an ``s3://`` address, and for a name that Delta cannot handle.
        """
        return cls(address.read_address(table), options)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.uri.rpartition("/")[2]

    @property
    def kept_apart_by(self) -> str:
        """What makes sure that of two writers of a version of the table one is refused."""
        if self.folder is not None:
            return "the file system"
        return "conditional writes of the object store (If-None-Match), tried before the first commit"

    def options(self) -> Options:
        """Return what the object store needs now; empty for a folder."""
        if self.folder is not None:
            return Options()
        given = Options(self._give_options())
        if (_endpoint(given) or "").startswith("http://"):
            given.setdefault("allow_http", "true")
        return given

    def open(self, version: int | None = None) -> Handle:
        """Open the table, the newest version by default.

        Raises
        ------
        OSError
            When that is not possible now.
        TableError
            When a file of the log is incomplete.
        """
        with self._log_errors(version):
            return Handle(self.uri, version, self.patient_options())

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
                if deltalog.is_gone(self.sizes(LOG)):
                    msg = f"the log of the table, {self.uri}/{LOG}, is gone: put it back, or sync into a new place"
                    raise OSError(msg) from error
                raise

    def patient_options(self) -> Options:
        """Return the same with limits to how long deltalake tries by itself."""
        return Options({**_PATIENCE, **self.options()}) if self.folder is None else Options()

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the rows of a version, the newest by default; for the engine, because it holds the keys to them.

        Raises
        ------
        OSError
            When the table cannot be opened now.
        TableError
            When a file of the log, or of the rows in a folder, is incomplete.
        """
        table = self.open(version)
        if self.folder is not None:
            _check_files(self.folder, table)
        return self.rows_of(table)

    def rows_of(self, table: DeltaTable) -> pl.LazyFrame:
        """Return the rows of an open table, with the keys of this moment."""
        import polars as pl

        return pl.scan_delta(table, storage_options=self.options() or None)

    def exists(self) -> bool:
        """Whether there is a Delta table."""
        with storage_errors():
            return deltalog.hinted(self)[0] >= 0 or any(
                name.endswith((".json", ".parquet")) for name in self.names(LOG)
            )

    def refuse_foreign(self) -> None:
        """Accept a table, an empty place, or nothing at all; raise TableError for anything else.

        A new table within another one is refused too: whoever cleans up the outer one would remove its files.
        """
        with storage_errors():
            found = self.names()
            if LOG in found and self.exists():
                return
            outer = self._outer_table()
        if outer is not None:
            raise TableError(f"{self.uri} is within {outer}, which is a Delta table", hint="give a place outside of it")
        if any(name not in {LOG, NOTES} and not _is_dropping(name) for name in found):
            msg = f"{self.uri} is not a Delta table, and not empty"
            raise TableError(msg, hint="give a new place, or the place of a table that this sync made before")

    def _outer_table(self) -> str | None:
        """Return the table that this place is within; of an object store, as far as the credentials may look there."""
        if self.folder is not None:
            return next((str(outer) for outer in self.folder.parents if os.path.isdir(outer / LOG)), None)  # noqa: PTH112 - Path.is_dir raises where nobody may look
        files, root = self._file_system()
        bucket, *parts = root.split("/")
        for depth in reversed(range(len(parts))):
            outer = "/".join([bucket, *parts[:depth]])
            try:
                [log] = files.get_file_info([f"{outer}/{LOG}"])
            except OSError as error:
                if _is_refusal(str(error)):
                    return None
                raise
            if log.type is pafs.FileType.Directory:
                return f"s3://{outer}"
        return None

    def check_fencing(self) -> None:
        """Accept a place where a second writer is kept out of a table; what was found is noted there.

        Raises
        ------
        TableError
            When the object store has no conditional writes; there is no table then.
        OSError
            When that cannot be found out now.
        """
        if self.folder is not None:
            return
        note = json.dumps({"endpoint": _endpoint(self.options()), "if_none_match": True}).encode()
        with storage_errors():
            if self.read(_FENCED) == note:
                return
            if not self._refuses_to_overwrite():
                msg = f"{self.uri}: the object store has no conditional writes, so nothing keeps two writers apart"
                hint = "give a place in S3, or in a store that refuses a PUT with If-None-Match: * of what is there"
                raise TableError(msg, hint=hint)
            self.write(_FENCED, note)

    def _refuses_to_overwrite(self) -> bool:
        place = f"{NOTES}/probe-{uuid.uuid4()}"
        first, entry = f"{place}/{fencing.FIRST}", fencing.first_entry()
        try:
            fencing.collide(f"{self.uri}/{place}", self.patient_options(), lambda: self.write(first, entry))
            return self.read(first) == entry
        except (DeltaError, OSError) as error:
            if _NOT_IMPLEMENTED.search(str(error)):
                return False
            raise
        finally:
            files, root = self._file_system()
            with suppress(OSError):
                files.delete_dir(f"{root}/{place}")

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

    def write_parquet(self, rows: Table, table_id: str = "") -> tuple[str, int]:
        """Write rows to a durable file of a new name; return the name and its size in bytes.

        Parameters
        ----------
        table_id
            As for :func:`new_name`.
        """
        name = new_name(table_id)
        self._written.append(name)
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
            sync_folder(self.folder)
        except BaseException:
            self.discard([name])
            raise
        return name, size

    def merge_parquet(self, names: Iterable[str], schema: Schema, table_id: str = "") -> tuple[str, int, int]:
        """Write the rows of some files to a durable file of a new name; return the name, its size, and the rows.

        A column that a file lacks is null in its rows. Memory holds one batch at a time.

        Parameters
        ----------
        schema
            Of the new file. A column of it is found in the files by its name.
        table_id
            As for :func:`new_name`.
        """
        name = new_name(table_id)
        files, root = self._place()
        rows = 0
        try:
            with files.open_output_stream(f"{root}/{name}") as target:
                with pq.ParquetWriter(target, schema, compression="zstd", **_LOOKS) as writer:
                    for source in names:
                        with files.open_input_file(f"{root}/{source}") as file:
                            for batch in pq.ParquetFile(file).iter_batches(MERGED_ROWS):
                                writer.write_table(conform(pa.Table.from_batches([batch]), schema))
                                rows += batch.num_rows
                size = target.tell()
            if self.folder is not None:
                _fsync(self.folder / name)
                sync_folder(self.folder)
        except BaseException:
            self.discard([name])
            raise
        return name, size, rows

    def discard(self, names: Iterable[str]) -> None:
        """Remove data files of the table's folder: never published ones, or such that no reader needs any more.

        A full disk would fill up further with every try. What cannot be removed now stays for a later vacuum.
        """
        for name in names:
            with suppress(OSError, pa.ArrowException):
                if self.folder is not None:
                    (self.folder / name).unlink(missing_ok=True)
                else:
                    files, root = self._file_system()
                    files.delete_file(f"{root}/{name}")

    def data_files(self) -> dict[str, pafs.FileInfo]:
        """Return the Parquet files at the top of the table's folder, by name.

        What is in folders below is not looked at: no sync and no OPTIMIZE of its table writes there.
        """
        files, root = self._place()
        found = files.get_file_info(pafs.FileSelector(root, allow_not_found=True))
        return {
            info.base_name: info
            for info in found
            if info.type is pafs.FileType.File and info.base_name.endswith(".parquet")
        }

    def in_flight(self) -> set[str]:
        """Return files of rows that this process may not have published yet, however long it takes."""
        return set(self._written)

    def fault(self, name: str) -> str:
        """Say what is wrong with a data file: it is missing, or no Parquet file; an empty string when neither."""
        files, root = self._place()
        try:
            with files.open_input_file(f"{root}/{name}") as file:
                pq.ParquetFile(file)
        except FileNotFoundError:
            return f"the data file {name} is missing"
        except pa.ArrowInvalid:
            return f"the data file {name} is not a complete Parquet file"
        return ""

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

    def has(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        if self.folder is not None:
            return (self.folder / name).exists()
        files, root = self._file_system()
        return bool(files.get_file_info(f"{root}/{name}").type != pafs.FileType.NotFound)

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
        sync_folder(self.folder / LOG)

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
                sync_folder(folder)

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
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._draft() as draft:
            yield str(draft)
            body = (draft / deltalog.entry(0)).read_bytes()
            path = self.folder / deltalog.entry(0)
            with _drafted(path, body.replace(f"{NOTES}/{draft.name}/".encode(), b"")) as entry:  # its address, in words
                os.link(entry, path)
        sync_folder(self.folder)

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
                DeltaTable(address.url_of(str(draft))).create_checkpoint()
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
        notes.mkdir(exist_ok=True)
        (draft / LOG).mkdir(parents=True)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            for old in notes.glob("draft-*"):
                with suppress(FileNotFoundError):
                    if time.time() - old.stat().st_mtime > _DRAFT_SECONDS:
                        shutil.rmtree(old, ignore_errors=True)

    def _place(self) -> tuple[pafs.FileSystem, str]:
        """Return how Arrow reaches the files, and the folder of the table there."""
        return self._file_system() if self.folder is None else (pafs.LocalFileSystem(), str(self.folder))

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


def new_name(table_id: str = "") -> str:
    """Return a name for a data file.

    Parameters
    ----------
    table_id
        Of the table that the file is for: :func:`is_ours` then knows the name again. A torn file has no content that
        could tell whose it is, and a file that somebody copied here looks like one of ours: only its name differs.
    """
    drawn = uuid.uuid4().hex
    digits = drawn[:_CHECKED] + _check(drawn[:_CHECKED], table_id) if table_id else drawn
    return f"part-{uuid.UUID(digits)}.parquet"


def is_ours(name: str, table_id: str) -> bool:
    """Whether a data file was written by a sync, for the table of that id."""
    if not (found := _DATA_FILE.fullmatch(name)):
        return False
    digits = found[1].replace("-", "")
    return digits[_CHECKED:] == _check(digits[:_CHECKED], table_id)


def _check(digits: str, table_id: str) -> str:
    return hashlib.sha256(f"kinesis_nb/{table_id}/{digits}".encode()).hexdigest()[: 32 - _CHECKED]


def conform(rows: Table, schema: Schema) -> Table:
    """Return rows with the columns of a schema, found by name; one that the rows lack is null."""
    present = set(rows.schema.names)
    columns = [
        rows[field.name].cast(field.type) if field.name in present else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


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
    except KinesisError:  # some of them are an OSError as well
        raise
    except (DeltaError, OSError, pa.ArrowException) as error:
        forget_frames(error)  # they hold the options of the object store
        raise OSError(one_line(error)) from error


@contextmanager
def storage_told(uri: str) -> Generator[None]:
    """Raise what goes wrong with the table at `uri` as what a user can do about it."""
    import polars as pl

    try:
        with storage_errors():
            yield
    except KinesisError:  # some of them are an OSError as well
        raise
    except OSError as error:
        raise explain(uri, error) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        forget_frames(error)
        raise explain(uri, OSError(one_line(error))) from error


def one_line(error: BaseException) -> str:
    """Return the message of an object store, which is drawn as a tree of many lines, in one."""
    text = " ".join(_NOISE.sub(" ", str(error)).split())
    return text if len(text) <= 400 else f"{text[:399]}…"  # noqa: PLR2004 - a few lines of a screen


def explain(uri: str, error: OSError) -> TableError:
    """Return what a user can do about a place that cannot be used."""
    said = str(error)
    if "NoSuchBucket" in said:
        return TableError(f"{uri}: there is no such bucket", hint="make the bucket first, and check its region")
    if _is_refusal(said):
        return TableError(
            f"{uri}: access denied ({said})",
            hint="the credentials need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there",
        )
    hint = "check the place and its permissions"
    return TableError(f"{uri} cannot be used: {said}", hint=hint, retryable="://" in uri or _may_pass(said))


@contextmanager
def _drafted(path: Path, body: bytes) -> Generator[Path]:
    """Give a durable file that is to get the name `path` in the block; that name is durable afterwards."""
    path.parent.mkdir(exist_ok=True)  # not its parents: a table that was moved away must not seem to be there
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(body)
        _fsync(draft)
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


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
            state = "incomplete"
        except FileNotFoundError:
            is_whole, state = False, "missing"
        except OSError:  # shorter than that
            is_whole, state = False, "incomplete"
        if not is_whole:
            msg = f"{folder}: the rows of version {table.version():,} are not all there: {path} is {state}"
            raise TableError(msg, hint="put the file back from a backup, or sync into a new place")


def _is_refusal(said: str) -> bool:
    return bool(re.search(r"AccessDenied|ACCESS_DENIED|\b403\b|InvalidAccessKeyId|SignatureDoesNotMatch", said))


def _may_pass(said: str) -> bool:
    """Whether a file system says what it says for a while, as when it is full, and no path or permission is wrong."""
    found = re.search(r"(?:Errno|os error) (\d+)", said)  # Python's words, and Rust's
    return found is not None and int(found[1]) in _PASSING


def _is_dropping(name: str) -> bool:
    """Whether a file is what file managers, version control, notebooks and file systems leave in empty folders."""
    return name.lower() in _DROPPINGS or name.startswith(("._", ".nfs", ".Trash"))


def _fsync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut.

    Where folders cannot be opened (Windows) there is nothing to do.
    """
    with suppress(PermissionError):
        _fsync(folder)
