"""Every row of every condition: status and reason, from what was observed and decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.api.conditions import Reason, find
from stoker.api.v1alpha1 import Decision, ModelDeploymentStatus, ScalingStatus
from stoker.core.capacity import Grant, Shortage
from stoker.core.demand import measure
from stoker.core.faces import faces_of
from stoker.core.learning import capacity_of
from stoker.core.lifecycle import Steps
from stoker.core.observed import ContainerStatus, ModelDeployment, Obstacle, Pod
from stoker.core.readings import PodMetrics, Stale
from stoker.core.traffic import Traffic
from stoker.core.verdicts import (
    STUCK_SECONDS,
    STUCK_WITH_CAUSE_SECONDS,
    Decided,
    conditions_of,
    moment,
    set_verdict,
)
from tests.factories import (
    NOW,
    deleting,
    deployment,
    draining,
    failed,
    load,
    loading,
    metrics,
    pending,
    pod,
    silent,
    unschedulable,
    vllm,
)

FIXED = deployment(replicas=2)
SCALED = deployment(scaling={"minReplicas": 2, "maxReplicas": 8})
SHORTAGE = Shortage(Reason.INSUFFICIENT_GPUS, "1 of 2 replicas have a place.")
QUOTA = Obstacle(Reason.QUOTA_EXCEEDED, "exceeded quota", 1, NOW + 60)
REFUSED = Obstacle(Reason.APPLY_REJECTED, "spec.ports: Invalid value", 1, NOW + 60)
WINDOW = vllm().rate_window_seconds


def crashing(ordinal: int = 0) -> Pod:
    """A replica whose engine ends again and again: the cause is known."""
    engine = ContainerStatus(
        "engine", restarts=5, reason="CrashLoopBackOff", last_reason="Error", last_exit_code=1
    )
    return loading(ordinal, containers=(engine,))


def decided(of: ModelDeployment, *pods: Pod, desired: int = 2, **fields: Any) -> Decided:
    """What a tick decided; nothing but what is given."""
    known: dict[str, Any] = {"previous": desired, "grant": Grant(desired, desired), "steps": Steps()}
    return Decided(of, NOW, pods, desired, **(known | fields))


def measured(of: ModelDeployment, answers: dict[Pod, PodMetrics], **fields: Any) -> Decided:
    """What a tick decided on these answers of Prometheus."""
    assert of.spec is not None
    demand = measure(metrics(answers), list(answers), NOW, WINDOW)
    faces = faces_of(of.spec, demand, len(answers), capacity_of(of.spec), Traffic())
    return decided(of, *answers, demand=demand, faces=faces, **fields)


def verdict(kind: str, of: Decided) -> tuple[str, str]:
    found = find(conditions_of(of), kind)
    assert found is not None
    return found.status.value, found.reason


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (decided(FIXED), ("True", "Granted")),
        (decided(FIXED, grant=Grant(1, 2, SHORTAGE)), ("False", "InsufficientGPUs")),
        (decided(FIXED, obstacle=QUOTA), ("False", "QuotaExceeded")),
        (decided(FIXED, obstacle=QUOTA, grant=Grant(1, 2, SHORTAGE)), ("False", "QuotaExceeded")),
        (decided(FIXED, obstacle=REFUSED), ("True", "Granted")),
    ],
    ids=[
        "nothing was refused",
        "the scheduler refuses",
        "a quota refuses",
        "the quota comes before the scheduler",
        "another refusal is no matter of capacity",
    ],
)
def test_capacity_granted(of, expected):
    assert verdict("CapacityGranted", of) == expected


def rolling(of_age: float | None, *pods: Pod) -> Decided:
    """A rollout whose newest replica has not come up for this long."""
    since = None if of_age is None else NOW - of_age
    return decided(FIXED, pod(0), *pods, steps=Steps(rolling=1, stuck_since=since))


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (decided(FIXED, pod(0), pod(1)), ("False", "Complete")),
        (decided(FIXED, pod(0), loading(1)), ("True", "Scaling")),
        (decided(FIXED, pod(0), grant=Grant(1, 2, SHORTAGE)), ("False", "InsufficientGPUs")),
        (decided(FIXED, pod(0), pod(1), draining(2)), ("True", "Draining")),
        (decided(FIXED, pod(0), pod(1), deleting(2)), ("True", "Draining")),
        (decided(FIXED, pod(0), draining(1)), ("True", "Scaling")),
        (decided(FIXED, pod(0), pod(1), obstacle=REFUSED), ("False", "ApplyRejected")),
        (replace(rolling(None), obstacle=REFUSED), ("False", "ApplyRejected")),
        (rolling(None, loading(1)), ("True", "RollingOut")),
        (rolling(STUCK_SECONDS - 1, loading(1)), ("True", "RollingOut")),
        (rolling(STUCK_SECONDS, loading(1)), ("False", "RolloutStuck")),
        (rolling(STUCK_WITH_CAUSE_SECONDS - 1, crashing(1)), ("True", "RollingOut")),
        (rolling(STUCK_WITH_CAUSE_SECONDS, crashing(1)), ("False", "RolloutStuck")),
    ],
    ids=[
        "as wanted",
        "replicas start",
        "what is granted serves, the rest has no place",
        "a replica finishes its requests",
        "a replica is being deleted",
        "a missing replica comes before a leaving one",
        "the API server refuses",
        "the API server refuses in a rollout",
        "a rollout",
        "a slow rollout",
        "stuck without a known cause",
        "the cause has just appeared",
        "stuck with a cause",
    ],
)
def test_progressing(of, expected):
    assert verdict("Progressing", of) == expected


def test_a_stuck_rollout_says_why():
    stuck = find(conditions_of(rolling(STUCK_WITH_CAUSE_SECONDS, crashing(1))), "Progressing")
    assert stuck is not None
    assert crashing(1).key.name in stuck.message


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (decided(FIXED, desired=0), ("False", "ScaledToZero")),
        (decided(FIXED, pod(0), pod(1)), ("True", "Serving")),
        (decided(FIXED, pod(0), loading(1)), ("False", "Starting")),
        (decided(FIXED), ("False", "Starting")),
        (decided(FIXED, pod(0), pending(1)), ("False", "Starting")),
        (decided(FIXED, pod(0), crashing(1)), ("False", "CrashLoop")),
        (decided(FIXED, pod(0), unschedulable(1)), ("False", "InsufficientGPUs")),
        (decided(FIXED, pod(0), failed(1)), ("False", "ReplicaFailed")),
        (decided(FIXED, obstacle=REFUSED), ("False", "ApplyRejected")),
        (decided(FIXED, crashing(0), obstacle=REFUSED), ("False", "CrashLoop")),
        (decided(FIXED, draining(0), deleting(1)), ("False", "NoReadyReplica")),
        (decided(SCALED, pod(0), pod(1), loading(2), desired=5), ("True", "Serving")),
        (decided(SCALED, pod(0), desired=1), ("True", "Serving")),
        (decided(FIXED, pod(0), loading(1), steps=Steps(rolling=1)), ("True", "Serving")),
        (decided(FIXED, loading(0), desired=1, steps=Steps(rolling=1)), ("False", "Starting")),
    ],
    ids=[
        "none is wanted",
        "all serve",
        "one loads",
        "no pods yet",
        "one is not placed yet",
        "one crashes",
        "one has no GPU",
        "one failed",
        "the API server refuses pods",
        "a cause in a pod comes before a refusal",
        "all leave and none comes",
        "the minimum serves, more are wanted",
        "fewer than the minimum are wanted",
        "a rollout may lack one",
        "a rollout may not lack the only one",
    ],
)
def test_available(of, expected):
    assert verdict("Available", of) == expected


def grown(since: float | None, *, from_: int = 2, to: int = 4) -> Decided:
    """A fixed number that was raised so long ago, or (None) just now; as many serve as before."""
    decision = Decision(
        time=moment(NOW - (since or 0.0)), from_=from_, to=to, limited_by="replicas", reason="x"
    )
    scaling = ScalingStatus(mode="Fixed", last_decision=decision if since is not None else None)
    status = ModelDeploymentStatus(desired_replicas=from_, scaling=scaling)
    pods = (*(pod(n) for n in range(from_)), *(loading(n) for n in range(from_, to)))
    before = from_ if since is None else to
    return decided(replace(FIXED, status=status), *pods, desired=to, previous=before)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (grown(None), ("True", "Serving")),
        (grown(60), ("True", "Serving")),
        (grown(STUCK_SECONDS), ("False", "Starting")),
        (grown(60, from_=0), ("False", "Starting")),
        (grown(60, from_=1, to=2), ("True", "Serving")),
    ],
    ids=["this very tick", "a minute ago", "long ago", "from nothing", "by one"],
)
def test_a_fixed_number_that_grows_stays_available(of, expected):
    assert verdict("Available", of) == expected


FRESH = {pod(0): load(3), pod(1): load(4)}
OLD = replace(load(3), readings={s: Stale(3.0, NOW - 90) for s in load(3).readings})
SHADOW = deployment(scaling={"mode": "Shadow", "minReplicas": 2, "maxReplicas": 8})
WARMING = pod(1, ready_since=NOW - 1)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (decided(FIXED, pod(0)), ("False", "Fixed")),
        (decided(SCALED, metrics_failure="x", metrics_pending=True), ("Unknown", "WaitingForMetrics")),
        (measured(SCALED, FRESH, metrics_failure="refused"), ("False", "PrometheusUnreachable")),
        (decided(SCALED), ("Unknown", "WaitingForMetrics")),
        (measured(SCALED, {loading(0): load()}), ("Unknown", "WaitingForMetrics")),
        (measured(SCALED, FRESH), ("True", "MetricsFresh")),
        (measured(SCALED, {pod(0): load(3), pod(1): silent()}), ("False", "MetricsMissing")),
        (measured(SCALED, {pod(0): load(3), pod(1): OLD}), ("False", "MetricsStale")),
        (measured(SCALED, {pod(0): OLD, pod(1): silent()}), ("False", "MetricsMissing")),
        (measured(SCALED, {WARMING: silent()}), ("Unknown", "WaitingForMetrics")),
        (measured(SCALED, {pod(0): load(3), WARMING: silent()}), ("True", "MetricsFresh")),
        (measured(SHADOW, FRESH), ("False", "Shadow")),
        (measured(SHADOW, {pod(0): silent()}), ("False", "MetricsMissing")),
    ],
    ids=[
        "a fixed number",
        "nobody has asked yet",
        "Prometheus does not answer",
        "nothing was measured",
        "nothing serves yet",
        "all answer",
        "one does not answer",
        "one's last samples are old",
        "missing comes before stale",
        "the only one has just become ready",
        "one has just become ready",
        "shadow mode",
        "shadow mode is blind too",
    ],
)
def test_scaling_active(of, expected):
    assert verdict("ScalingActive", of) == expected


@pytest.mark.parametrize("serves", [FRESH, {pod(0): silent(), pod(1): OLD}], ids=["fresh", "blind"])
def test_metrics_never_touch_ready(serves):
    assert verdict("Ready", measured(SCALED, serves, metrics_failure="refused")) == ("True", "Serving")


def test_all_conditions_are_published_with_the_generation_in_the_order_of_the_type():
    found = conditions_of(decided(replace(FIXED, generation=7), pod(0)))
    order = ["Accepted", "CapacityGranted", "Progressing", "Available", "ScalingActive", "Ready"]
    assert [c.type for c in found] == order
    assert {c.observed_generation for c in found} == {7}


class TestSettingOne:
    BEFORE = set_verdict((), "Ready", ("True", "Serving", "all"), 1, NOW)

    def test_the_same_again_is_the_very_same(self):
        assert set_verdict(self.BEFORE, "Ready", ("True", "Serving", "all"), 1, NOW + 9)[0] is self.BEFORE[0]

    @pytest.mark.parametrize(
        ("verdict_", "moved"),
        [(("True", "Starting", "some"), 0.0), (("False", "Starting", "some"), 9.0)],
        ids=["another reason", "another status"],
    )
    def test_the_transition_time_moves_with_the_status_alone(self, verdict_, moved):
        (after,) = set_verdict(self.BEFORE, "Ready", verdict_, 2, NOW + 9)
        assert after.last_transition_time.timestamp() == NOW + moved
        assert (after.reason, after.observed_generation) == ("Starting", 2)
