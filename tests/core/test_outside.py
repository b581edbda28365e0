"""Demand that no replica tells of: signals of one's own, and requests that a gateway holds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.conditions import find
from stoker.api.queries import CustomSignal
from stoker.api.v1alpha1 import Freshness, ModelDeploymentStatus, OnMissingMetrics, Scaling
from stoker.core.demand import measure
from stoker.core.faces import Face, needed
from stoker.core.observed import Memory, Pod, Proposal, Snapshot
from stoker.core.outside import added, faces_of_signals, reading, with_held
from stoker.core.readings import Fresh, Metrics, Missing, Reading, Stale
from stoker.core.reconcile import reconcile
from stoker.core.scaling import recommend
from stoker.core.signals import Failed, Sample, Samples
from tests.factories import KEY, NOW, deployment, load, metrics, pod

BUSY = measure(metrics({pod(): load(12.0)}), [pod()], NOW, 60.0)
"""Twelve requests in flight."""
JOBS = CustomSignal(name="jobs", query="sum(queue_depth)", target=10, unit="jobs")


def answer(*values: float, warnings: tuple[str, ...] = ()) -> Samples:
    return Samples(tuple(Sample({}, value, NOW) for value in values), warnings)


class TestReading:
    def test_one_element_is_a_number(self):
        assert reading(answer(7.0), NOW) == Fresh(7.0, NOW)
        assert reading(answer(0.0), NOW) == Fresh(0.0, NOW)

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            (answer(), "no element"),
            (answer(1, 2, 3), "3 elements where one is expected"),
            (answer(math.nan), "nan, which is no load"),
            (answer(math.inf), "inf, which is no load"),
            (answer(-1), "-1, which is no load"),
            (Failed("HTTP 400, bad_data: parse error"), "Prometheus: HTTP 400, bad_data: parse error"),
        ],
    )
    def test_anything_else_is_missing_and_says_why(self, said, words):
        found = reading(said, NOW)
        assert isinstance(found, Missing)
        assert words in found.why

    def test_a_part_of_the_data_is_a_lower_bound(self):
        assert reading(answer(7.0, warnings=("partial",)), NOW) == Stale(7.0, NOW)


def face(said: Reading | None, now: float = NOW) -> Face:
    signals = {} if said is None else {JOBS.query: said}
    (found,) = faces_of_signals([JOBS], Metrics(at=NOW, signals=signals), now)
    return found


class TestFaces:
    def test_the_number_is_divided_by_the_target(self):
        found = face(Fresh(25.0, NOW))
        assert (found.name, found.replicas, found.unit) == ("signals[jobs]", 3, "jobs")
        assert (found.complete, found.blind, found.freshness) == (True, False, Freshness.FRESH)
        assert found.message == "25 jobs at 10 per replica needs 3"
        assert (found.covered, found.expected) == (1, 1)

    @pytest.mark.parametrize("said", [Missing("no such series"), None])
    def test_missing_is_blind_and_never_zero(self, said):
        found = face(said)
        assert (found.value, found.blind, found.complete) == (None, True, False)
        assert (found.freshness, found.covered, found.expected) == (Freshness.MISSING, 0, 1)

    def test_a_lower_bound_may_add_and_never_remove(self):
        found = face(Stale(25.0, NOW))
        assert (found.replicas, found.blind, found.complete) == (3, False, False)

    @pytest.mark.parametrize("later", [61.0, -61.0])
    def test_what_was_answered_long_ago_is_missing(self, later):
        found = face(Fresh(25.0, NOW), NOW + later)
        assert found.blind
        assert "answered last" in found.message


def in_flight(
    value: float | None = 12.0, *, expected: int = 2, complete: bool = True, name: str = "concurrentRequests"
) -> Face:
    """The face of requests in flight, 10 of them per replica; without a value none of these replicas told."""
    blind = value is None
    return Face(
        name=name,
        unit="requests",
        value=value,
        target=10.0,
        replicas=0 if blind else needed(value, 10.0),
        complete=complete and not blind,
        blind=blind,
        message="no replica serves yet" if blind else "12 requests at 10 per replica needs 2",
        covered=0 if blind else expected,
        expected=expected,
    )


TOKENS = in_flight()._replace(name="utilization", unit="weighted tokens/s", value=100.0, target=1000.0)


class TestHeld:
    def test_no_gateway_changes_nothing(self):
        assert with_held([in_flight(), TOKENS], None, BUSY, NOW) == (in_flight(), TOKENS)

    def test_held_requests_are_on_top_of_those_in_flight(self):
        counted, tokens = with_held([in_flight(), TOKENS], Fresh(30.0, NOW), BUSY, NOW)
        assert (counted.value, counted.replicas, counted.complete) == (42.0, 5, True)
        assert "42 requests, 30 of them held in the inference gateway" in counted.message
        assert tokens == TOKENS

    def test_an_empty_queue_changes_nothing(self):
        assert with_held([in_flight()], Fresh(0.0, NOW), BUSY, NOW) == (in_flight(),)

    def test_where_nobody_serves_they_are_all_that_is_known(self):
        (counted,) = with_held([in_flight(None, expected=0)], Fresh(3.0, NOW), BUSY, NOW)
        assert (counted.value, counted.replicas) == (3.0, 1)
        assert (counted.blind, counted.complete, counted.whole) == (False, False, True)

    def test_replicas_that_should_have_told_and_did_not_stay_missing(self):
        assert with_held([in_flight(None)], Fresh(30.0, NOW), BUSY, NOW) == (in_flight(None),)

    def test_a_gateway_that_cannot_be_asked_keeps_replicas(self):
        (counted,) = with_held([in_flight()], Missing("too slow"), BUSY, NOW)
        assert (counted.replicas, counted.complete, counted.blind) == (2, False, False)
        assert "too slow" in counted.message

    def test_a_lower_bound_may_add_and_never_remove(self):
        (counted,) = with_held([in_flight()], Stale(30.0, NOW), BUSY, NOW)
        assert (counted.replicas, counted.complete) == (5, False)

    def test_targets_that_do_not_look_at_requests_get_a_face_that_does(self):
        _, counted = with_held([TOKENS], Fresh(90.0, NOW), BUSY, NOW)
        assert (counted.name, counted.value, counted.replicas) == ("heldRequests", 102.0, 3)

    def test_the_face_that_only_asks_for_one_replica_is_no_measure(self):
        occupied = in_flight(100.0)._replace(name="requestsInFlight", target=200.0, replicas=1)
        same, counted = with_held([occupied], Fresh(90.0, NOW), BUSY, NOW)
        assert same == occupied
        assert (counted.name, counted.replicas) == ("heldRequests", 3)

    def test_where_what_is_learned_is_not_known_of_anybody_yet_they_wake_too(self):
        learned = in_flight(None, expected=0)._replace(blind=False)
        tokens = TOKENS_ASLEEP._replace(name="generatedTokensPerSecond")
        known = with_held([tokens, learned], Fresh(3.0, NOW), BUSY, NOW)
        assert recommend(Scaling(min_replicas=0, max_replicas=8), known, Memory(), 0, NOW).replicas == 1

    @given(st.floats(0, 1e6), st.floats(0, 1e6))
    def test_held_requests_only_add(self, flying, held):
        before = in_flight(flying)
        (after,) = with_held([before], Fresh(held, NOW), BUSY, NOW)
        assert after.replicas >= before.replicas


# --- What becomes of it --------------------------------------------------------------------------

ZERO = Scaling.model_validate(
    {"minReplicas": 0, "maxReplicas": 8, "signals": (JOBS,), "windows": {"up": "30s"}}
)
ASLEEP = in_flight(None, expected=0)


def decide(said: Reading, *faces: Face, current: int, scaling: Scaling = ZERO, memory: Memory | None = None):
    known = added(faces, scaling.signals, Metrics(at=NOW, signals={JOBS.query: said}), KEY, BUSY, NOW)
    return recommend(scaling, known, memory or Memory(), current, NOW)


class TestWaking:
    def test_a_signal_wakes_a_fleet_at_zero_at_once(self):
        chosen = decide(Fresh(3.0, NOW), ASLEEP, current=0)
        assert (chosen.replicas, chosen.limited_by) == (1, "signals[jobs]")
        assert "starts at once" in chosen.message

    def test_a_burst_starts_all_that_it_needs(self):
        assert decide(Fresh(35.0, NOW), ASLEEP, current=0).replicas == 4

    def test_a_signal_of_zero_lets_it_sleep(self):
        chosen = decide(Fresh(0.0, NOW), ASLEEP, current=0)
        assert chosen.replicas == 0

    @pytest.mark.parametrize("policy", list(OnMissingMetrics))
    def test_a_missing_signal_wakes_nothing_and_says_so(self, policy):
        chosen = decide(
            Missing("no such series"),
            ASLEEP,
            current=0,
            scaling=ZERO.model_copy(update={"on_missing_metrics": policy}),
        )
        assert (chosen.replicas, chosen.limited_by) == (0, "onMissingMetrics")
        assert "no such series" in chosen.message

    def test_while_the_first_replica_starts_more_may_be_added(self):
        assert decide(Fresh(35.0, NOW), ASLEEP, current=1).replicas == 4

    def test_while_the_first_replica_starts_none_is_removed(self):
        memory = Memory(evidence=(Proposal(NOW - 90_000, NOW - 1, 0),))
        assert decide(Fresh(0.0, NOW), ASLEEP, current=1, memory=memory).replicas == 1

    def test_replicas_that_serve_and_do_not_tell_still_hold(self):
        chosen = decide(Fresh(35.0, NOW), in_flight(None), current=2)
        assert (chosen.replicas, chosen.limited_by) == (2, "onMissingMetrics")

    def test_held_requests_wake_a_fleet_at_zero(self):
        known = with_held([TOKENS_ASLEEP, ASLEEP], Fresh(3.0, NOW), BUSY, NOW)
        chosen = recommend(Scaling(min_replicas=0, max_replicas=8), known, Memory(), 0, NOW)
        assert (chosen.replicas, chosen.limited_by) == (1, "concurrentRequests")


TOKENS_ASLEEP = ASLEEP._replace(name="utilization", unit="weighted tokens/s")


class TestDeciding:
    def test_the_largest_answer_wins(self):
        chosen = decide(Fresh(80.0, NOW), in_flight(12.0), current=2)
        assert (chosen.replicas, chosen.limited_by) == (8, "signals[jobs]")

    def test_a_missing_signal_removes_nothing(self):
        memory = Memory(evidence=(Proposal(NOW - 900, NOW - 1, 2),))
        chosen = decide(Missing("no such series"), in_flight(12.0), current=5, memory=memory)
        assert (chosen.replicas, chosen.limited_by) == (5, "onMissingMetrics")
        assert "signals[jobs]: no such series" in chosen.message

    def test_with_all_known_the_window_decides(self):
        memory = Memory(evidence=(Proposal(NOW - 900, NOW - 1, 2),))
        assert decide(Fresh(0.0, NOW), in_flight(12.0), current=5, memory=memory).replicas == 2


# --- What is said of it --------------------------------------------------------------------------


def scaling_active(said: Reading, *pods: Pod, desired: int, **scaling: Any) -> tuple[str, str, str]:
    """Status, reason and message of ScalingActive of a fleet with the signal."""
    signals = [JOBS.model_dump(by_alias=True)]
    d = deployment(scaling={"minReplicas": 0, "maxReplicas": 8, "signals": signals, **scaling})
    d = replace(d, status=ModelDeploymentStatus(desired_replicas=desired, granted_replicas=desired))
    found = replace(metrics({p: load(at=NOW) for p in pods}), signals={JOBS.query: said})
    plan = reconcile(
        Snapshot(NOW, {d.key: d}, {d.key: tuple(replace(p, owner_uid=d.uid) for p in pods)}, metrics=found)
    )[d.key]
    assert plan.status is not None
    condition = find(plan.status.conditions, "ScalingActive")
    assert condition is not None
    return condition.status.value, condition.reason, condition.message


class TestConditions:
    def test_at_zero_what_can_wake_it_is_fresh(self):
        status, reason, message = scaling_active(Fresh(0.0, NOW), desired=0)
        assert (status, reason) == ("True", "MetricsFresh")
        assert "signals[jobs]" in message

    def test_at_zero_a_missing_signal_is_an_alarm(self):
        status, reason, message = scaling_active(Missing("no such series"), desired=0)
        assert (status, reason) == ("False", "MetricsMissing")
        assert message.startswith("signals[jobs]: no such series")

    def test_at_zero_in_shadow_mode_nothing_is_carried_out(self):
        assert scaling_active(Fresh(3.0, NOW), desired=0, mode="Shadow")[:2] == ("False", "Shadow")

    def test_a_serving_fleet_names_the_signal_that_is_missing(self):
        status, reason, message = scaling_active(Missing("no such series"), pod(), desired=1)
        assert (status, reason) == ("False", "MetricsMissing")
        assert message == "signals[jobs]: no such series; no replica is removed until it can be read"

    def test_a_part_of_the_data_is_stale(self):
        assert scaling_active(Stale(3.0, NOW), pod(), desired=1)[:2] == ("False", "MetricsStale")
