"""Calls that a cell waits for: tried again for half a minute, and not in silence."""

from __future__ import annotations

import warnings

import pytest

from kinesis_nb.core.retry import RetryingLookups
from kinesis_nb.emulator import ManualClock
from kinesis_nb.errors import KinesisError, NotListening, ServiceError
from tests.support.virtual import VirtualClock

AWAY = ServiceError("ListShards: no connection", retryable=True)


class Answers:
    """Fails with the errors that it was given, one per call, the last one for ever."""

    def __init__(self, *errors: KinesisError) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        raise self.errors[min(self.calls, len(self.errors)) - 1]


def test_after_three_seconds_it_says_until_when_it_tries() -> None:
    """Once, with what failed; the error itself comes half a minute after the call."""
    clock = VirtualClock(ManualClock())
    began = clock.monotonic()
    with (
        pytest.warns(UserWarning, match="trying again until") as told,
        pytest.raises(ServiceError, match="no connection"),
    ):
        RetryingLookups(None, clock).retry_until_done(Answers(AWAY))  # type: ignore[arg-type]
    assert len(told) == 1
    assert str(told[0].message).startswith("ListShards: no connection; trying again until ")
    assert 20 < clock.monotonic() - began <= 30


def test_what_is_over_soon_is_not_worth_a_word() -> None:
    """A failure or two at the beginning."""
    answers = Answers(AWAY, AWAY, ServiceError("ListShards: no such thing"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ServiceError, match="no such thing"):
            RetryingLookups(None, VirtualClock(ManualClock())).retry_until_done(answers)  # type: ignore[arg-type]
    assert answers.calls == 3


def test_nobody_waits_for_a_server_that_somebody_must_start() -> None:
    """What is refused on this machine fails at the first try."""
    answers = Answers(NotListening("nothing listens", retryable=True))
    with pytest.raises(NotListening):
        RetryingLookups(None, VirtualClock(ManualClock())).retry_until_done(answers)  # type: ignore[arg-type]
    assert answers.calls == 1


class Impatient(VirtualClock):
    """Ctrl-C comes during the first wait."""

    def sleep(self, seconds: float) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_of_the_wait_is_not_chained() -> None:
    """The traceback is of the interrupt alone, not of every failure before it."""
    with pytest.raises(KeyboardInterrupt) as interrupt:
        RetryingLookups(None, Impatient(ManualClock())).retry_until_done(Answers(AWAY))  # type: ignore[arg-type]
    assert interrupt.value.__context__ is None
    assert interrupt.value.__cause__ is None
