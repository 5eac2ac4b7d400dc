"""A place for one table: whether it may be there, how it is opened, and its log on disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from kinesis_nb.errors import TableError
from kinesis_nb.table import address, deltalog, fencing
from kinesis_nb.table.address import Handle
from kinesis_nb.table.datafiles import check_files
from kinesis_nb.table.durable import drafted, fsync, sync_folder
from kinesis_nb.table.failures import is_refusal, storage_errors
from kinesis_nb.table.files import TableFiles
from kinesis_nb.table.options import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    import polars as pl

LOG = deltalog.LOG
LEASE_FOLDER = "_kinesis_nb"  # of the lease and other notes; Delta leaves folders alone whose name begins so

_FENCED = f"{LEASE_FOLDER}/conditional-put"
_NOT_IMPLEMENTED = re.compile("501 Not Implemented|NotImplemented")
_DRAFT_SECONDS = 3600  # age of a draft whose process is gone
_DROPPINGS = {
    *(".ds_store", ".localized", "icon\r", "desktop.ini", "thumbs.db", "ehthumbs.db", ".directory", "@eadir"),
    *(".gitkeep", ".keep", ".gitignore", ".gitattributes", ".placeholder", ".ipynb_checkpoints", "lost+found"),
}


class Storage(TableFiles):
    """A place for one table, with its log."""

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
            return Handle(self.uri, version, self.options_with_timeouts())

    @contextmanager
    def _log_errors(self, version: int | None) -> Generator[None]:
        """Name the file of the log that is damaged, also where Delta would not notice."""
        with storage_errors():
            if self.folder is not None:  # an object store keeps an object completely or not at all
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
            check_files(self.folder, table)
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

    # --- what may be there before

    def refuse_foreign(self) -> None:
        """Accept a table, an empty place, or nothing at all; raise TableError for anything else.

        A new table within another one is refused too: a cleanup of the outer table would remove its files.
        """
        with storage_errors():
            found = self.names()
            if LOG in found and self.exists():
                return
            outer = self._outer_table()
        if outer is not None:
            raise TableError(f"{self.uri} is within {outer}, which is a Delta table", hint="give a place outside of it")
        if any(name not in {LOG, LEASE_FOLDER} and not _is_dropping(name) for name in found):
            msg = f"{self.uri} is not a Delta table, and not empty"
            raise TableError(msg, hint="give a new place, or the place of a table that this sync created before")

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
                if is_refusal(str(error)):
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
        note = json.dumps({"endpoint": endpoint_of(self.options()), "if_none_match": True}).encode()
        with storage_errors():
            if self.read(_FENCED) == note:
                return
            if not self._refuses_to_overwrite():
                msg = f"{self.uri}: the object store has no conditional writes, so nothing keeps two writers apart"
                hint = "give a place in S3, or in a store that refuses a PUT with If-None-Match: * of what is there"
                raise TableError(msg, hint=hint)
            self.write(_FENCED, note)

    def _refuses_to_overwrite(self) -> bool:
        place = f"{LEASE_FOLDER}/probe-{uuid.uuid4()}"
        first, entry = f"{place}/{fencing.FIRST}", fencing.first_entry()
        try:
            fencing.collide(f"{self.uri}/{place}", self.options_with_timeouts(), lambda: self.write(first, entry))
            return self.read(first) == entry
        except (DeltaError, OSError) as error:
            if _NOT_IMPLEMENTED.search(str(error)):
                return False
            raise
        finally:
            files, root = self._file_system()
            with suppress(OSError):
                files.delete_dir(f"{root}/{place}")

    # --- the log

    def last_log_checkpoint(self) -> int:
        """Return the version of the newest checkpoint of the log, 0 when there is none."""
        hint, _ = deltalog.hinted(self)
        return hint if hint >= 0 else max(deltalog.live(self.sizes(LOG)).checkpoint, 0)

    def make_durable(self, versions: range) -> None:
        """Make log entries survive a power cut; an object store does that before it responds."""
        if self.folder is None:
            return
        for version in versions:  # in order: no entry is on disk before one that it relies on
            with suppress(FileNotFoundError):  # cleaned up already: a checkpoint of the log holds it
                fsync(self.folder / deltalog.entry(version))
        sync_folder(self.folder / LOG)

    def make_all_durable(self, version: int) -> None:
        """Make survive a power cut what a reader of a version needs of the log, whoever wrote it."""
        if self.folder is None:
            return
        found = deltalog.live(self.sizes(LOG), version)
        for name in (*(f"{LOG}/{part}" for part in found.parts), deltalog.LAST_CHECKPOINT):
            with suppress(FileNotFoundError):
                fsync(self.folder / name)
        self.make_durable(range(found.checkpoint + 1, version + 1))
        for folder in (self.folder, *self.folder.parents):  # some of them may have been made with the table
            with suppress(OSError):
                sync_folder(folder)

    def settle(self) -> list[int]:
        """Cancel commits that a power cut tore before they were reported; return their versions."""
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
            with drafted(
                path, body.replace(f"{LEASE_FOLDER}/{draft.name}/".encode(), b"")
            ) as entry:  # its address, in words
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
                    fsync(draft / LOG / name)
                    with suppress(FileExistsError):  # another one was faster
                        os.link(draft / LOG / name, self.folder / LOG / name)
                hint = (draft / deltalog.LAST_CHECKPOINT).read_bytes()
        self.make_all_durable(version)
        if hint and version > deltalog.hinted(self)[0]:
            self.write(deltalog.LAST_CHECKPOINT, hint)

    @contextmanager
    def _draft(self) -> Generator[Path]:
        """Give a folder with an empty log, on the same disk; it is gone afterwards, and so are forgotten ones."""
        notes = Path(self.uri, LEASE_FOLDER)
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

    def __repr__(self) -> str:
        return f"<Storage {self.uri}>"


def _is_dropping(name: str) -> bool:
    """Whether a file is what file managers, version control, notebooks and file systems leave in empty folders."""
    return name.lower() in _DROPPINGS or name.startswith(("._", ".nfs", ".Trash"))
