"""Schedules in a tick: bounds act at once, and their end is no reason to remove a replica."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stoker.api.v1alpha1 import Decision, ModelDeploymentStatus, ScalingStatus
from stoker.core.observed import Memory, ModelDeployment, Pod, Proposal, Snapshot
from stoker.core.plan import CreatePod, Plan
from stoker.core.reconcile import reconcile
from tests.factories import deployment, load, metrics, pod

EIGHT = datetime(2026, 11, 23, 8, tzinfo=UTC).timestamp()
SIX = datetime(2026, 11, 23, 18, tzinfo=UTC).timestamp()
OFFICE = {"name": "office", "start": "0 8 * * *", "end": "0 18 * * *"}


def fleet(desired: int, *schedules: dict[str, Any], least: int = 1, **more: Any) -> ModelDeployment:
    scaling = {"minReplicas": least, "maxReplicas": 8, "targets": {"concurrentRequests": 10}}
    made = deployment(scaling={**scaling, "schedules": list(schedules), **more})
    return replace(made, status=ModelDeploymentStatus(desired_replicas=desired, granted_replicas=desired))


def tick(
    d: ModelDeployment, now: float, *, running: float = 0.0, remembered: tuple[Proposal, ...] = ()
) -> Plan:
    """One tick of a fleet all of whose replicas serve, with this many requests on the first."""
    pods: list[Pod] = [pod(n, of=d, created_at=now - 7200, ready_since=now - 7200) for n in range(8)]
    pods = pods[: d.status.desired_replicas]
    said = {p: load(running if n == 0 else 0.0, at=now) for n, p in enumerate(pods)}
    memory = {d.key: Memory(evidence=remembered, asked=remembered)}
    seen = Snapshot(now, {d.key: d}, {d.key: tuple(pods)}, metrics=metrics(said, at=now), memory=memory)
    return reconcile(seen)[d.key]


def scaling_of(plan: Plan) -> ScalingStatus:
    assert plan.status is not None
    assert plan.status.scaling is not None
    return plan.status.scaling


def decision(plan: Plan) -> Decision:
    made = scaling_of(plan).last_decision
    assert made is not None
    return made


def asked(replicas: int, now: float, seconds: float = 900.0) -> tuple[Proposal, ...]:
    """Evidence that this many were needed for so long."""
    return (Proposal(now - seconds, now - 1, replicas),)


def test_a_minimum_acts_at_once_and_is_named():
    made = decision(tick(fleet(1, {**OFFICE, "minReplicas": 4}), EIGHT))
    assert (made.from_, made.to, made.limited_by) == (1, 4, "schedules[office].minReplicas")
    assert "until 2026-11-23T18:00Z" in made.message


def test_a_maximum_acts_at_once_and_is_named():
    made = decision(tick(fleet(6, {**OFFICE, "maxReplicas": 2}), EIGHT, running=60))
    assert (made.from_, made.to, made.limited_by) == (6, 2, "schedules[office].maxReplicas")


def test_a_schedule_of_zero_turns_the_fleet_off():
    night = {**OFFICE, "minReplicas": 0, "maxReplicas": 0}
    assert decision(tick(fleet(3, night), EIGHT, running=60)).to == 0


def test_within_the_bounds_traffic_decides():
    d = fleet(4, {**OFFICE, "minReplicas": 2, "maxReplicas": 8})
    assert decision(tick(d, EIGHT, running=80)).to == 8


def test_at_its_end_the_window_of_evidence_decides_and_not_the_clock():
    d = fleet(6, {**OFFICE, "minReplicas": 6})
    assert scaling_of(tick(d, SIX, remembered=asked(3, SIX, seconds=60))).last_decision is None
    made = decision(tick(d, SIX, remembered=asked(3, SIX)))
    assert (made.to, made.limited_by) == (3, "windows.down"), "what was needed at most, not the minimum"


def test_it_is_looked_at_again_when_a_schedule_opens_or_closes():
    d = fleet(4, {**OFFICE, "minReplicas": 4})
    assert tick(d, EIGHT).requeue_at == SIX
    assert tick(d, SIX + 1).requeue_at == EIGHT + 86_400


def test_status_shows_the_bounds_of_the_moment():
    shown = scaling_of(tick(fleet(4, {**OFFICE, "minReplicas": 4}), EIGHT)).bounds
    assert shown is not None
    assert (shown.min_replicas, shown.max_replicas, shown.schedules) == (4, 8, ("office",))
    assert shown.until == datetime.fromtimestamp(SIX, UTC)
    assert scaling_of(tick(fleet(4), EIGHT)).bounds is None


def test_a_contradiction_is_said():
    peak, cap = {**OFFICE, "minReplicas": 6}, {**OFFICE, "name": "cap", "maxReplicas": 4}
    shown = scaling_of(tick(fleet(6, peak, cap), EIGHT)).bounds
    assert shown is not None
    assert (shown.min_replicas, shown.max_replicas) == (6, 6)
    assert "the minimum counts" in shown.message


def test_the_minimum_of_the_moment_is_what_must_serve():
    plan = tick(fleet(1, {**OFFICE, "minReplicas": 4}), EIGHT)
    assert plan.status is not None
    available = next(c for c in plan.status.conditions if c.type == "Available")
    assert "4 needed at least" in available.message


def test_a_night_may_let_the_last_one_go():
    d = fleet(1, {**OFFICE, "minReplicas": 0})
    idle = asked(0, EIGHT, seconds=7200)
    made = decision(tick(d, EIGHT, remembered=idle))
    assert (made.to, made.limited_by) == (0, "windows.toZero")
    assert decision(tick(fleet(0, {**OFFICE, "minReplicas": 0}), SIX)).to == 1


def test_shadow_keeps_its_fleet():
    d = fleet(2, {**OFFICE, "minReplicas": 4}, mode="Shadow")
    plan = tick(d, EIGHT)
    assert plan.status is not None
    assert plan.status.desired_replicas == 4
    assert not any(isinstance(action, CreatePod) for action in plan.actions)
