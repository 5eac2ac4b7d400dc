"""The journal of a streaming export: what it remembers over crashes, power cuts, damage, forks and full disks."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import subprocess
import sys
import threading
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.emulator import ManualClock
from kinesis_nb.exporting import journal as journal_module
from kinesis_nb.exporting.journal import Journal
from kinesis_nb.exporting.journal_file import REWRITE_BYTES
from kinesis_nb.exporting.lane import Entry, Outcome
from kinesis_nb.exporting.progress import Progress
from tests.simulation.life.disk import Disk
from tests.support.virtual import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

ALL = pl.lit(value=True)
BEGINNING = StartingPosition.trim_horizon()
HEADER: dict[str, str | None] = {"table": "arn", "table_id": "1", "created_at": "a", "output": "b"}


def rows_of(*places: tuple[str, int]) -> pl.DataFrame:
    """Return rows of a table."""
    return pl.DataFrame(list(places), {"shard_id": pl.String, "shard_offset": pl.Int64}, orient="row")


def entry(row: int) -> Entry:
    return Entry("a", b"", 10, (row,))


class Book:
    """A journal and what a run of the process does with it."""

    opened: ClassVar[list[Journal]] = []

    def __init__(self, path: Path, ends: dict[str, int] | None = None, **header: str | None) -> None:
        self.clock = VirtualClock(ManualClock())
        self.path = path
        self._next = 0
        self.journal = Journal.open(path, HEADER | header, BEGINNING, self.clock, lambda: ends or {})
        self.opened.append(self.journal)

    def take(self, *places: tuple[str, int], wanted: pl.Expr = ALL) -> list[int]:
        """Take rows; return the numbers of those that are to be sent."""
        rows, first = self.journal.take(rows_of(*places), wanted, self._number)
        return list(range(first, first + rows.height))

    def _number(self, rows: int) -> int:
        first, self._next = self._next, self._next + rows
        return first

    def send(self, rows: Iterable[int]) -> None:
        """Have rows acknowledged, one request each."""
        for row in rows:
            self.journal.on_request([entry(row)])
            self.journal.on_outcome(Outcome(written=[entry(row)]))

    def die(self) -> None:
        """End as a process does that is killed: nothing is written any more, and the lock is gone."""
        self.journal._file.close()

    def again(self, **header: str | None) -> Book:
        """Open it once more."""
        return Book(self.path, None, **header)

    def wanted(self, *places: tuple[str, int]) -> list[int]:
        """Return the offsets that are to be sent of these rows."""
        rows, _ = self.journal.take(rows_of(*places), ALL, self._number)
        return rows["shard_offset"].to_list()


@pytest.fixture(autouse=True)
def _no_journal_stays_open() -> Generator[None]:
    yield
    while Book.opened:
        Book.opened.pop()._file.close()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "j")


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that holds what differs for each start of the machine."""
    file = tmp_path / "boot_id"
    file.write_text("first")
    monkeypatch.setattr(journal_module, "_BOOT", file)
    return file


# --- what happened to the process


def test_remembers_over_a_crash(book: Book) -> None:
    """What was acknowledged stays done; what was under way when the process died is sent again and counted."""
    places = [("s", 5), ("s", 6), ("s", 7), ("t", 0)]
    assert book.take(*places) == [0, 1, 2, 3]
    book.journal.on_request([entry(row) for row in range(3)])
    book.journal.on_outcome(Outcome(written=[entry(1)], refused=[entry(2)]))
    with book.path.open("ab") as file:
        file.write(b'{"done":{"s":[7')  # the line that it died in
    book.die()
    again = book.again()
    assert (again.journal.possible_duplicates, again.journal.rows) == (1, 1)
    assert again.wanted(*places) == [5, 7, 0]


def test_a_clean_end_leaves_nothing_in_doubt(book: Book, boots: Path) -> None:
    """Stopped, and opened after the machine was restarted: nothing may be twice."""
    assert book.take(("s", 0), ("s", 1)) == [0, 1]
    book.send([0])
    book.journal.close()
    book.journal.close()  # twice is fine
    boots.write_text("second")
    again = book.again()
    assert again.journal.possible_duplicates == 0
    assert again.wanted(("s", 0), ("s", 1)) == [1]


