"""How often a shard is asked: the service's quotas, shared with others."""

from __future__ import annotations

import pytest

from kinesis_nb.core.limits import FULL_RESPONSE_SECONDS, GET_BYTES, GET_RECORDS, SHARD_READ_BYTES
from kinesis_nb.reading.pace import (
    BEHIND_SECONDS,
    IN_FLIGHT_BYTES,
    LEAST_PAGE,
    LEAST_PAGE_BYTES,
    ReadPace,
    SharedQuota,
)

SMALL = 1_000  # bytes
MUCH = 2**40  # bytes


def test_behind_five_calls_a_second_caught_up_as_often_as_said() -> None:
    """A shard with more to give is asked five times a second, one without as often as its owner says."""
    pace = ReadPace()
    assert pace.note_response(100.0, 100.0, 10, SMALL, idle=None) == pytest.approx(100.0 + BEHIND_SECONDS)
    assert pace.note_response(200.0, 200.0, 10, SMALL, idle=3.0) == pytest.approx(203.0)


def test_bytes_are_paid_for() -> None:
    """Over a long time no more than 2 MiB/s are asked for, with one second saved up at the start."""
    pace, now, size = ReadPace(), 100.0, 3 * 2**20
    for _ in range(20):
        now = pace.note_response(now, now, GET_RECORDS, size, idle=None)
    assert now - 100.0 == pytest.approx(20 * size / SHARD_READ_BYTES - 1.0)


def test_credit_is_one_second_however_long_the_silence() -> None:
    """A shard that was silent for an hour may not be drained faster than the quota after it."""
    pace = ReadPace()
    pace.note_response(100.0, 100.0, 1, SMALL, idle=1.0)
    first = pace.note_response(3_700.0, 3_700.0, GET_RECORDS, 8 * 2**20, idle=None)
    assert first - 3_700.0 == pytest.approx(3.0)


def test_full_answer_closes_the_shard_for_five_seconds() -> None:
    """After a response that 10 MiB cut off the next call comes no earlier than the service allows."""
    assert ReadPace().note_response(100.0, 100.0, 5_000, GET_BYTES, idle=None) >= 100.0 + FULL_RESPONSE_SECONDS
    assert ReadPace().note_response(100.0, 100.0, GET_RECORDS, GET_BYTES, idle=None) < 100.0 + FULL_RESPONSE_SECONDS


def test_bytes_count_from_their_arrival_but_not_from_a_slow_one() -> None:
    """The service counts while it responds: from the response on is safe, but a slow line must not cost quota."""
    size = 8 * 2**20
    assert ReadPace().note_response(100.0, 100.5, GET_RECORDS, size, idle=None) == pytest.approx(103.5)
    assert ReadPace().note_response(100.0, 110.0, GET_RECORDS, size, idle=None) == pytest.approx(104.0)


def test_throttled_again_and_again_asks_for_less_then_for_more() -> None:
    """Repeated throttles halve the page down to a hundred records; responses double it up to the most."""
    pace = ReadPace()
    pace.throttled(100.0, failures=0)
    assert pace.limit(MUCH) == GET_RECORDS
    pace.throttled(101.0, failures=1)
    assert pace.limit(MUCH) == GET_RECORDS // 2
    for failures in range(2, 20):
        pace.throttled(101.0, failures)
    assert pace.limit(MUCH) == LEAST_PAGE
    for _ in range(10):
        pace.note_response(200.0, 200.0, 10, SMALL, idle=None)
    assert pace.limit(MUCH) == GET_RECORDS


def test_throttled_has_nothing_saved_up() -> None:
    """Who was throttled shares the shard with somebody, so the whole response is waited for."""
    pace = ReadPace()
    pace.throttled(100.0, failures=0)
    assert pace.note_response(100.0, 100.0, GET_RECORDS, 4 * 2**20, idle=None) == pytest.approx(102.0)


def test_many_shards_share_memory_and_calls() -> None:
    """However many shards there are, their responses fit a budget, and idle ones are asked less often."""
    assert SharedQuota().page_bytes >= GET_BYTES
    assert SharedQuota(lambda: 64).page_bytes * 64 == IN_FLIGHT_BYTES
    assert SharedQuota(lambda: 1_000).page_bytes == LEAST_PAGE_BYTES
    assert SharedQuota(lambda: 10).idle_seconds == 1.0
    assert SharedQuota(lambda: 1_000).idle_seconds == 2.0


def test_page_follows_the_size_of_the_records() -> None:
    """So many records are asked for as make a response of the size that is wanted, by those of the last response."""
    pace = ReadPace()
    assert pace.limit(2**20) == 1_024
    pace.note_response(100.0, 100.0, 10, 10 * 2**16, idle=None)
    assert pace.limit(2**20) == 16
    pace.note_response(100.0, 100.0, 10, 100, idle=None)
    assert pace.limit(2**20) == GET_RECORDS
