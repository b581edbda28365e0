"""The invariants of scaling, at the level of a whole tick."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stoker.core import promql, signals
from stoker.core.learning import capacity_of
from stoker.core.observed import Memory, Snapshot
from stoker.core.plan import Plan
from stoker.core.promql import Freshness
from stoker.core.readings import Fresh, Metrics, Missing, PodMetrics, Signal, Stale
from stoker.core.reconcile import reconcile
from stoker.core.signals import Sample, Samples
from tests.factories import KEY, NOW, deployment, load, loading, pod, snapshot, vllm

SPEC = {"minReplicas": 1, "maxReplicas": 9, "windows": {"up": "10s", "down": "1m"}}
PER_REPLICA = capacity_of(deployment(scaling=SPEC).spec).concurrent_requests
"""Requests in flight per replica, before anything is learned."""
WEIRD = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e308])
ANSWERS = st.one_of(
    st.just(Missing("no series")),
    st.floats(0, 200).map(lambda v: Stale(v, NOW - 90)),
    st.floats(0, 200).map(lambda v: Fresh(v, NOW)),
)
WELL = st.fixed_dictionaries(dict.fromkeys(Signal, st.floats(0, 20).map(lambda v: Fresh(v, NOW))))
PODS = st.lists(WELL | st.fixed_dictionaries(dict.fromkeys(Signal, ANSWERS)), min_size=1, max_size=5)
"""Some answer everything: with answers here and there alone no total would ever be complete."""


class World:
    """A fleet that serves, under a scaling spec; ticks carry memory and status along."""

    def __init__(self, current: int, **scaling: Any) -> None:
        self.deployment = deployment(scaling={**SPEC, **scaling})
        status = self.deployment.status.model_copy(update={"desired_replicas": current})
        self.deployment = replace(self.deployment, status=status)
        self.pods = [pod(n, of=self.deployment) for n in range(current)]
        self.memory = Memory()
        self.now = NOW

    def snapshot(self, answers: list[PodMetrics]) -> Snapshot:
        found = {p.key: a for p, a in zip(self.pods, answers, strict=False)}
        metrics = Metrics(self.now, found)
        return replace(
            snapshot(self.deployment, pods=self.pods, now=self.now),
            metrics=metrics,
            memory={KEY: self.memory},
        )

    def tick(self, answers: list[PodMetrics], after: float = 5.0) -> Plan:
        self.now += after
        plan = reconcile(self.snapshot(answers))[KEY]
        self.memory = plan.memory
        if plan.status is not None:
            self.deployment = replace(self.deployment, status=plan.status)
        return plan

    @property
    def desired(self) -> int:
        desired = self.deployment.status.desired_replicas
        assert desired is not None
        return desired


@given(st.integers(1, 9), PODS)
def test_missing_and_stale_never_lower_the_count(current, answers):
    world = World(current)
    silent = {**answers[0], Signal.RUNNING: Missing("no series")}
    for _ in range(30):
        world.tick([PodMetrics(silent), *(PodMetrics(a) for a in answers[1:])])
        assert world.desired >= current


@given(st.integers(1, 9), st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_the_result_stays_within_the_bounds_and_says_what_limited_it(current, loads):
    world = World(current)
    for running in loads:
        plan = world.tick([load(float(running), at=world.now + 5)] * current)
        assert 1 <= world.desired <= 9
        if plan.status is not None and plan.status.scaling is not None and plan.status.scaling.last_decision:
            assert plan.status.scaling.last_decision.limited_by
            assert plan.status.scaling.last_decision.message


@given(st.integers(41, 360))
def test_the_same_demand_never_asks_twice_while_replicas_load(running):
    world = World(1)
    for _ in range(20):
        world.tick([load(float(running), at=world.now + 5)])
        for n in range(len(world.pods), world.desired):
            world.pods.append(loading(n, of=world.deployment, created_at=world.now))
    assert world.desired == min(9, math.ceil(running / PER_REPLICA))


@given(st.integers(1, 5), PODS, st.randoms(use_true_random=False))
def test_the_order_of_pods_does_not_matter(current, answers, random):
    world = World(current)
    seen = world.snapshot([PodMetrics(a) for a in answers])
    shuffled = list(seen.pods[KEY])
    random.shuffle(shuffled)

    assert reconcile(seen) == reconcile(replace(seen, pods={KEY: tuple(shuffled)}))


@given(st.integers(2, 9), st.sampled_from([-7200.0, -61.0, -1.0, 61.0, 7200.0]))
def test_a_clock_that_steps_changes_nothing(current, step):
    world = World(current)
    busy = load(37.0 * current)
    for after in (5, 5, step, 5, 5):
        world.tick(
            [PodMetrics({s: Fresh(37.0, world.now + after) for s in busy.readings if s != Signal.WAITING})]
            * current,
            after,
        )
        assert world.desired == current


@given(st.integers(2, 9), st.sampled_from([-7200.0, -61.0, -1.0, 61.0, 7200.0]))
def test_a_clock_that_steps_completes_no_window(current, step):
    """Twenty seconds without traffic are no whole down window, whatever the clock says of them."""
    world = World(current)
    for after in (5, 5, step, 5, 5):
        world.tick([load(0.0, at=world.now + after)] * current, after)
        assert world.desired == current


@given(st.sampled_from(list(Signal)), WEIRD)
def test_numbers_that_cannot_be_are_missing(signal, value):
    names = vllm()
    running = promql.series_id(names.series[Signal.RUNNING][0], names)

    def vector(tag: str, number: float) -> Samples:
        return Samples((Sample({"namespace": "n", "pod": "p", "series": tag}, number, 1000.0),))

    answers = {s.value: vector(promql.series_id(names.series[s][0], names), 1.0) for s in Signal}
    answers |= {f.value: vector(running, 960.0) for f in Freshness} | {
        Freshness.LAST_SAMPLE.value: vector(running, 999.0)
    }
    answers[signal.value] = vector(promql.series_id(names.series[signal][0], names), value)
    key = pod().key._replace(namespace="n", name="p")
    read = signals.gathered(answers, [(key, names)], NOW, 60.0).pods[key].readings

    assert isinstance(read[signal], Missing)
    assert all(isinstance(r, Fresh) for s, r in read.items() if s is not signal)