def test_a_row_is_given_once(book: Book) -> None:
    """Rows that are queued, sent or done are not given again, in whatever files they come."""
    assert book.take(("s", 0), ("s", 1), ("t", 7)) == [0, 1, 2]
    assert book.journal.high() == {"s": 2, "t": 8}
    book.send([1])
    assert book.take(("s", 2)) == [3]
    assert book.journal.progress.low == {"s": 0, "t": 7}
    book.send([0, 2, 3])
    assert book.journal.progress.low == {"s": 3, "t": 8}


def test_rows_that_are_not_wanted_are_passed(book: Book) -> None:
    """Rows outside a time range count as done, now and after a restart."""
    assert book.take(*(("s", offset) for offset in range(6)), wanted=pl.col("shard_offset") >= 4) == [0, 1]
    book.send([0, 1])
    assert book.journal.progress.low == {"s": 6}
    book.journal.close()
    assert book.again().journal.high()["s"] in {0, 6}


def test_rows_that_were_given_up_stay_so(book: Book) -> None:
    """A row that was given up is not sent by a later run, and is still named there, once."""
    places = [("s", 0), ("s", 1), ("s", 2)]
    book.take(*places)
    book.journal.gave_up([0], "no key")
    book.journal.on_request([entry(1)])
    book.journal.on_outcome(Outcome(failed=[(entry(1), "too odd")]))
    book.die()
    again = book.again()
    assert again.wanted(*places) == [2]
    again.die()
    third = book.again().journal
    assert third.failed_rows() == [("s", 0, "no key"), ("s", 1, "too odd")]
    assert (third.failed, third.possible_duplicates) == (2, 0)


def test_a_new_journal_forgets_who_was_given_up(book: Book) -> None:
    """Who deletes the journal starts over."""
    book.take(("s", 0))
    book.journal.gave_up([0], "no key")
    book.journal.close()
    book.again().journal.close()
    book.path.unlink()
    again = book.again()
    assert (again.journal.failed, again.journal.failed_rows()) == (0, [])
    assert again.wanted(("s", 0)) == [0]


# --- size


def test_stays_small(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced by its meaning when it has grown, and nothing is forgotten by that."""
    monkeypatch.setattr("kinesis_nb.exporting.journal_file.REWRITE_BYTES", 2000)
    count = 500
    places = [("s", row) for row in range(count)]
    book.take(*places)
    book.send(range(1, count))
    book.journal.on_request([entry(0)])
    book.journal.on_outcome(Outcome(unknown=[entry(0)]))
    book.die()
    assert book.path.stat().st_size < 6000
    again = book.again()
    assert (again.journal.rows, again.journal.possible_duplicates) == (count - 1, 1)
    assert again.wanted(*places) == [0]


@pytest.mark.slow
def test_holes_and_rows_given_up_do_not_pile_up(book: Book) -> None:
    """Where every second row was erased from the table, and every tenth is given up, the state stays small."""
    sizes = []
    for first in range(0, 200_000, 10_000):
        rows = book.take(*(("s", offset) for offset in range(first, first + 10_000, 2)))
        book.journal.gave_up(rows[::10], "x" * 50)
        sent = [row for row in rows if row % 10]
        for start in range(0, len(sent), 500):
            entries = [entry(row) for row in sent[start : start + 500]]
            book.journal.on_request(entries)
            book.journal.on_outcome(Outcome(written=entries))
        book.journal._rewrite()
        sizes.append(book.path.stat().st_size)
        assert book.journal.progress.low == {"s": first + 9_999}
    assert max(sizes) < 600
    assert not any(book.journal.progress._done.values())
    assert book.path.with_name("j.failed").stat().st_size < 10_000 * 120
    assert book.journal.failed == 10_000
    assert len(book.journal.failed_rows()) == 10_000


def test_a_state_beyond_the_limit_is_not_written_with_every_line(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the state is, the file is rewritten when it has doubled and not before."""
    monkeypatch.setattr("kinesis_nb.exporting.journal_file.REWRITE_BYTES", 100)
    count = 2_000
    book.take(*(("s", offset) for offset in range(count)))
    book.send(range(1, count))  # the first is open, so all of these are in the state
    rewritten: list[int] = []
    write = book.journal._file.rewrite

    def counted(state: Any) -> None:
        rewritten.append(1)
        write(state)

    monkeypatch.setattr(book.journal._file, "rewrite", counted)
    book.take(*(("s", offset) for offset in range(count, count + 100)))
    book.send(range(count, count + 100))
    assert len(rewritten) <= 2


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=40), st.randoms(use_true_random=False)
)
def test_progress_is_that_of_a_plain_set(steps: list[tuple[int, bool]], rng: Any) -> None:
    """After any holes and any order of acknowledgements the state is what a set of all rows would say."""
    progress, open_rows, end = Progress(), set[int](), 0
    for width, is_row in steps:
        first, end = end, end + width
        offsets = [first] if is_row else []
        progress.take("s", offsets, end)
        open_rows |= set(offsets)
        done = rng.sample(sorted(open_rows), k=rng.randint(0, len(open_rows)))
        open_rows -= set(done)
        progress.done("s", done)
        assert progress.high == {"s": end}
        assert progress.low == {"s": min(open_rows, default=end)}
        assert not open_rows & set(progress.above().get("s", []))


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(1, 6), max_size=6), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_what_progress_says_is_enough_for_the_next_run(runs: list[list[int]], rng: Any) -> None:
    """However often it is written down and read again, a row that is done is not given, and each other one is."""
    done = set[int]()
    low: dict[str, int] = {}
    above: dict[str, list[int]] = {}
    for widths in runs:
        progress = Progress()
        progress.resume(low, {shard_id: set(offsets) for shard_id, offsets in above.items()})
        for width in widths:
            first = progress.high.get("s", 0)
            given = [offset for offset in range(first, first + width) if offset not in progress.resumed("s")]
            assert given == [offset for offset in range(first, first + width) if offset not in done]
            progress.take("s", given, first + width)
            waiting = sorted(set(range(first + width)) - done)
            settled = rng.sample(waiting, k=rng.randint(0, len(waiting)))
            progress.done("s", settled)
            done |= set(settled)
            if len(settled) == len(waiting):
                assert not progress._done["s"]  # nothing piles up
        low, above = dict(progress.low), progress.above()


