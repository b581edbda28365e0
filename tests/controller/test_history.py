"""The history reader: read once, in days, then only what is new; a failure is said and tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from stoker.clients.answers import Course, Matrix, Span
from stoker.controller.history import REFRESH_SECONDS, RETRY_SECONDS, Historian
from stoker.core.history import CHUNK_STEPS, KEPT_STEPS, STEP_SECONDS
from stoker.core.readings import Key
from stoker.core.signals import Failed
from tests.factories import KEY, NAMESPACE, NOW, deployment

SCALED = deployment(scaling={"maxReplicas": 4})


@dataclass
class Store:
    deployments: dict


@dataclass
class Prometheus:
    """Answers each model's demand as a function of the step; notes what it was asked."""

    demand: dict[str, float] = field(default_factory=lambda: {KEY.name: 100.0})
    failure: Failed | None = None
    asked: list[Span] = field(default_factory=list)
    fails_at: int | None = None

    async def query_range_all(self, queries, span):
        (name,) = queries
        self.asked.append(span)
        if self.failure is not None or len(self.asked) == self.fails_at:
            return {name: self.failure or Failed("late")}
        courses = [
            Course({"namespace": NAMESPACE, "model": model}, dict.fromkeys(range(span.count), value))
            for model, value in self.demand.items()
        ]
        return {name: Matrix((*courses, Course({"namespace": NAMESPACE}, {0: 1.0})))}


class World:
    def __init__(self, *deployments) -> None:
        self.store = Store({d.key: d for d in deployments or (SCALED,)})
        self.prometheus = Prometheus()
        self.now = NOW
        self.historian = Historian(self.store, self.prometheus, lambda: self.now)


async def test_two_weeks_are_read_a_day_at_a_time():
    world = World()
    assert await world.historian.refresh() == REFRESH_SECONDS

    asked = world.prometheus.asked
    assert len(asked) == KEPT_STEPS / CHUNK_STEPS
    assert {span.count for span in asked} == {CHUNK_STEPS}
    assert asked[-1].end == NOW // STEP_SECONDS * STEP_SECONDS
    history = world.historian.histories[KEY]
    assert list(history.values) == [100.0] * KEPT_STEPS
    assert history.at(NOW - 86_400) == 100


async def test_afterwards_only_what_is_new():
    world = World()
    await world.historian.refresh()
    world.prometheus.asked.clear()
    world.prometheus.demand = {KEY.name: 7.0}
    world.now += REFRESH_SECONDS

    await world.historian.refresh()

    assert [span.count for span in world.prometheus.asked] == [6]
    assert list(world.historian.histories[KEY].values[-7:]) == [100.0] + [7.0] * 6
    assert len(world.historian.histories[KEY].values) == KEPT_STEPS


async def test_a_new_fleet_gets_its_past_too():
    world = World()
    await world.historian.refresh()
    other = deployment("other", scaling={"maxReplicas": 4})
    world.store.deployments[other.key] = other
    world.prometheus.demand["other"] = 5.0
    world.now += REFRESH_SECONDS

    await world.historian.refresh()

    assert list(world.historian.histories[other.key].values) == [5.0] * KEPT_STEPS


async def test_only_of_those_that_look_ahead():
    fixed, off = deployment("fixed"), deployment("off", scaling={"maxReplicas": 2, "forecast": "Disabled"})
    world = World(SCALED, fixed, off)
    world.prometheus.demand |= {"fixed": 1.0, "off": 1.0, "somebody else's": 1.0}

    await world.historian.refresh()

    assert set(world.historian.histories) == {KEY}


async def test_nobody_who_looks_ahead_is_no_query():
    world = World(deployment("fixed"))

    assert await world.historian.refresh() == RETRY_SECONDS
    assert world.prometheus.asked == []


@pytest.mark.parametrize("query", [1, 9])
async def test_a_failure_is_said_and_tried_again_from_the_start(query):
    world = World()
    world.prometheus.fails_at = query

    assert await world.historian.refresh() == RETRY_SECONDS
    assert world.historian.why == "Prometheus: late"
    assert world.historian.histories == {}

    world.prometheus.fails_at = None
    assert await world.historian.refresh() == REFRESH_SECONDS
    assert list(world.historian.histories[KEY].values) == [100.0] * KEPT_STEPS


async def test_a_failure_keeps_what_was_known():
    world = World()
    await world.historian.refresh()
    known = world.historian.histories
    world.prometheus.failure = Failed("down")
    world.now += REFRESH_SECONDS
    await world.historian.refresh()
    assert world.historian.histories is known

    world.prometheus.failure = None
    world.now += RETRY_SECONDS
    await world.historian.refresh()
    assert not any(math.isnan(v) for v in world.historian.histories[KEY].values)


async def test_a_fleet_without_a_past_is_said_to_have_none():
    world = World()
    world.prometheus.demand = {}
    await world.historian.refresh()

    assert world.historian.histories == {}
    assert world.historian.why == "Prometheus knows nothing of the days before"


@pytest.mark.parametrize("step", [-3 * 86_400, 40 * 86_400])
async def test_a_clock_that_steps_reads_everything_again(step):
    world = World()
    await world.historian.refresh()
    world.prometheus.asked.clear()
    world.now += step

    await world.historian.refresh()

    assert len(world.prometheus.asked) == KEPT_STEPS / CHUNK_STEPS
    assert list(world.historian.histories[KEY].values) == [100.0] * KEPT_STEPS


async def test_the_past_of_a_deleted_fleet_is_forgotten():
    world = World()
    await world.historian.refresh()
    world.store.deployments = {Key(NAMESPACE, "b"): deployment("b", scaling={"maxReplicas": 1})}
    world.now += REFRESH_SECONDS
    await world.historian.refresh()

    assert KEY not in world.historian.histories
    assert len(world.historian._steps) == 1
