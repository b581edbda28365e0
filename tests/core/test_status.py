"""The published status: what turns it at once, what waits, what is bounded, and which Events tell of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.api.conditions import Reason
from stoker.api.status import MAX_HISTORY, MAX_REPLICA_STATES
from stoker.api.v1alpha1 import (
    Condition,
    FieldError,
    ModelDeploymentStatus,
    ReplicaPhase,
)
from stoker.core import status
from stoker.core.capacity import Grant
from stoker.core.demand import measure
from stoker.core.faces import faces_of
from stoker.core.learning import capacity_of
from stoker.core.lifecycle import Steps
from stoker.core.observed import Memory, ModelDeployment, Pod
from stoker.core.readings import PodMetrics
from stoker.core.scaling import Recommendation
from stoker.core.status import REFRESH_SECONDS
from stoker.core.traffic import Traffic
from stoker.core.verdicts import Decided, moment
from tests.factories import (
    NOW,
    deployment,
    draining,
    failed,
    load,
    loading,
    metrics,
    pod,
    readings,
    silent,
    vllm,
)

FIXED = deployment(replicas=2)
SCALED = deployment(scaling={"maxReplicas": 400})


def decided(of: ModelDeployment, *pods: Pod, desired: int = 2, **fields: Any) -> Decided:
    """What a tick decided; the number stays unless `previous` says otherwise."""
    known = {"previous": desired, "grant": Grant(desired, desired), "steps": Steps(), "now": NOW}
    return Decided(deployment=of, pods=pods, desired=desired, **(known | fields))


def compute(of: ModelDeployment, *pods: Pod, **fields: Any) -> ModelDeploymentStatus:
    return status.compute(decided(of, *pods, **fields))


def measured(
    of: ModelDeployment, answers: dict[Pod, PodMetrics], *, now: float = NOW, **fields: Any
) -> Decided:
    """What a tick decided on these answers of Prometheus."""
    assert of.spec is not None
    demand = measure(metrics(answers, at=now), list(answers), now, vllm().rate_window_seconds)
    faces = faces_of(of.spec, demand, len(answers), capacity_of(of.spec), Traffic())
    return decided(of, *answers, demand=demand, faces=faces, now=now, **fields)


class TestFields:
    @pytest.mark.parametrize(
        ("pods", "exist", "serve"),
        [
            ((), 0, 0),
            ((pod(0), loading(1)), 2, 1),
            ((pod(0), draining(1)), 2, 1),
            ((pod(0), failed(1)), 1, 1),
        ],
        ids=["none", "one loads", "one leaves", "one failed"],
    )
    def test_counts(self, pods, exist, serve):
        found = compute(FIXED, *pods, grant=Grant(1, 2))

        assert (found.replicas, found.ready_replicas, found.ready) == (exist, serve, f"{serve}/2")
        assert (found.desired_replicas, found.granted_replicas) == (2, 1)

    @pytest.mark.parametrize(
        ("answers", "shown"),
        [
            ({pod(0): readings(generated_tokens=1234.5), pod(1): readings(generated_tokens=1.0)}, 1240),
            ({pod(0): load(3)}, 0),
            ({pod(0): silent()}, None),
        ],
        ids=["a sum of three digits", "zero is known", "unknown is not zero"],
    )
    def test_tokens_per_second(self, answers, shown):
        assert status.compute(measured(SCALED, answers)).tokens_per_second == shown

    @pytest.mark.parametrize(
        ("accelerator", "capacities"),
        [({"name": "h100", "tokensPerSecond": 5000}, [("h100", 5000)]), ({"name": "h100"}, [])],
        ids=["stated", "not stated"],
    )
    def test_capacity(self, accelerator, capacities):
        found = compute(deployment(accelerators=[accelerator]))

        assert [(c.accelerator, c.tokens_per_second) for c in found.capacity] == capacities
        assert found.accelerator == "h100"


class TestReplicaStates:
    def test_those_that_do_not_serve_come_first_and_no_more_than_there_is_room_for(self):
        serving = [pod(n) for n in range(MAX_REPLICA_STATES + 5)]
        found = compute(FIXED, *serving, loading(99))

        phases = [s.phase for s in found.replica_states]
        assert phases == [ReplicaPhase.LOADING] + [ReplicaPhase.SERVING] * (MAX_REPLICA_STATES - 1)
        assert found.replica_states_omitted == 6

    def test_nothing_is_omitted_from_a_small_fleet(self):
        assert compute(FIXED, *(pod(n) for n in range(MAX_REPLICA_STATES))).replica_states_omitted is None

    @pytest.mark.parametrize(
        ("of", "phase", "since"),
        [
            (pod(0, ready_since=NOW - 50), ReplicaPhase.SERVING, NOW - 50),
            (loading(0, created_at=NOW - 40), ReplicaPhase.LOADING, NOW - 40),
            (draining(0, since=NOW - 20), ReplicaPhase.DRAINING, NOW - 20),
        ],
        ids=["serving", "loading", "draining"],
    )
    def test_phase_and_since_when(self, of, phase, since):
        (state,) = compute(FIXED, of).replica_states

        assert (state.phase, state.since) == (phase, moment(since))


class TestDecisions:
    @pytest.mark.parametrize(
        ("previous", "pods", "from_", "reason"),
        [
            (None, (), 0, "Started"),
            (None, (pod(0), pod(1), draining(2)), 2, "Started"),
            (1, (pod(0),), 1, "ScaledUp"),
            (5, (pod(0),), 5, "ScaledDown"),
            (0, (), 0, "ScaledUp"),
        ],
        ids=["a new fleet", "a fleet whose status was lost", "up", "down", "from zero"],
    )
    def test_a_change_says_from_where_and_why(self, previous, pods, from_, reason):
        scaling = compute(FIXED, *pods, desired=3, previous=previous).scaling
        assert scaling is not None
        decision = scaling.last_decision

        assert decision is not None
        assert (decision.from_, decision.to, decision.reason) == (from_, 3, reason)
        assert decision.limited_by == "replicas"
        assert scaling.history == (decision,)

    def test_what_limited_it_is_the_recommendations_word(self):
        chosen = Recommendation(replicas=3, limited_by="maxReplicas", message="why", memory=Memory())
        scaling = compute(SCALED, desired=3, previous=1, recommendation=chosen).scaling
        assert scaling is not None
        assert scaling.last_decision is not None

        assert (scaling.last_decision.limited_by, scaling.last_decision.message) == ("maxReplicas", "why")

    def test_a_number_that_stays_is_no_decision(self):
        scaling = compute(FIXED, pod(0), pod(1)).scaling
        assert scaling is not None
        assert (scaling.last_decision, scaling.history) == (None, ())

    def test_history_is_bounded_with_the_newest_first(self):
        of = FIXED
        for number in range(1, MAX_HISTORY + 4):
            of = replace(of, status=compute(of, desired=number, previous=number - 1, now=NOW + number))
        scaling = of.status.scaling
        assert scaling is not None

        assert [d.to for d in scaling.history] == list(range(MAX_HISTORY + 3, 3, -1))
        assert scaling.last_decision == scaling.history[0]

    @pytest.mark.parametrize(
        ("of", "mode"),
        [
            (FIXED, "Fixed"),
            (SCALED, "Active"),
            (deployment(scaling={"mode": "Shadow", "maxReplicas": 2}), "Shadow"),
        ],
        ids=["fixed", "active", "shadow"],
    )
    def test_mode(self, of, mode):
        scaling = compute(of).scaling
        assert scaling is not None
        assert scaling.mode == mode

    def test_scaling_that_is_taken_away_takes_the_demand_with_it_and_leaves_the_history(self):
        chosen = Recommendation(replicas=3, limited_by="x", message="", memory=Memory())
        before = status.compute(measured(SCALED, {pod(0): load(9)}, previous=1, recommendation=chosen))
        after = compute(replace(FIXED, status=before), pod(0)).scaling
        assert before.scaling is not None
        assert after is not None

        assert before.scaling.demand
        assert (after.mode, after.demand, after.demand_observed_at) == ("Fixed", (), None)
        assert after.history == before.scaling.history


class TestQuiet:
    """A fleet of one under 10 requests, as published at NOW."""

    @staticmethod
    def at(now: float, answer: PodMetrics, *beside: Pod, **fields: Any) -> tuple[Any, Any]:
        """(published status, what a tick at `now` makes of it)."""
        first = {pod(0): load(10, generated_tokens=500.0)}
        published = status.compute(measured(SCALED, first))
        later = measured(replace(SCALED, status=published), {pod(0): answer}, now=now, **fields)
        return published, status.compute(replace(later, pods=(*later.pods, *beside)))

    @pytest.mark.parametrize(
        ("after", "same"), [(REFRESH_SECONDS - 1, True), (REFRESH_SECONDS, False)], ids=["young", "due"]
    )
    def test_numbers_that_drift_wait_for_the_refresh(self, after, same):
        answer = load(11, at=NOW + after, generated_tokens=600.0)
        before, found = self.at(NOW + after, answer)

        assert (found is before) is same
        assert found.tokens_per_second == (500 if same else 600)

    @pytest.mark.parametrize(("after", "same"), [(REFRESH_SECONDS, True), (100, False)], ids=["young", "due"])
    def test_a_large_fleet_refreshes_more_rarely(self, after, same):
        assert status.refresh_seconds(3000) == 100
        answer = load(11, at=NOW + after, generated_tokens=600.0)
        before, found = self.at(NOW + after, answer, fleet_size=3000)

        assert (found is before) is same

    def test_numbers_that_stand_still_are_never_published_again(self):
        before, found = self.at(NOW + 9000, load(10, at=NOW + 9000, generated_tokens=500.0))

        assert found is before

    @pytest.mark.parametrize(
        ("answer", "beside", "fields"),
        [
            (load(60, at=NOW + 1, generated_tokens=500.0), (), {}),
            (silent(), (), {}),
            (load(10, at=NOW + 1, generated_tokens=500.0), (loading(1),), {}),
            (load(10, at=NOW + 1, generated_tokens=500.0), (), {"desired": 3, "previous": 2}),
            (load(10, at=NOW + 1, generated_tokens=500.0), (), {"metrics_failure": "refused"}),
            (load(10, at=NOW + 1, generated_tokens=500.0), (), {"grant": Grant(1, 2)}),
        ],
        ids=[
            "a signal proposes another number",
            "a signal is no longer fresh",
            "a replica came",
            "a decision was made",
            "a condition turned",
            "another number is granted",
        ],
    )
    def test_what_turned_is_published_at_once(self, answer, beside, fields):
        before, found = self.at(NOW + 1, answer, *beside, **fields)

        assert found != before

    def test_what_is_published_at_once_carries_the_numbers_of_its_moment(self):
        _, found = self.at(NOW + 1, load(60, at=NOW + 1, generated_tokens=700.0))

        assert found.tokens_per_second == 700
        assert found.scaling.demand_observed_at == moment(NOW + 1)


class TestWhatCannotBeActedOn:
    @pytest.mark.parametrize(
        ("errors", "reason"),
        [
            ([FieldError("spec.model", "is missing")], "InvalidSpec"),
            ([FieldError("spec.engine.args[1]", "is Stoker's")], "ReservedArgument"),
            ([FieldError("spec.engine.args", "is Stoker's")], "ReservedArgument"),
            ([FieldError("spec.engine.args[1]", "x"), FieldError("spec.model", "y")], "InvalidSpec"),
        ],
        ids=["a bad field", "a reserved argument", "the arguments together", "both"],
    )
    def test_a_rejected_spec_keeps_the_fleets_numbers(self, errors, reason):
        before = replace(FIXED, generation=2, status=compute(FIXED, pod(0), pod(1)))
        found = status.rejected(before, errors, NOW)
        by_type = {c.type: c for c in found.conditions}

        assert (by_type["Accepted"].status, by_type["Accepted"].reason) == ("False", reason)
        assert by_type["Ready"].reason == reason
        assert errors[0].path in by_type["Accepted"].message
        assert (found.observed_generation, found.ready_replicas) == (2, 2)

    def test_a_bug_is_unknown_and_keeps_the_rest(self):
        before = replace(FIXED, status=compute(FIXED, pod(0), pod(1)))
        found = status.failed(before, Reason.INTERNAL_ERROR, "ValueError: x", NOW)

        assert found.conditions[:-1] == before.status.conditions[:-1]
        ready = found.conditions[-1]
        assert (ready.type, ready.status, ready.reason) == ("Ready", "Unknown", "InternalError")


def said(kind: str, value: str, reason: str, message: str = "m") -> Condition:
    return Condition(
        type=kind, status=value, reason=reason, message=message, last_transition_time=moment(NOW)
    )


class TestEvents:
    @pytest.mark.parametrize(
        ("before", "after", "events"),
        [
            (None, ("Accepted", "True", "Accepted"), [("Normal", "Accepted")]),
            (None, ("Ready", "False", "Starting"), [("Normal", "Starting")]),
            (None, ("Ready", "False", "CrashLoop"), [("Warning", "CrashLoop")]),
            (None, ("Progressing", "True", "Scaling"), []),
            (("Ready", "True", "Serving"), ("Ready", "True", "Serving"), []),
            (("Ready", "True", "Serving"), ("Ready", "False", "CrashLoop"), [("Warning", "CrashLoop")]),
            (("Ready", "False", "Starting"), ("Ready", "False", "CrashLoop"), [("Warning", "CrashLoop")]),
            (("Ready", "False", "CrashLoop"), ("Ready", "True", "Serving"), [("Normal", "Serving")]),
            (
                ("Progressing", "True", "Scaling"),
                ("Progressing", "False", "Complete"),
                [("Normal", "Complete")],
            ),
            (
                ("ScalingActive", "True", "MetricsFresh"),
                ("ScalingActive", "Unknown", "WaitingForMetrics"),
                [("Normal", "WaitingForMetrics")],
            ),
            (
                ("Ready", "True", "Serving"),
                ("Ready", "Unknown", "InternalError"),
                [("Warning", "InternalError")],
            ),
        ],
        ids=[
            "accepted at first sight",
            "starting at first sight",
            "broken at first sight",
            "other conditions say nothing at first sight",
            "nothing changed",
            "it broke",
            "the reason changed",
            "it healed",
            "a calm False",
            "unknown is no alarm",
            "a bug is",
        ],
    )
    def test_a_condition_that_turned_is_told_once(self, before, after, events):
        old = ModelDeploymentStatus(conditions=(said(*before),) if before else ())
        new = ModelDeploymentStatus(conditions=(said(*after, message="other words"),))

        assert [(e.type, e.reason) for e in status.transitions(old, new)] == events
        assert status.transitions(new, new) == ()

    def test_a_decision_is_told_once_with_both_numbers(self):
        before = compute(FIXED, pod(0), pod(1))
        after = compute(replace(FIXED, status=before), pod(0), pod(1), desired=5, previous=2)

        (event,) = [e for e in status.transitions(before, after) if e.action == "Scale"]
        assert (event.type, event.reason) == ("Normal", "ScaledUp")
        assert event.message.startswith("2 → 5 replicas")
        assert status.transitions(after, after) == ()