def test_a_row_done_out_of_turn_is_remembered_by_the_run_after_the_next(book: Book) -> None:
    """One run sends the last of three rows, the next takes all and rewrites its state: it stays sent."""
    places = [("s", 0), ("s", 1), ("s", 2)]
    book.send(book.take(*places)[2:])
    book.die()
    again = book.again()
    assert len(again.take(*places)) == 2
    again.journal._rewrite()
    again.die()
    assert again.again().wanted(*places) == [0, 1]


# --- damage


def played(path: Path) -> tuple[list[tuple[str, int]], set[tuple[str, int]]]:
    """Write a journal; return all places, and those that were sent, which a reader may take for duplicates."""
    book = Book(path)
    places = [("s", offset) for offset in range(12)] + [("t", offset) for offset in range(3, 9)]
    rows = book.take(*places[:12])
    book.send(rows[2:6])
    book.journal.gave_up([rows[7]], "no key")
    rows += book.take(*places[12:])
    book.journal.on_request([entry(row) for row in (0, 8, 12)])
    book.journal.on_outcome(Outcome(written=[entry(8)], unknown=[entry(0)], refused=[entry(12)]))
    book.send(rows[13:16])
    book.journal.on_request([entry(9)])
    book.die()
    return places, {places[row] for row in (0, 2, 3, 4, 5, 8, 9, 13, 14, 15)}


def check_after_damage(path: Path, places: Sequence[tuple[str, int]], sent: set[tuple[str, int]]) -> None:
    """Check that nothing is left out, and that no more comes twice than is counted."""
    again = Book(path, {"s": 12, "t": 9})
    rows, _ = again.journal.take(rows_of(*places), ALL, again._number)
    wanted = set(rows.select("shard_id", "shard_offset").iter_rows())
    assert wanted >= set(places) - sent - {("s", 7)}
    assert len(wanted & sent) <= again.journal.possible_duplicates
    again.journal.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was damaged")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_loses_nothing_and_is_counted(
    tmp_path_factory: pytest.TempPathFactory, boots: Path, data: st.DataObject
) -> None:
    """Zeroed, torn out, overwritten or cut short at any place, it is read; what may come twice is counted."""
    path = tmp_path_factory.mktemp("journal") / "j"
    boots.write_text("first")
    places, sent = played(path)
    body = path.read_bytes()
    start = data.draw(st.integers(0, len(body) - 1))
    length = data.draw(st.sampled_from([1, 7, 64, 512, len(body)]))
    change = data.draw(st.sampled_from(["zeros", "removed", "other"]))
    if change == "removed" and start + length >= len(body):  # a power cut takes no line that was durable
        start = max(start, body.index(b"\n", body.rindex(b'{"taken"')) + 1)
    piece = body[start : start + length]
    new = {"zeros": bytes(len(piece)), "removed": b"", "other": bytes(byte ^ 1 for byte in piece)}[change]
    path.write_bytes(body[:start] + new + body[start + length :])
    boots.write_text("second")
    check_after_damage(path, places, sent)


