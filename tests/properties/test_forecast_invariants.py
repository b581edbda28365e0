"""The invariants of forecasts, at the level of a decision and of a whole tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.api.v1alpha1 import Scaling
from stoker.core.faces import Face
from stoker.core.observed import Memory, Pod, PodCondition
from stoker.core.plan import Plan
from stoker.core.readings import Metrics
from stoker.core.reconcile import reconcile
from stoker.core.scaling import recommend
from tests.factories import KEY, NOW, deployment, load, pod, silent, snapshot

SECTION = Scaling.model_validate({"maxReplicas": 20, "windows": {"up": "10s", "down": "1m"}})


def face(replicas: int, *, complete: bool = True, blind: bool = False, ahead: bool = False) -> Face:
    return Face(
        "forecast" if ahead else "concurrentRequests",
        "requests",
        None if blind else float(replicas),
        1.0,
        0 if blind else replicas,
        complete=complete and not blind,
        blind=blind,
        message="",
        ahead=ahead,
    )


PRESENT = st.builds(face, st.integers(0, 30), complete=st.booleans(), blind=st.booleans())
TICKS = st.lists(st.tuples(PRESENT, st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=40)


@settings(max_examples=50)
@given(TICKS, st.integers(0, 20))
def test_with_the_same_memory_a_forecast_never_asks_for_less(ticks, current):
    memory = Memory()
    for number, (present, ahead) in enumerate(ticks):
        now = NOW + 5.0 * number
        without = recommend(SECTION, [present], memory, current, now)
        faces = [present] if ahead is None else [present, face(ahead, ahead=True)]
        found = recommend(SECTION, faces, memory, current, now)
        assert found.replicas >= without.replicas
        assert found.memory.evidence == without.memory.evidence
        current, memory = found.replicas, found.memory


class World:
    """A fleet whose replicas took ``start`` seconds to serve; Prometheus answers every five seconds."""

    def __init__(self, start: float, course: Callable[[float], float | None], forecast: str) -> None:
        section = {"maxReplicas": 20, "targets": {"generatedTokensPerSecond": 100}, "forecast": forecast}
        self.deployment = deployment(scaling=section)
        status = self.deployment.status.model_copy(update={"desired_replicas": 3})
        self.deployment = replace(self.deployment, status=status)
        self.start = start
        self.pods = [self.pod(n, start) for n in range(3)]
        self.course, self.memory, self.now = course, Memory(), NOW

    def pod(self, ordinal: int, start: float) -> Pod:
        ready = PodCondition("Ready", "True", since=NOW - 7200)
        return pod(ordinal, of=self.deployment, created_at=NOW - 7200 - start, conditions=(ready,))

    def tick(self) -> Plan:
        self.now += 5.0
        tokens = self.course(self.now - NOW)
        share = (
            silent() if tokens is None else load(1.0, at=self.now, generated_tokens=tokens / len(self.pods))
        )
        metrics = Metrics(self.now, {p.key: share for p in self.pods})
        world = snapshot(
            self.deployment, pods=self.pods, now=self.now, metrics=metrics, memory={KEY: self.memory}
        )
        plan = reconcile(world)[KEY]
        self.memory = plan.memory
        if plan.status is not None:
            self.deployment = replace(self.deployment, status=plan.status)
        self.pods += [self.pod(n, self.start) for n in range(len(self.pods), self.desired)]
        return plan

    @property
    def desired(self) -> int:
        desired = self.deployment.status.desired_replicas
        assert desired is not None
        return desired


def both(start: float, course: Callable[[float], float | None], seconds: float) -> list[tuple[int, int]]:
    """(with forecasts, without) after each tick."""
    worlds = World(start, course, "Auto"), World(start, course, "Disabled")
    found = []
    for _ in range(round(seconds / 5)):
        for world in worlds:
            world.tick()
        found.append((worlds[0].desired, worlds[1].desired))
    return found


COURSES = st.lists(st.one_of(st.floats(0, 1500), st.none()), min_size=1, max_size=12)


@settings(max_examples=8)
@given(COURSES, st.sampled_from([2.0, 60.0, 300.0]))
def test_with_fast_starts_it_buys_nothing_and_costs_nothing(levels, start):
    def course(seconds: float) -> float | None:
        return levels[int(seconds // 60) % len(levels)]

    assert all(auto == without for auto, without in both(start, course, 300))


def test_with_slow_starts_replicas_are_there_before_the_demand():
    found = both(600.0, lambda s: 250.0 + s / 3, 1500)

    assert all(auto >= without for auto, without in found)
    assert sum(auto > without for auto, without in found) > len(found) / 4


def test_what_it_added_in_vain_goes_without_waiting_for_the_down_window():
    found = both(600.0, lambda s: 250.0 + min(s, 810) / 3, 1800)  # 5.2 replicas, with their tolerance 6

    assert max(auto - without for auto, without in found) >= 1
    assert found[-1][0] == found[-1][1]


def test_unknown_demand_is_no_forecast_and_shrinks_nothing():
    found = both(600.0, lambda s: 250.0 + s / 3 if s < 900 else None, 1500)
    kept = [auto for auto, _ in found[180:]]

    assert kept == sorted(kept)
