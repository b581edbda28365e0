"""The work queue: one piece of work per key, never twice at once, back-off per key."""

from __future__ import annotations

import asyncio

import pytest

from stoker.controller.queue import FIRST_BACKOFF_SECONDS, JITTER, LAST_BACKOFF_SECONDS, Queue


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> Queue[str]:
    return Queue(clock)


def test_adds_of_one_key_are_one_piece_of_work(queue):
    queue.add("a")
    queue.add("a")

    assert queue.take() == ["a"]


def test_a_key_that_is_processed_is_not_taken_again_until_it_is_done(queue):
    queue.add("a")
    queue.take()
    queue.add("a")

    assert queue.take() == []
    queue.done("a")
    assert queue.take() == ["a"]


def test_a_delayed_key_comes_when_it_is_due(queue, clock):
    queue.add_after("a", 5)
    assert queue.take() == []
    clock.now = 5

    assert queue.take() == ["a"]


def test_a_later_delay_postpones_nothing(queue, clock):
    queue.add_after("a", 5)
    queue.add_after("a", 50)
    clock.now = 5

    assert queue.take() == ["a"]


def test_an_earlier_delay_comes_once(queue, clock):
    queue.add_after("a", 50)
    queue.add_after("a", 5)
    clock.now = 60

    assert queue.take() == ["a"]
    queue.done("a")
    assert queue.take() == []


def test_failures_come_back_later_each_time_up_to_a_limit(queue, clock):
    for n in range(20):
        queue.add("a")
        queue.take()
        queue.done("a", failed=True)
        pause = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**n)
        clock.now += pause * 0.99
        assert queue.take() == [], n
        clock.now += pause * (JITTER + 0.02)
        assert queue.take() == ["a"], n
        queue.done("a", failed=True)
        queue._failures["a"] -= 1
        queue.forget("a") if n == 19 else queue._due.clear()


def test_one_keys_failures_do_not_slow_another(queue):
    queue.add("a")
    queue.take()
    queue.done("a", failed=True)
    queue.add("b")

    assert queue.take() == ["b"]


def test_a_forgotten_key_does_not_come_back(queue, clock):
    queue.add_after("a", 5)
    queue.forget("a")
    clock.now = 9

    assert queue.take() == []


def test_the_age_of_what_waits_is_that_of_the_oldest(queue, clock):
    queue.add("a")
    clock.now = 3
    queue.add("b")

    assert queue.oldest() == 0
    queue.take()
    assert queue.oldest() is None


async def test_waiting_ends_when_work_arrives(queue):
    waiting = asyncio.create_task(queue.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add("a")

    await asyncio.wait_for(waiting, 5)


async def test_waiting_ends_when_a_processed_dirty_key_is_done(queue):
    queue.add("a")
    queue.take()
    queue.add("a")
    waiting = asyncio.create_task(queue.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("a")

    await asyncio.wait_for(waiting, 5)


def test_of_many_those_go_first_that_wait_longest(queue):
    for key in "abc":
        queue.add(key)
    queue.add("a")

    assert queue.take(2) == ["a", "b"]
    assert queue.take(2) == ["c"]


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("pause", [None, 60.0], ids=["nothing is due", "something is due later"])
async def test_a_cancellation_that_meets_new_work_is_not_lost(queue, turns, pause):
    """Else a SIGTERM that comes together with an event would never end the loop."""
    if pause is not None:
        queue.add_after("b", pause)

    async def forever() -> None:
        while True:
            await queue.wait()
            queue.take()

    waiting = asyncio.create_task(forever())
    await asyncio.sleep(0.001)
    queue.add("a")
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=1)

    assert waiting.done()


def test_what_became_dirty_while_it_was_processed_waits_since_then(queue, clock):
    queue.add("a")
    queue.take()
    clock.now = 1.0
    queue.add("a")
    clock.now = 2.0
    queue.add("b")

    assert (len(queue), queue.oldest()) == (2, 2.0)
    queue.done("a")
    assert (len(queue), queue.oldest()) == (2, 1.0)
    queue.forget("a")
    assert queue.take() == ["b"]


def test_a_key_can_be_begun_unless_others_see_to_it(queue):
    assert queue.begin("a")
    assert not queue.begin("a"), "it is being processed"
    queue.add("a")
    assert queue.take() == []
    queue.done("a")
    assert not queue.begin("a"), "it is dirty"
    assert queue.take() == ["a"]


def test_those_that_are_preferred_are_taken_first_and_the_others_keep_their_order(queue):
    for key in "abcd":
        queue.add(key)
    queue.prefer(["d", "b"])

    assert queue.take() == ["d", "b", "a", "c"]


def test_only_those_that_wait_are_preferred(queue, clock):
    queue.add("a")
    queue.take()
    queue.add("a")
    clock.now = 5.0
    queue.add("b")
    queue.prefer(["unknown", "a", "b"])

    assert queue.take() == ["b"]
    assert queue.oldest() is None
    queue.done("a")
    assert queue.take() == ["a"]


def test_who_is_preferred_has_waited_no_less(queue, clock):
    queue.add("a")
    clock.now = 5.0
    queue.prefer(["a"])

    assert queue.oldest() == 0.0