@pytest.mark.filterwarnings("ignore:.*was damaged")
def test_a_file_that_lost_its_end_is_not_taken_for_a_kill(tmp_path: Path) -> None:
    """Closed, and later cut off behind any of its lines or in them: what may come twice is counted."""
    for number, share in ((number, share) for number in range(6) for share in (0, 0.5)):
        book = Book(tmp_path / f"{number}-{share}")
        places = [("s", offset) for offset in range(4)]
        book.send(book.take(*places))
        book.journal.close()
        lines = book.path.read_bytes().splitlines(keepends=True)
        half = lines[number + 1][: int(len(lines[number + 1]) * share)]
        book.path.write_bytes(b"".join(lines[: number + 1]) + half)
        check_after_damage(book.path, places, set(places))


@pytest.mark.filterwarnings("ignore:.*was damaged")
def test_who_dies_while_it_repairs_a_file_has_counted_what_may_come_twice(tmp_path: Path) -> None:
    """Its copy is replaced first: what was found out then is known, whatever the file itself looks like."""
    for number, share in ((number, share) for number in range(6) for share in (0, 0.5)):
        book = Book(tmp_path / f"{number}-{share}", {"s": 4})
        places = [("s", offset) for offset in range(4)]
        book.send(book.take(*places))
        book.journal.close()
        lines = book.path.read_bytes().splitlines(keepends=True)
        book.path.write_bytes(b"".join(lines[: number + 1]) + lines[number + 1][: int(len(lines[number + 1]) * share)])
        damaged = book.path.read_bytes()
        Book(book.path, {"s": 4}).die()
        book.path.write_bytes(damaged)  # as it was before it was replaced
        check_after_damage(book.path, places, set(places))


@pytest.mark.filterwarnings("ignore:.*was damaged")
@pytest.mark.parametrize("left", [b"", b"\0" * 4096, b"\0" * 100 + b"\n{}\n"])
def test_a_file_that_is_lost_is_restored_from_its_copy_and_the_table(tmp_path: Path, left: bytes) -> None:
    """Empty or full of zeros, it knows what it is for, and how many rows may come twice from the table."""
    places, sent = played(tmp_path / "j")
    (tmp_path / "j").write_bytes(left)
    check_after_damage(tmp_path / "j", places, sent)


def test_what_is_restored_causes_a_warning(tmp_path: Path) -> None:
    """Who runs the line hears that the journal was damaged, and how many rows may come twice."""
    played(tmp_path / "j")
    lines = (tmp_path / "j").read_bytes().split(b"\n")
    lines[3] = lines[3][:-1]
    (tmp_path / "j").write_bytes(b"\n".join(lines))
    with pytest.warns(UserWarning, match=r"was damaged: up to \d+ rows that were sent already are sent again"):
        Book(tmp_path / "j")


def test_nothing_is_guessed_where_nothing_is_left(book: Book) -> None:
    """With both copies of the state gone there is an error with two ways out, and no row is sent."""
    book.take(("s", 0))
    book.journal.close()
    for path in (book.path, book.path.with_name("j.copy")):
        path.write_bytes(b"\0" * 100)
    with pytest.raises(kn.ConfigError, match="what was sent is not known"):
        book.again()


