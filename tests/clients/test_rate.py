"""The rate limit: a burst at once, then one request after another, nobody forgotten."""

import asyncio

import pytest

from stoker.clients.rate import Pace, TokenBucket


def test_a_bucket_gives_its_burst_then_refills_at_its_rate():
    bucket = TokenBucket(rate=0.5, burst=2, now=100.0)
    assert [bucket.try_take(100.0) for _ in range(3)] == [True, True, False]
    assert not bucket.try_take(101.9)
    assert bucket.try_take(102.0)
    assert not bucket.try_take(102.0)


def test_a_bucket_never_holds_more_than_its_burst():
    bucket = TokenBucket(rate=10, burst=2, now=0.0)
    assert [bucket.try_take(1000.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_steps_back_gains_nothing_and_goes_on_from_there():
    bucket = TokenBucket(rate=1, burst=1, now=100.0)
    assert bucket.try_take(100.0)
    assert not bucket.try_take(0.0)
    assert not bucket.try_take(0.5)
    assert bucket.try_take(1.0)


def test_a_reservation_says_how_long_to_wait():
    bucket = TokenBucket(rate=2, burst=1, now=0.0)
    assert [bucket.reserve(0.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert bucket.reserve(10.0) == 0.0


def test_credit_without_a_rate_is_refused():
    bucket = TokenBucket(rate=0, burst=1, now=0.0)
    assert bucket.reserve(0.0) == 0.0
    with pytest.raises(ValueError, match="try_take"):
        bucket.reserve(0.0)


def test_a_bucket_that_refilled_is_as_good_as_new():
    bucket = TokenBucket(rate=1, burst=2, now=0.0)
    assert bucket.full(0.0)
    bucket.try_take(0.0)
    assert not bucket.full(0.5)
    assert bucket.full(1.0)


async def test_a_pace_delays_what_goes_beyond_the_burst(monkeypatch):
    delays: list[float] = []

    async def sleep(seconds):
        delays.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace = Pace(rate=4, burst=2, clock=lambda: 5.0)
    for _ in range(4):
        await pace.wait()
    assert delays == [0.25, 0.5]


async def test_a_pace_of_zero_is_no_limit(monkeypatch):
    monkeypatch.setattr(asyncio, "sleep", None)
    pace = Pace(rate=0, burst=0, clock=lambda: 5.0)
    for _ in range(1000):
        await pace.wait()
