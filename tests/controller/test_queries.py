"""The users' own queries: shared, bounded, and none in the way of another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from stoker.controller import queries as module
from stoker.controller.queries import AT_ONCE, SLOW_AT_ONCE, Queries
from stoker.core import outside
from stoker.core.readings import Fresh, Missing
from stoker.core.signals import Failed, Sample, Samples
from tests.factories import NOW

ONE = Samples((Sample({}, 1.0, NOW),))


class Prometheus:
    """Answers at once, but for queries that wait for their gate."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.names: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.answers: dict[str, Samples | Failed] = {}
        self.in_flight = self.most = 0

    async def query_all(self, queries):
        ((name, text),) = queries.items()
        self.asked.append(text)
        self.names.add(name)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        if text in self.gates:
            await self.gates[text].wait()
        self.in_flight -= 1
        return {name: self.answers.get(text, ONE)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Queries that are patient for no time at all, on an event loop whose clock a test sets."""
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.01)
    prometheus = Prometheus()
    return SimpleNamespace(prometheus=prometheus, queries=Queries(prometheus, lambda: NOW))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def took(world: SimpleNamespace, text: str, seconds: float) -> None:
    """As if the query had taken so long the last time, and were due."""
    known = world.queries._known[text]
    known.took, known.due = seconds, 0.0


class TestReadings:
    async def test_a_prompt_answer_counts_in_the_same_round(self, world):
        await world.queries.round(["a", "b"])
        assert world.queries.readings == {"a": Fresh(1.0, NOW), "b": Fresh(1.0, NOW)}

    async def test_all_are_called_the_same_in_metrics(self, world):
        await world.queries.round(["a", "b"])
        assert world.prometheus.names == {"signal"}

    async def test_what_was_not_answered_yet_is_missing(self, world):
        world.prometheus.gates["a"] = asyncio.Event()
        await world.queries.round(["a"])
        assert world.queries.readings == {"a": outside.NOT_ASKED}
        world.prometheus.gates["a"].set()
        await settle()
        assert world.queries.readings == {"a": Fresh(1.0, NOW)}

    async def test_a_failure_is_missing_with_its_reason(self, world):
        world.prometheus.answers["a"] = Failed("parse error")
        await world.queries.round(["a"])
        assert world.queries.readings == {"a": Missing("Prometheus: parse error")}

    async def test_what_nobody_wants_is_forgotten(self, world):
        await world.queries.round(["a", "b"])
        await world.queries.round(["b"])
        assert world.queries.readings.keys() == {"b"}


class TestBounds:
    async def test_a_query_under_way_is_not_asked_again(self, world):
        world.prometheus.gates["a"] = asyncio.Event()
        await world.queries.round(["a"])
        await world.queries.round(["a"])
        assert world.prometheus.asked == ["a"]
        world.prometheus.gates["a"].set()
        await settle()

    async def test_so_many_at_once_and_no_more(self, world):
        wanted = [f"q{n}" for n in range(3 * AT_ONCE)]
        world.prometheus.gates = {text: asyncio.Event() for text in wanted}
        await world.queries.round(wanted)
        assert world.prometheus.most == AT_ONCE
        for gate in world.prometheus.gates.values():
            gate.set()
        await settle()
        assert all(isinstance(r, Fresh) for r in world.queries.readings.values())

    async def test_slow_ones_leave_room_for_the_prompt(self, world):
        slow = [f"slow{n}" for n in range(2 * AT_ONCE)]
        await world.queries.round(slow)
        for text in slow:
            took(world, text, 5.0)
            world.prometheus.gates[text] = asyncio.Event()
        world.prometheus.asked.clear()
        await world.queries.round([*slow, "prompt"])
        assert world.queries.readings["prompt"] == Fresh(1.0, NOW)
        assert len(world.prometheus.asked) == SLOW_AT_ONCE + 1
        for gate in world.prometheus.gates.values():
            gate.set()
        await settle()

    async def test_a_round_does_not_wait_for_what_was_slow(self, world, monkeypatch):
        await world.queries.round(["slow"])
        took(world, "slow", 5.0)
        world.prometheus.gates["slow"] = asyncio.Event()
        monkeypatch.setattr(module, "GRACE_SECONDS", 3600.0)
        await asyncio.wait_for(world.queries.round(["slow"]), 60)
        world.prometheus.gates["slow"].set()
        await settle()

    async def test_one_that_took_long_is_asked_the_more_rarely(self, world):
        await world.queries.round(["a"])
        known = world.queries._known["a"]
        known.due = asyncio.get_running_loop().time() + 3600
        await world.queries.round(["a"])
        assert world.prometheus.asked == ["a"]

    @pytest.mark.parametrize(("seconds", "pause"), [(0.0, 0.0), (0.5, 4.5), (5.0, 45.0), (30.0, 45.0)])
    async def test_a_tenth_of_the_time_is_the_share_of_one(self, world, monkeypatch, seconds, pause):
        times = iter([0.0, 100.0, 100.0 + seconds, 100.0 + seconds])
        loop = asyncio.get_running_loop()
        query = module._Query("a")
        monkeypatch.setattr(
            module.asyncio, "get_running_loop", lambda: SimpleNamespace(time=lambda: next(times))
        )
        next(times)
        await world.queries._ask(query)
        monkeypatch.undo()
        assert query.took == pytest.approx(seconds)
        assert query.due - (100.0 + seconds) == pytest.approx(pause)
        assert loop.is_running()