def test_a_journal_of_an_earlier_release_goes_on(tmp_path: Path) -> None:
    """One without checksums, of a table and an output whose identity it did not know."""
    (tmp_path / "j").write_text(
        '{"header":{"table":"arn","created_at":"a","output":"b"},"from":null,"low":{"s":5},"possible_duplicates":2,'
        '"rows":7,"done":{"s":[7]},"failed":[["s",3,"no key"]],"try":{}}\n'
        '{"begin":{"t":100}}\n{"try":{"s":[5],"t":[100]}}\n{"done":{"t":[100]},"rows":1}\n'
    )
    book = Book(tmp_path / "j")
    assert (book.journal.rows, book.journal.possible_duplicates) == (8, 3)
    assert book.journal.failed_rows() == [("s", 3, "no key")]
    assert book.wanted(("s", 5), ("s", 6), ("s", 7), ("s", 8), ("t", 100), ("t", 101)) == [5, 6, 8, 101]
    book.journal.close()
    with pytest.raises(kn.ConfigError, match="another table of the same stream"):
        book.again(table_id="2")


def test_the_identity_of_another_table_or_output_is_refused(book: Book) -> None:
    """Each part of what a journal is for; what is not known now or was not known then stays out of it."""
    book.journal.close()
    for name, match in {
        "table": "of a table of the stream arn",
        "table_id": "another table of the same stream",
        "created_at": "created at a, and the present one at other",
        "output": "its output stream is b",
    }.items():
        with pytest.raises(kn.ConfigError, match=match):
            book.again(**{name: "other"})
    book.again(table_id=None, output_created_at="then").journal.close()
    book.again().journal.close()
    with pytest.raises(kn.ConfigError, match="its output stream was created at then, and the present one at now"):
        book.again(output_created_at="now")


# --- power


def test_after_a_power_cut_all_that_was_taken_is_in_doubt(book: Book, boots: Path) -> None:
    """The lines of the last second are gone: rows that were sent since are sent again, and counted."""
    first = Book(book.path.with_name("k"))
    rows = first.take(*(("s", offset) for offset in range(100, 110)))
    durable = first.path.read_bytes()
    first.send(rows[:4])
    first.die()
    first.path.write_bytes(durable)
    boots.write_text("second")
    again = first.again()
    assert again.journal.possible_duplicates == 10
    assert again.wanted(*(("s", offset) for offset in range(100, 110))) == list(range(100, 110))


def test_what_a_clean_end_left_unsent_is_never_in_doubt(book: Book, boots: Path) -> None:
    """Nor when the next run dies before it has taken anything, and the machine is restarted."""
    places = [("s", offset) for offset in range(10)]
    book.send(book.take(*places)[:4])
    book.journal.close()
    boots.write_text("second")
    book.again().die()
    boots.write_text("third")
    again = book.again()
    assert again.journal.possible_duplicates == 0
    assert again.wanted(*places) == [*range(4, 10)]
    again.die()  # these were taken, and what became of them may be lost
    boots.write_text("fourth")
    assert book.again().journal.possible_duplicates == 6


