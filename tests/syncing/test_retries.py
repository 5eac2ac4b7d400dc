"""How a writer uses its table while the storage is away: what is retried, what is reported, what ends it."""

from __future__ import annotations

import threading

import pytest

import kinesis_nb as kn
from kinesis_nb.emulator.clock import ManualClock
from kinesis_nb.errors import Closed, ServiceError
from kinesis_nb.syncing.retries import SILENT_SECONDS, TableRetries
from tests.support.calls import PacedSignals
from tests.support.virtual import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(ManualClock())


@pytest.fixture
def signals(clock: VirtualClock) -> PacedSignals:
    return PacedSignals(clock)


@pytest.fixture
def retries(clock: VirtualClock, signals: PacedSignals) -> TableRetries:
    return TableRetries(clock, signals)


def test_what_may_pass_is_retried_and_reported_meanwhile(retries: TableRetries) -> None:
    """Storage that is away twice is tried a third time; the reason is shown until then, and not after."""
    errors: list[Exception] = [OSError("EIO"), ServiceError("no credentials now", retryable=True)]
    reasons = []

    def action() -> int:
        reasons.append(retries.retry_reason)
        if errors:
            raise errors.pop()
        return 7

    assert retries.retry_until_done(action) == 7
    assert reasons == ["", "the table cannot be reached: no credentials now", "the table cannot be written: EIO"]
    assert retries.retry_reason == ""


def test_what_cannot_pass_is_raised_at_once(retries: TableRetries, signals: PacedSignals) -> None:
    """An error that no retry cures is not waited for."""

    def action() -> int:
        raise kn.TableError("the table of another stream")

    with pytest.raises(kn.TableError):
        retries.retry_until_done(action)
    with pytest.raises(kn.TableError):
        retries.try_once(lambda: bool(action()))
    assert signals.pauses == 0


def test_a_stop_ends_the_retries(retries: TableRetries, signals: PacedSignals) -> None:
    """Whoever stops a writer whose storage is away does not wait for the storage."""

    def action() -> None:
        signals.stop()
        raise OSError("EIO")

    with pytest.raises(Closed):
        retries.retry_until_done(action)


def test_a_check_that_fails_is_reported_and_counts_as_no(retries: TableRetries, signals: PacedSignals) -> None:
    """A check is not retried: the next one comes soon. Its reason is shown until one succeeds."""

    def fails() -> bool:
        raise OSError("EIO")

    assert not retries.try_once(fails)
    assert retries.retry_reason == "the table cannot be read: EIO"
    assert signals.pauses == 0
    assert retries.try_once(lambda: True)
    assert retries.retry_reason == ""


def test_a_table_that_does_not_respond_is_reported(retries: TableRetries, clock: VirtualClock) -> None:
    """Another thread sees that an action hangs, while it does."""

    def hangs() -> str:
        clock.sleep(SILENT_SECONDS)
        seen: list[str] = []
        other = threading.Thread(target=lambda: seen.append(retries.retry_reason))
        other.start()
        other.join()
        return seen[0]

    assert retries.retry_until_done(hangs) == "the table has not responded for 5 s"
    assert retries.retry_reason == ""
