"""Whose turn it is to write a table: every order in which calls can come, freeze, die and return."""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase as Part
from hypothesis import given, settings
from hypothesis import strategies as st

import kinesis_nb as kn
from kinesis_nb.syncing import committer, lease, ownership
from kinesis_nb.syncing.committer import Phase
from kinesis_nb.syncing.lease import _OWNER as OWNER
from tests.support.calls import Stage, interleave

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kinesis_nb.core.shards import Shard
    from tests.support.calls import Call

HAND_OVER_SECONDS = 2.0
FOUND = (Part.explicit, Part.generate)  # a smaller example takes minutes, and the steps are few


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def halves(stage: Stage) -> list[Call]:
    """Return two parts of one run, each with one shard of a stream of two."""
    return [part(stage, number) for number in range(2)]


def part(stage: Stage, number: int, run: str = "run-1") -> Call:
    def wanted(shard: Shard) -> bool:
        return int(shard.shard_id[-1]) == number

    return stage.call(run, wanted)


def parts(stage: Stage) -> list[Call]:
    """Return two parts of one run that write."""
    both = halves(stage)
    stage.until(lambda: all(part.is_owning for part in both))
    return both


# --- calls that come at the same time


@pytest.mark.parametrize("order", sorted(set(itertools.permutations([0, 0, 0, 1, 1, 1]))))
def test_two_calls_at_once(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Of two calls that start at the same time the one that claimed last goes on, whatever the order of their steps."""
    stage = Stage(tmp_path)
    stage.put()
    calls = [stage.call(), stage.call()]
    interleave(calls, order)
    newest = max(calls, key=lambda call: call.table.turn)
    assert stage.settle() is newest
    stage.assert_all_once()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_calls_at_once_within_their_commits(count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Exactly one of two or three calls goes on, also when they meet right before or after one of them commits."""

    @settings(max_examples=40, deadline=None, phases=FOUND)
    @given(st.lists(st.integers(0, count), max_size=24))
    def go(choices: list[int]) -> None:
        stage = Stage(tmp_path_factory.mktemp("at-once"))
        stage.put()
        calls = [stage.call() for _ in range(count)]
        interleave(calls, choices)
        stage.settle()
        assert all(isinstance(call.error, kn.Fenced) for call in calls if not call.is_owning)
        stage.assert_all_once()

    go()


def test_three_calls_the_newest_dies(stage: Stage) -> None:
    """When the newest of three calls dies before it took the table, the second newest gets it, not the writer."""
    oldest = stage.writer()
    second, newest = stage.call(), stage.call()
    second.step()
    second.is_frozen = True
    stage.until(lambda: oldest.phase is Phase.YIELDING)
    newest.table.claim()
    newest.die()
    stage.sleep(0.5)  # so the writer is the first to see that claim
    second.is_frozen = False
    stage.settle()
    assert second.is_owning
    assert isinstance(oldest.error, kn.Fenced)
    stage.assert_all_once()


# --- hand-over


def test_hand_over_by_a_writer_that_lives(stage: Stage) -> None:
    """A living writer commits what it has read and gives the table away within 2 s; it says who took it."""
    old = stage.writer(interval=60.0)
    stage.put()
    old.read()
    new = stage.call()
    assert stage.until(lambda: new.is_owning) <= HAND_OVER_SECONDS
    assert stage.numbers() == [0, 1, 2]
    stage.settle()
    assert isinstance(old.error, kn.Fenced)
    assert str(os.getpid()) in str(old.error)
    stage.assert_all_once()


def test_what_is_read_while_the_table_is_handed_over_is_the_successors(stage: Stage) -> None:
    """Rows that the old writer reads after it released the table are committed by the new one, once."""
    old = stage.writer()
    new = stage.call()
    new.step()
    stage.until(lambda: old.phase is Phase.YIELDING)
    stage.put()
    old.read()
    stage.settle()
    assert new.is_owning
    stage.assert_all_once()


def test_hand_over_by_a_writer_that_is_frozen(stage: Stage) -> None:
    """A frozen writer is waited for as long as its lease; when it thaws it is Fenced, and has written nothing."""
    old = stage.writer()
    old.is_frozen = True
    stage.put()
    old.read()
    new = stage.call()
    took = stage.until(lambda: new.is_owning)
    assert HAND_OVER_SECONDS < took <= ownership.LEASE_SECONDS + committer.POLL_SECONDS
    old.is_frozen = False
    before = old.intake.snapshot().committed
    stage.settle()
    assert isinstance(old.error, kn.Fenced)
    assert old.intake.snapshot().committed == before
    stage.assert_all_once()


def test_a_writer_whose_process_is_gone(stage: Stage) -> None:
    """A writer of this machine that is known to be dead is not waited for at all."""
    old = stage.writer()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = lease.Holder(old.table.turn, lease._host(), process.pid, lease._started(process.pid))
    assert not holder.is_gone()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its parent has not noticed
    stage.storage.write(OWNER, json.dumps({name: getattr(holder, name) for name in holder.__slots__}).encode())
    old.die()
    new = stage.call()
    new.step()
    assert new.is_owning
    process.communicate()
    assert holder.is_gone()


NOTES: dict[str, Callable[[int], object]] = {
    "stale": lambda turn: {"turn": turn - 1, "host": lease._host(), "pid": 1, "started": "0"},
    "newer": lambda turn: {"turn": turn + 1, "host": lease._host(), "pid": 1, "started": "0"},
    "of another machine": lambda turn: {"turn": turn, "host": "elsewhere/1", "pid": 1, "started": "0"},
    "of another boot": lambda turn: {"turn": turn, "host": platform.node() + "/1", "pid": 1, "started": "0"},
    "of no known start": lambda turn: {"turn": turn, "host": lease._host(), "pid": 1, "started": ""},
    "of an earlier version": lambda _turn: {"owner": "x", "host": "h", "pid": 1, "started": ""},
    "torn": lambda _turn: '{"turn": 1, "ho',
    "of nothing": lambda _turn: None,
    "not text": lambda _turn: "\x00\udcff",
}


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("writer", ["alive", "dead"])
def test_a_note_decides_nothing(stage: Stage, note: str, writer: str) -> None:
    """Whatever the notes beside the table say, a living writer hands over and a silent one is waited for 3 s."""
    old = stage.writer()
    stage.put()
    stage.sleep(2.0)
    body = NOTES[note](old.table.turn)
    text = body if isinstance(body, str) else json.dumps(body)
    for name in (OWNER, "_kinesis_nb/request.json"):
        stage.storage.write(name, text.encode(errors="surrogateescape"))
    old.is_over = writer == "dead"
    new = stage.call()
    took = stage.until(lambda: new.is_owning)
    assert took >= ownership.LEASE_SECONDS if writer == "dead" else took <= HAND_OVER_SECONDS
    assert took <= ownership.LEASE_SECONDS + committer.POLL_SECONDS
    stage.settle()
    stage.assert_all_once()


def test_a_note_that_cannot_be_written(stage: Stage) -> None:
    """Where nobody can leave a note the table is handed over all the same, and a dead writer waited for."""
    stage.call().step()
    notes = stage.storage.folder / "_kinesis_nb"  # type: ignore[operator]
    for file in notes.iterdir():
        file.unlink()
    notes.rmdir()
    notes.write_text("a file where the folder should be")
    stage.put()
    new = stage.call()
    assert stage.until(lambda: new.is_owning) <= HAND_OVER_SECONDS
    new.die()
    last = stage.call()
    assert stage.until(lambda: last.is_owning) <= ownership.LEASE_SECONDS + committer.POLL_SECONDS
    stage.settle()
    stage.assert_all_once()


def test_a_claim_whose_entry_of_the_log_is_gone(stage: Stage) -> None:
    """A claim that maintenance moved into a checkpoint of the log before the writer looked is seen seconds later."""
    old = stage.writer()
    stage.sleep(3.0)  # from now on it has nothing to commit
    stage.call().table.claim()
    stage.calls.pop()
    new = stage.call()
    new.step()
    stage.storage.open().create_checkpoint()
    assert stage.storage.folder is not None
    for entry in sorted(stage.storage.folder.glob("_delta_log/*.json"))[:-1]:
        entry.unlink()
    new.is_frozen = True  # or the lease would end
    took = stage.until(lambda: old.phase is Phase.YIELDING)
    assert took <= ownership.REFRESH_SECONDS + HAND_OVER_SECONDS
    new.is_frozen = False
    assert stage.settle() is new
    stage.assert_all_once()


def test_a_listing_that_is_older_than_the_table(stage: Stage) -> None:
    """Shards that the table knows, and that a stale listing lacks, are not lost: a newer listing is needed."""
    call = stage.writer()
    stale = stage.kinesis.list_shards("orders")
    stage.model.call(
        "UpdateShardCount", {"StreamName": "orders", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}
    )
    now = stage.kinesis.list_shards("orders")
    call.table.acquire([shard.shard_id for shard in now])
    with pytest.raises(kn.ServiceError) as told:
        call.ownership._ancestry.gone(stale)
    assert told.value.retryable
    assert call.ownership._ancestry.gone(now) == []


def test_hand_overs_to_and_fro(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of two machines that take the table from each other again and again each go on until the next one comes."""
    latest = stage.writer()
    for turn in range(6):
        monkeypatch.setattr(lease, "_host", lambda host=f"machine-{turn % 2}": host)
        latest = stage.call()
        assert stage.until(lambda call=latest: call.is_owning) <= HAND_OVER_SECONDS  # type: ignore[misc]
        stage.put()
        stage.sleep(20.0)
        assert stage.owners() == [latest]
    stage.assert_all_once()


def test_after_a_stop_nobody_waits(stage: Stage) -> None:
    """A writer that was stopped has released the table: the next call begins at its first step."""
    stage.writer().end()
    new = stage.call()
    new.step()
    assert new.is_owning
    stage.assert_all_once()


# --- calls that die


@pytest.mark.parametrize("leaves", ["dies", "is stopped"])
def test_a_claimant_that_never_takes_the_table(stage: Stage, leaves: str) -> None:
    """The writer takes the table back after 10 s, and commits all that it read meanwhile, once."""
    old = stage.writer()
    claimant = stage.call()
    claimant.step()
    assert claimant.phase is Phase.WAITING
    claimant.die() if leaves == "dies" else claimant.end()
    stage.until(lambda: old.phase is Phase.YIELDING)
    stage.put()
    took = stage.until(lambda: old.is_owning)
    assert ownership.YIELD_SECONDS - 1.0 <= took <= ownership.YIELD_SECONDS + 1.0
    stage.assert_all_once()
    new = stage.call()
    assert stage.until(lambda: new.is_owning) <= HAND_OVER_SECONDS
    stage.settle()
    stage.assert_all_once()


def test_a_frozen_claimant(stage: Stage) -> None:
    """A claimant that freezes for so long that the writer resumed is Fenced when it thaws, and takes nothing."""
    old = stage.writer()
    claimant = stage.call()
    claimant.step()
    claimant.is_frozen = True
    stage.sleep(ownership.YIELD_SECONDS + 2.0)
    assert old.is_owning
    claimant.is_frozen = False
    assert stage.settle() is old
    assert isinstance(claimant.error, kn.Fenced)
    stage.assert_all_once()


def test_a_claimant_that_thaws_late_but_in_time(stage: Stage) -> None:
    """A claimant that freezes for less than the 10 s still gets the table that waits for it."""
    old = stage.writer()
    claimant = stage.call()
    claimant.step()
    claimant.is_frozen = True
    stage.sleep(ownership.YIELD_SECONDS - 2.0)
    assert old.phase is Phase.YIELDING
    claimant.is_frozen = False
    assert stage.settle() is claimant
    stage.assert_all_once()


@pytest.mark.slow
@given(order=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("scfdt"), st.floats(0.0, 12.0)), max_size=8))
@settings(max_examples=30, deadline=None, phases=FOUND)
def test_any_history(tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, str, float]]) -> None:
    """Calls come, stop, freeze, thaw and die at any time: after that one call writes, and every row is there once."""
    stage = Stage(tmp_path_factory.mktemp("history"))
    for number, what, seconds in order:
        stage.put(1)
        call = stage.calls[number] if number < len(stage.calls) else None
        if what == "c":
            stage.call()
        elif call is not None and not call.is_over:
            if what == "s" and not call.is_frozen:
                call.end()
            elif what == "d":
                call.die()
            elif what in "ft":
                call.is_frozen = what == "f"
        stage.sleep(seconds)
    for call in stage.calls:
        call.is_frozen = False
    stage.call()
    stage.settle()
    stage.assert_all_once()


# --- runs of several writers


def test_parts_do_not_fence_each_other(tmp_path: Path) -> None:
    """Two parts of one run share one claim, whichever comes first, and both write on."""
    stage = Stage(tmp_path, shards=2)
    first, second = parts(stage)
    stage.sleep(30.0)
    assert first.is_owning
    assert second.is_owning
    assert first.table.turn == second.table.turn == 1


@pytest.mark.slow
@settings(max_examples=30, deadline=None, phases=FOUND)
@given(st.lists(st.integers(0, 2), max_size=16))
def test_parts_that_come_at_once(tmp_path_factory: pytest.TempPathFactory, choices: list[int]) -> None:
    """Parts of one run that begin at the same time both write, also when they meet within a commit."""
    stage = Stage(tmp_path_factory.mktemp("parts"), shards=2)
    both = halves(stage)
    interleave(both, choices)
    stage.until(lambda: len(stage.owners()) == 2)
    stage.sleep(20.0)
    assert stage.owners() == both


def test_a_run_takes_the_table_of_a_single_call(tmp_path: Path) -> None:
    """The first part waits until the notebook has committed what it read; the second one does not wait again."""
    stage = Stage(tmp_path, shards=2)
    old = stage.writer(interval=60.0)
    stage.put()
    old.read()
    both = halves(stage)
    assert stage.until(lambda: all(part.is_owning for part in both)) <= HAND_OVER_SECONDS
    stage.until(lambda: old.is_over)
    assert isinstance(old.error, kn.Fenced)
    stage.assert_all_once()


def test_a_single_call_fences_a_whole_run(tmp_path: Path) -> None:
    """A newer single call takes the table from all parts at once, and each of them ends as Fenced."""
    stage = Stage(tmp_path, shards=2)
    both = parts(stage)
    new = stage.call()
    assert stage.until(lambda: new.is_owning) <= HAND_OVER_SECONDS
    stage.until(lambda: all(part.is_over for part in both))
    assert all(isinstance(part.error, kn.Fenced) for part in both)
    stage.assert_all_once()


def test_a_superseded_run_does_not_return(tmp_path: Path) -> None:
    """A part of a run that lost the table, and is started again by its agent, is Fenced at once and takes nothing."""
    stage = Stage(tmp_path, shards=2)
    parts(stage)
    new = stage.call()
    stage.until(lambda: new.is_owning)
    again = part(stage, 0)
    again.step()
    assert isinstance(again.error, kn.Fenced)
    assert stage.settle() is new
    stage.assert_all_once()


def test_a_part_that_is_started_again(tmp_path: Path) -> None:
    """A part of the run that has the table goes on at once where the one before it died; the other one writes on."""
    stage = Stage(tmp_path, shards=2)
    first, second = parts(stage)
    first.die()
    again = part(stage, 0)
    again.step()
    assert again.is_owning
    stage.sleep(20.0)
    assert second.is_owning
    stage.assert_all_once()


@pytest.mark.parametrize("frozen", [0.0, 3.0], ids=["together", "one late"])
def test_a_run_resumes_together(tmp_path: Path, frozen: float) -> None:
    """When a claimant dies all parts of the run resume: none of them fences another one."""
    stage = Stage(tmp_path, shards=2)
    both = parts(stage)
    stage.call().table.claim()
    stage.calls.pop().die()  # right after its claim
    stage.sleep(1.0)
    both[1].is_frozen = True
    stage.sleep(frozen)
    both[1].is_frozen = False
    stage.put()
    stage.sleep(2 * ownership.YIELD_SECONDS)
    assert stage.owners() == both
    stage.assert_all_once()


def test_another_run_takes_over(tmp_path: Path) -> None:
    """The parts of a newer run end those of an older one, whichever part comes first."""
    stage = Stage(tmp_path, shards=2)
    old = parts(stage)
    new = [part(stage, number, "run-2") for number in (1, 0)]
    stage.until(lambda: all(part.is_owning for part in new))
    stage.until(lambda: all(part.is_over for part in old))
    assert all(isinstance(part.error, kn.Fenced) for part in old)
    stage.sleep(20.0)
    assert all(part.is_owning for part in new)
    stage.assert_all_once()