def test_what_was_taken_is_durable_before_it_is_sent(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what became of it within a second, also while rows keep coming."""
    synced: list[int] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    rows = book.take(("s", 0), ("s", 1), ("s", 2))
    assert synced == [book.path.stat().st_size]
    book.send(rows[:1])
    assert len(synced) == 1
    book.clock.manual.advance(1.0)
    book.send(rows[1:2])
    assert len(synced) == 2
    book.send(rows[2:])
    assert len(synced) == 2


@pytest.mark.parametrize("seed", range(8))
def test_a_new_journal_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """With the folders that were made for it: once a row may have been sent, it does not start from the beginning."""
    (tmp_path / "root").mkdir()
    disk = Disk(tmp_path / "root", tmp_path / "shadow", Random(seed))
    monkeypatch.setattr(os, "fsync", disk.fsync)
    book = Book(tmp_path / "root" / "a" / "b" / "j")
    book.take(("s", 0))
    book.die()
    disk.cut()
    assert book.path.read_bytes()


@pytest.mark.filterwarnings("ignore:.*was damaged")
@pytest.mark.parametrize("seed", range(8))
def test_a_power_cut_after_the_end_hides_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A journal that was closed, and then cut short by somebody, is known as damaged by its copy."""
    (tmp_path / "root").mkdir()
    disk = Disk(tmp_path / "root", tmp_path / "shadow", Random(seed))
    monkeypatch.setattr(os, "fsync", disk.fsync)
    book = Book(tmp_path / "root" / "j")
    book.send(book.take(("s", 0), ("s", 1)))
    book.journal.close()
    state, *_ = book.path.read_bytes().splitlines(keepends=True)
    book.path.write_bytes(state)
    disk.sync(book.path)
    disk.cut()
    assert book.again().journal.possible_duplicates == 2


# --- disks and locks


@contextmanager
def full_disk(more: int) -> Generator[None]:
    """Let no file grow beyond this number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_room(journal: Journal) -> Generator[None]:
    """Let the disk of a journal be full, as the system says it."""
    path = journal._file.path
    drafts = [path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.copy.new")]
    for draft in drafts:
        draft.symlink_to("/dev/full")
    assert journal._file._file is not None
    journal._file._file.close()
    journal._file._file = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115 - no file of a folder
    yield
    for draft in drafts:
        draft.unlink()


WRITES: dict[str, Callable[[Journal], object]] = {
    "what was taken": lambda journal: journal.take(rows_of(("s", 2)), ALL, lambda _rows: 2),
    "a request": lambda journal: journal.on_request([entry(1)]),
    "an outcome": lambda journal: journal.on_outcome(Outcome(written=[entry(0)])),
    "a row that was given up": lambda journal: journal.gave_up([1], "too odd"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_full_disk_is_waited_for(
    book: Book, write: Callable[[Journal], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call returns before its line is written, with those of other threads; readers are not held up."""
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.01)
    book.take(("s", 0), ("s", 1))
    book.journal.on_request([entry(0)])
    threads = [threading.Thread(target=write, args=(book.journal,)), threading.Thread(target=book.journal.sync)]
    with no_room(book.journal):
        threads[0].start()
        threads[0].join(0.2)
        assert threads[0].is_alive()
        assert "No space left on device" in book.journal.retry_reason
        assert book.journal.failed_rows() is not None  # readers are not held up
        threads[1].start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert book.journal.retry_reason == ""
    known = book.journal.progress.low, book.journal.rows, book.journal.failed, len(book.journal._tried)
    book.die()
    again = book.again().journal
    assert (again.progress.low, again.rows, again.failed, again.possible_duplicates) == known


def test_a_stop_waits_for_no_room(book: Book) -> None:
    """What it could not write down is written when it is closed; a request that did not go out counts as none."""
    book.take(("s", 0), ("s", 1))
    book.journal.on_request([entry(0)])
    book.journal.stop_waiting()
    with no_room(book.journal):
        with pytest.raises(kn.TableError, match="No space left on device"):
            book.journal.on_outcome(Outcome(written=[entry(0)]))
        with pytest.raises(kn.TableError, match="No space left on device"):
            book.journal.on_request([entry(1)])
    book.journal.close()
    again = book.again()
    assert (again.journal.rows, again.journal.possible_duplicates) == (1, 0)
    assert again.wanted(("s", 0), ("s", 1)) == [1]


def test_rows_that_were_given_up_are_known_after_a_full_disk(book: Book) -> None:
    """Half a line that found room does not spoil the one that comes when there is more."""
    rows = book.take(*(("s", offset) for offset in range(9)))
    book.journal.gave_up(rows[:1], "too odd")
    book.journal._rewrite()
    book.journal.gave_up(rows[1:], "too odd")
    with full_disk(book.path.with_name("j.failed").stat().st_size + 5), pytest.raises(kn.TableError):
        book.journal._rewrite()
    book.journal._rewrite()
    book.die()
    assert len(book.again().journal.failed_rows()) == 9


def test_a_full_disk_leaves_no_half_line(book: Book) -> None:
    """A line that found no room is refused in our words and is not in the file; when there is room it continues."""
    rows = book.take(("s", 0), ("s", 1))
    size = book.path.stat().st_size
    with full_disk(size + 5), pytest.raises(kn.TableError, match="cannot be written") as caught:
        book.journal.on_request([entry(row) for row in rows])
    assert "make room" in caught.value.hint
    assert book.path.stat().st_size == size
    book.send(rows[:1])
    book.die()
    again = book.again()
    assert again.wanted(("s", 0), ("s", 1)) == [1]


def test_a_full_disk_leaves_the_state_before(book: Book) -> None:
    """A state that found room for its first half replaces none that is whole, neither in the file nor in its copy."""
    rows = book.take(*(("s", offset) for offset in range(200)))
    book.send(rows[1::2])
    with full_disk(300), pytest.raises(kn.TableError, match="cannot be written"):
        book.journal._rewrite()
    book.send(rows[:1])
    book.die()
    assert book.again().wanted(*(("s", offset) for offset in range(200))) == list(range(2, 200, 2))


