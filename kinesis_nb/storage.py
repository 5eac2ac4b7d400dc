"""Where a table is: a folder of this machine, or a prefix in S3. The one place that knows the difference."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from kinesis_nb import address, fencing
from kinesis_nb.address import Handle
from kinesis_nb.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    import polars as pl
    from pyarrow import Schema, Table

LOG = address.LOG
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
MERGED_ROWS = 50_000  # in memory at a time, and in a row group
_DROPPINGS = {
    *(".ds_store", ".localized", "icon\r", "desktop.ini", "thumbs.db", "ehthumbs.db", ".directory", "@eadir"),
    *(".gitkeep", ".keep", ".gitignore", ".gitattributes", ".placeholder", ".ipynb_checkpoints", "lost+found"),
}
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
            For anything but a path or an ``s3://`` address, and for a name that Delta cannot handle.
        """
        return cls(address.read_address(table), options)

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

    def create(self, **table: Any) -> None:
        """Create an empty table, as ``DeltaTable.create`` takes it.

        Raises
        ------
        OSError
            When that is not possible now.
        """
        with storage_errors():
            address.create(self.uri, self.patient_options(), **table)

    def open(self, version: int | None = None) -> Handle:
        """Open the table, the newest version by default.

        Raises
        ------
        OSError
            When that is not possible now.
        """
        with storage_errors():
            return Handle(self.uri, version, self.patient_options(), self.options())

    def patient_options(self) -> Options:
        """Return the same with limits to how long deltalake tries by itself."""
        return Options({**_PATIENCE, **self.options()}) if self.folder is None else Options()

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the rows of a version, the newest by default.

        Raises
        ------
        OSError
            When the table cannot be opened now.
        """
        import polars as pl

        return pl.scan_delta(self.open(version))

    def exists(self) -> bool:
        """Whether there is a Delta table."""
        with storage_errors():
            return any(name.endswith((".json", ".parquet")) for name in self.names(LOG))

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
        """Write a small file whole or not at all, over what is there."""
        if self.folder is None:
            files, root = self._file_system()
            with files.open_output_stream(f"{root}/{name}") as file:
                file.write(body)
            return
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            draft.write_bytes(body)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

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

    def last_log_checkpoint(self) -> int:
        """Return the version of the newest checkpoint of the log, 0 when there is none."""
        found = self.read(f"{LOG}/_last_checkpoint")
        return int(json.loads(found)["version"]) if found else 0

    def make_durable(self, versions: range) -> None:
        """Make log entries survive a power cut; an object store does that before it answers."""
        if self.folder is None:
            return
        for version in versions:
            with suppress(FileNotFoundError):  # cleaned up already: a checkpoint of the log holds it
                _fsync(self.folder / LOG / f"{version:020d}.json")
        _sync_folder(self.folder / LOG)

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
    if _is_refusal(said):
        return TableError(
            f"{uri}: access denied ({said})",
            hint="the credentials need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there",
        )
    return TableError(f"{uri} cannot be used: {said}", hint="check the place and its permissions")


def _is_refusal(said: str) -> bool:
    return bool(re.search(r"AccessDenied|ACCESS_DENIED|\b403\b|InvalidAccessKeyId|SignatureDoesNotMatch", said))


def _is_dropping(name: str) -> bool:
    """Whether a file is what file managers, version control, notebooks and file systems leave in empty folders."""
    return name.lower() in _DROPPINGS or name.startswith(("._", ".nfs", ".Trash"))


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
