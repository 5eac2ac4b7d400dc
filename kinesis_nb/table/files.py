"""The files of a place: a folder of this machine, or a prefix in S3. The one module that knows the difference."""

from __future__ import annotations

import io
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from kinesis_nb.table.datafiles import PARQUET_OPTIONS, conform, new_name, write_rows
from kinesis_nb.table.durable import drafted, fsync, sync_folder
from kinesis_nb.table.options import StoreOptions, endpoint_of, s3_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pyarrow import Schema, Table

_READS = 8  # at once
MERGED_ROWS = 50_000  # in memory at a time, and in a row group
_IN_FLIGHT = 8  # files of rows, the newest, that may still be on their way into the log


class TableFiles:
    """Reads, writes and lists the files of one table.

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

    def options(self) -> StoreOptions:
        """Return what the object store needs now; empty for a folder."""
        if self.folder is not None:
            return StoreOptions()
        given = StoreOptions(self._give_options())
        if (endpoint_of(given) or "").startswith("http://"):
            given.setdefault("allow_http", "true")
        return given

    def options_with_timeouts(self) -> StoreOptions:
        """Return the same with limits to how long deltalake retries by itself."""
        return self.options().with_timeouts() if self.folder is None else StoreOptions()

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

    def has(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        if self.folder is not None:
            return (self.folder / name).exists()
        files, root = self._file_system()
        return bool(files.get_file_info(f"{root}/{name}").type != pafs.FileType.NotFound)

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

    def write(self, name: str, body: bytes) -> None:
        """Write a small durable file whole or not at all, over what is there."""
        if self.folder is None:
            files, root = self._file_system()
            with files.open_output_stream(f"{root}/{name}") as file:
                file.write(body)
            return
        path = self.folder / name
        with drafted(path, body) as draft:
            draft.replace(path)

    # --- rows

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
            write_rows(rows, body)
            self.write(name, body.getvalue())
            return name, body.tell()
        path = self.folder / name
        try:
            with path.open("wb") as file:
                write_rows(rows, file)
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
                with pq.ParquetWriter(target, schema, compression="zstd", **PARQUET_OPTIONS) as writer:
                    for source in names:
                        with files.open_input_file(f"{root}/{source}") as file:
                            for batch in pq.ParquetFile(file).iter_batches(MERGED_ROWS):
                                writer.write_table(conform(pa.Table.from_batches([batch]), schema))
                                rows += batch.num_rows
                size = target.tell()
            if self.folder is not None:
                fsync(self.folder / name)
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

        Folders below are ignored: no sync and no OPTIMIZE of its table writes there.
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
        """Return what is wrong with a data file: it is missing, or not a Parquet file; else an empty string."""
        files, root = self._place()
        try:
            with files.open_input_file(f"{root}/{name}") as file:
                pq.ParquetFile(file)
        except FileNotFoundError:
            return f"the data file {name} is missing"
        except pa.ArrowInvalid:
            return f"the data file {name} is not a complete Parquet file"
        return ""

    # --- Arrow

    def _place(self) -> tuple[pafs.FileSystem, str]:
        """Return how Arrow reaches the files, and the folder of the table there."""
        return self._file_system() if self.folder is None else (pafs.LocalFileSystem(), str(self.folder))

    def _file_system(self) -> tuple[pafs.FileSystem, str]:
        """Return the bucket as Arrow reaches it, and the prefix of the table there.

        Not as deltalake does: its files are read and written with the interpreter locked.
        """
        options = self.options()
        if self._files is None or self._files[0] != options:
            self._files = options, s3_of(options)
        return self._files[1], self.uri.removeprefix("s3://")