def test_a_state_is_written_to_both_files_or_to_none(book: Book) -> None:
    """Lines are added behind the state before; a newer copy would say that they are not there."""
    rows = book.take(("s", 0), ("s", 1))
    copy = book.path.with_name("j.copy")
    before = copy.read_bytes()
    book.path.with_name("j.new").mkdir()
    with pytest.raises(kn.TableError, match="cannot be written"):
        book.journal._rewrite()
    assert copy.read_bytes() == before
    book.send(rows[:1])
    book.die()
    book.path.with_name("j.new").rmdir()
    assert book.again().wanted(("s", 0), ("s", 1)) == [1]


def test_a_line_is_added_to_both_files_or_to_none(book: Book) -> None:
    """A durable line that is missing in the copy alone would hide that the file lost its end."""
    before = book.path.read_bytes()
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - no file of a folder
        book.journal._file._copied, copied = full, book.journal._file._copied
        book.journal.stop_waiting()
        with pytest.raises(kn.TableError, match="cannot be written"):
            book.take(("s", 0))
        book.journal._file._copied = copied
    assert book.path.read_bytes() == before
    book.take(("s", 0))
    book.die()
    assert book.again().wanted(("s", 0)) == [0]


def test_names_that_differ_in_their_suffix_share_nothing(tmp_path: Path) -> None:
    """Two exports at once, "a.x" and "a.y"."""
    one, two = Book(tmp_path / "a.x"), Book(tmp_path / "a.y", table_id="2")
    one.send(one.take(("s", 0)))
    one.journal._rewrite()
    two.journal._rewrite()
    one.journal.close()
    two.journal.close()
    assert one.again().wanted(("s", 0), ("s", 1)) == [1]
    assert Book(tmp_path / "a.y", table_id="2").wanted(("s", 0)) == [0]


def test_one_at_a_time(book: Book) -> None:
    """A second one is refused until the first is closed."""
    with pytest.raises(kn.Fenced, match="another process runs this export"):
        book.again()
    book.journal.close()
    book.again().journal.close()


HOLDER = r"""
import ctypes, os, sys
from pathlib import Path
from kinesis_nb.core.position import StartingPosition
from kinesis_nb.emulator import ManualClock
from kinesis_nb.exporting.journal import Journal
from tests.support.virtual import VirtualClock
journal = Journal.open(Path(sys.argv[1]), {"table": "arn", "table_id": "1", "created_at": "a", "output": "b"},
                       StartingPosition.trim_horizon(), VirtualClock(ManualClock()), dict)
read, write = os.pipe()
fork = ctypes.CDLL(None).fork if sys.argv[2] == "closes" else os.fork  # of a library, which runs no hooks of Python
if fork() == 0:
    os.close(write)
    os.write(1, b"child\n")
    sys.stdin.read()  # lives until the test says so
    os._exit(0)
if sys.argv[2] == "closes":
    journal.close()
os.write(1, b"parent\n")
if sys.argv[2] == "closes":
    sys.stdin.read()
os._exit(0)  # or dies with the journal open
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["closes", "dies"])
def test_a_child_does_not_keep_the_lock(tmp_path: Path, end: str) -> None:
    """A process that forked, and closed the journal or died, lets others have it while its child lives."""
    path = tmp_path / "j"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert {holder.stdout.readline().strip(), holder.stdout.readline().strip()} == {"child", "parent"}
        if end == "dies":
            assert holder.wait(10) == 0
        Book(path).journal.close()
    finally:
        holder.stdin.close()
        select.select([holder.stdout], [], [], 10)  # until the child has gone too
        holder.wait(10)
        holder.stdout.close()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two processes cannot be kept apart the error says so, and not that another one runs."""

    def flock(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(kn.ConfigError, match="has no locks"):
        Book(tmp_path / "j")
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("place", ["file/j", "folder"])
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, place: str) -> None:
    """A journal below a file, or in the place of a folder."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(kn.ConfigError, match=r"cannot be (written|read)"):
        Book(tmp_path / place)


def test_the_limits_are_what_the_docs_say() -> None:
    """4 MiB of lines."""
    assert REWRITE_BYTES == 4 * 2**20
