"""One tick as a whole: what is published, what is done, and that one deployment cannot harm another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.core import capacity
from stoker.core.observed import ModelDeployment, Obstacle, Pod, Snapshot
from stoker.core.parse import deployment_from
from stoker.core.plan import Apply, CreatePod, Plan
from stoker.core.readings import Key, Metrics
from stoker.core.reconcile import reconcile, want
from tests.factories import (
    KEY,
    NOW,
    deployment,
    load,
    loading,
    manifest,
    metrics,
    pod,
    snapshot,
    unschedulable,
)


def tick(d: ModelDeployment, *pods: Pod, **fields: Any) -> Plan:
    return reconcile(snapshot(d, pods=pods, **fields))[d.key]


def published(d: ModelDeployment, *pods: Pod, **fields: Any) -> ModelDeployment:
    """The deployment with the status that a tick publishes, as it is read back."""
    status = tick(d, *pods, **fields).status
    assert status is not None
    return replace(
        d,
        status=ModelDeploymentStatus.model_validate(
            status.model_dump(mode="json", by_alias=True, exclude_none=True)
        ),
    )


def condition(plan: Plan, kind: str) -> tuple[str, str]:
    assert plan.status is not None
    return next((c.status.value, c.reason) for c in plan.status.conditions if c.type == kind)


def creates(plan: Plan) -> int:
    return sum(isinstance(a, CreatePod) for a in plan.actions)


class TestQuiet:
    def test_nothing_is_written_twice(self):
        d = deployment(replicas=1)
        p = pod(of=d)
        known = published(d, p)

        again = tick(known, p, now=NOW + 1)

        assert (again.status, again.events) == (None, ())

    @pytest.mark.parametrize(("later", "writes"), [(29, False), (31, True)])
    def test_numbers_that_only_drift_wait_for_the_refresh(self, later, writes):
        d = deployment(scaling={"maxReplicas": 4})
        p = pod(of=d)
        known = published(d, p, metrics=metrics({p: load(10)}))

        again = tick(
            known, p, now=NOW + later, metrics=metrics({p: load(12, at=NOW + later)}, at=NOW + later)
        )

        assert (again.status is not None) is writes

    def test_a_loading_fleet_is_quiet_too(self):
        d = deployment(replicas=1)
        p = loading(of=d)
        known = published(d, p)

        assert tick(known, p, now=NOW + 20).status is None


class TestStatus:
    def test_history_is_bounded(self):
        d = deployment(replicas=0)
        for n in range(30):
            d = published(replace(d, spec=deployment(replicas=n % 7 + 1).spec))

        assert d.status.scaling is not None
        assert len(d.status.scaling.history) == 10

    def test_replica_states_are_bounded_and_the_rest_is_counted(self):
        d = deployment(replicas=60)
        status = published(d, *(pod(n, of=d) for n in range(60))).status

        assert (len(status.replica_states), status.replica_states_omitted) == (50, 10)

    def test_a_serving_fleet_is_ready(self):
        d = deployment(replicas=1)
        plan = tick(d, pod(of=d))

        assert condition(plan, "Ready") == ("True", "Serving")
        assert condition(plan, "ScalingActive") == ("False", "Fixed")

    def test_stale_metrics_never_touch_ready(self):
        d = deployment(scaling={"maxReplicas": 4})
        plan = tick(d, pod(of=d), metrics=Metrics(at=NOW, failure="away"))

        assert condition(plan, "Ready") == ("True", "Serving")
        assert condition(plan, "ScalingActive") == ("False", "PrometheusUnreachable")

    def test_that_nobody_has_asked_yet_is_not_known_to_be_wrong(self):
        d = deployment(scaling={"maxReplicas": 4})
        plan = tick(d, pod(of=d), metrics=Metrics(at=NOW, failure="not asked yet", pending=True))

        assert condition(plan, "ScalingActive") == ("Unknown", "WaitingForMetrics")

    def test_a_decision_becomes_an_event(self):
        d = published(deployment(replicas=1))
        plan = tick(replace(d, spec=deployment(replicas=3).spec))

        assert "1 → 3 replicas" in next(e.message for e in plan.events if e.reason == "ScaledUp")


class TestInvalid:
    def test_an_invalid_spec_is_said_and_nothing_is_touched(self):
        d = deployment(template={"spec": {"hostNetwork": True}})
        plan = tick(d, pod())

        assert plan.actions == ()
        assert condition(plan, "Accepted") == ("False", "InvalidSpec")

    def test_a_custom_engine_without_metrics_is_an_invalid_spec(self):
        d = deployment_from(manifest(engine={"type": "Custom", "image": "x"}))

        assert "metric names" in d.errors[0].message

    def test_a_deployment_that_goes_is_left_to_its_owner_references(self):
        assert tick(replace(deployment(replicas=1), deleting=True)).actions == ()


class TestIsolation:
    def test_a_bug_in_one_deployment_stops_no_other(self, monkeypatch):
        sick, real = deployment("sick", replicas=1), want

        def broken(seen: Any, one: Any, spec: Any) -> Any:
            if one.key == sick.key:
                raise ZeroDivisionError
            return real(seen, one, spec)

        monkeypatch.setattr("stoker.core.reconcile.want", broken)
        plans = reconcile(snapshot(sick, deployment(replicas=1)))

        assert plans.keys() == {sick.key, KEY}
        assert isinstance(plans[sick.key].error, ZeroDivisionError)
        assert creates(plans[KEY]) == 1

    def test_a_bug_in_the_capacity_of_one_stops_no_other(self, monkeypatch):
        real = capacity.diagnose_pod

        def broken(p: Pod, now: float) -> Any:
            if p.owner == "sick":
                raise ZeroDivisionError
            return real(p, now)

        monkeypatch.setattr(capacity, "diagnose_pod", broken)
        sick, well = deployment("sick", replicas=1), deployment(replicas=1)
        plans = reconcile(snapshot(sick, well, pods=[unschedulable(of=sick)]))

        assert condition(plans[sick.key], "Ready") == ("Unknown", "InternalError")
        assert creates(plans[KEY]) == 1


class TestObstacle:
    def snap(self, *pods: Pod, retry_at: float = NOW + 60, generation: int = 1) -> Snapshot:
        obstacle = Obstacle(Reason.APPLY_REJECTED, "no", generation, retry_at)
        return replace(snapshot(deployment(replicas=1), pods=pods), obstacles={KEY: obstacle})

    def test_creates_and_applies_wait(self):
        plan = reconcile(self.snap())[KEY]

        assert not any(isinstance(a, CreatePod | Apply) for a in plan.actions)
        assert plan.requeue_at == NOW + 60

    def test_they_are_tried_again_when_its_time_is_up(self):
        assert creates(reconcile(self.snap(retry_at=NOW))[KEY]) == 1

    def test_a_new_spec_is_tried_at_once(self):
        assert creates(reconcile(self.snap(generation=0))[KEY]) == 1

    def test_one_that_is_past_wakes_nobody(self):
        d = deployment(replicas=1)

        assert reconcile(self.snap(pod(of=d), retry_at=NOW - 1))[KEY].requeue_at is None


class TestShadow:
    def test_it_decides_and_does_nothing(self):
        d = deployment(scaling={"mode": "Shadow", "maxReplicas": 9})
        p = pod(of=d)
        plan = tick(published(d, p), p, metrics=metrics({p: load(300)}))

        assert creates(plan) == 0
        assert plan.status is not None
        assert plan.status.desired_replicas == 8

    def test_a_shortage_does_not_lower_the_number_that_it_keeps(self):
        d = deployment(scaling={"mode": "Shadow", "minReplicas": 2, "maxReplicas": 9})
        pods = (pod(0, of=d), unschedulable(1, of=d))

        assert published(d, *pods).status.granted_replicas == 2


class TestShortage:
    def test_one_replica_more_than_fits_waits(self):
        d = deployment(replicas=5)
        plan = tick(d, pod(0, of=d), unschedulable(1, of=d))

        assert creates(plan) == 0
        assert condition(plan, "CapacityGranted")[0] == "False"
        assert plan.status is not None
        assert (plan.status.desired_replicas, plan.status.granted_replicas) == (5, 1)


def test_the_order_of_objects_does_not_matter():
    ds = [deployment(name, replicas=2) for name in ("a", "b", "c")]
    pods = [pod(n, of=d) for d in ds for n in range(2)]

    assert reconcile(snapshot(*ds, pods=pods)) == reconcile(snapshot(*reversed(ds), pods=reversed(pods)))


def test_only_the_keys_asked_for_are_planned():
    assert set(reconcile(snapshot(deployment("a"), deployment("b")), [Key(KEY.namespace, "a"), KEY])) == {
        Key(KEY.namespace, "a")
    }
