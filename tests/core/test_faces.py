"""Faces: what each target asks for, and when its answer may shrink a fleet."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from stoker.api.v1alpha1 import CapacitySource, Freshness
from stoker.core.demand import measure
from stoker.core.faces import Face, faces_of, needed
from stoker.core.learning import ReplicaCapacity
from stoker.core.observed import Pod
from stoker.core.readings import Missing, PodMetrics
from stoker.core.traffic import InFlight, Seen, Traffic
from tests.factories import NOW, deployment, load, loading, metrics, pod, readings, silent

NO = Missing("no series")


STEADY = Traffic(squares=0.0, deviations=math.inf)
"""A traffic that was never seen to vary: no head-room, so that a test sees the rest."""

PRIOR = ReplicaCapacity(2000.0, 40.0, 0.3, CapacitySource.PRIOR, 0.0, 0)
STATED = ReplicaCapacity(100.0, 40.0, 0.3, CapacitySource.STATED, 1.0, 0)
LEARNED = ReplicaCapacity(100.0, 50.0, 0.25, CapacitySource.LEARNED, 0.9, 25)


def faces(
    pods: dict[Pod, PodMetrics],
    *,
    current: int = 2,
    capacity: ReplicaCapacity = PRIOR,
    traffic: Traffic = STEADY,
    **scaling: Any,
) -> tuple[Face, ...]:
    spec = deployment(scaling={"maxReplicas": 9, **scaling}).spec
    assert spec is not None
    return faces_of(spec, measure(metrics(pods), tuple(pods), NOW, 60.0), current, capacity, traffic)


def face(pods: dict[Pod, PodMetrics], **fields: Any) -> Face:
    (only,) = faces(pods, **fields)
    return only


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "signal", "unit"),
        [
            ("generatedTokensPerSecond", "generated_tokens", "tokens/s"),
            ("promptTokensPerSecond", "prompt_tokens", "tokens/s"),
            ("requestsPerSecond", "requests", "requests/s"),
        ],
    )
    def test_a_rate_is_divided_by_its_target(self, target, signal, unit):
        found = face({pod(0): load(**{signal: 70.0}), pod(1): load(**{signal: 31.0})}, targets={target: 50})

        assert (found.name, found.unit, found.value, found.replicas) == (target, unit, 101.0, 3)

    def test_requests_in_flight_are_the_running_and_the_waiting(self):
        found = face({pod(0): load(30, waiting=11)}, targets={"concurrentRequests": 20})

        assert (found.value, found.replicas) == (41, 3)

    def test_a_guess_counts_where_there_is_nothing_better(self):
        found = face({pod(0): load(41)})

        assert (found.name, found.target, found.replicas) == ("concurrentRequests (default)", 40, 2)

    def test_a_guess_never_counts_beside_a_stated_target(self):
        assert [f.name for f in faces({pod(0): load()}, targets={"requestsPerSecond": 1})] == [
            "requestsPerSecond"
        ]

    def test_what_was_learned_counts_beside_a_stated_target(self):
        found = faces({pod(0): load(41)}, capacity=LEARNED, targets={"requestsPerSecond": 1})

        assert [f.name for f in found] == ["utilization", "requestsPerSecond", "concurrentRequests (learned)"]
        assert [f.target for f in found] == [80.0, 1.0, 40.0]
        assert "0.8 of 50 learned" in found[-1].message

    def test_a_replica_that_is_overrun_counts_as_half_a_one_more_where_that_is_learned(self):
        overrun = {pod(0): load(250), pod(1): load(20)}

        learned = faces(overrun, capacity=LEARNED)[-1]
        stated = faces(overrun, capacity=LEARNED, targets={"concurrentRequests": 40})[-1]

        assert (learned.value, learned.replicas) == (1.5 * 40 + 20, 2)
        assert (stated.value, stated.replicas) == (270, 7)

    def test_a_stated_number_of_requests_stands_for_the_learned_one(self):
        found = faces({pod(0): load(41)}, capacity=LEARNED, targets={"concurrentRequests": 10})

        assert (found[-1].name, found[-1].target, found[-1].replicas) == ("concurrentRequests", 10, 5)

    def test_a_stated_capacity_does_not_switch_requests_in_flight_off(self):
        found = faces({pod(0): load(41)}, capacity=replace(STATED, samples=25))

        assert [f.name for f in found] == ["utilization", "concurrentRequests (learned)"]

    def test_every_stated_target_is_a_face(self):
        targets = {
            "generatedTokensPerSecond": 10,
            "requestsPerSecond": 1,
            "concurrentRequests": 5,
            "timeToFirstToken": "1s",
        }

        names = [f.name for f in faces({pod(0): load()}, capacity=STATED, targets=targets)]

        assert names == ["utilization", *targets]

    def test_a_load_that_just_fits_needs_no_further_replica(self):
        assert needed(0.1 + 0.2, 0.1) == 3

    def test_no_load_needs_no_replica(self):
        assert needed(0.0, 40) == 0


class TestCompleteness:
    def test_a_partial_total_is_said_to_be_a_lower_bound(self):
        found = face({pod(0): load(90), pod(1): silent()})

        assert not found.complete
        assert found.replicas == 3
        assert found.message.endswith("at least: 1 of 2 replicas answered")

    def test_of_two_signals_a_blind_one_makes_the_face_blind(self):
        found = face({pod(0): load(90, waiting=NO)})

        assert found.blind
        assert found.value is None

    def test_a_metric_that_the_engine_has_not_is_named(self):
        found = face({pod(0): readings(running=1.0)}, targets={"requestsPerSecond": 1})

        assert found.blind
        assert "the engine has no such metric" in found.message

    def test_without_serving_replicas_the_face_is_blind(self):
        assert face({loading(): load()}).blind

    def test_an_engine_that_never_queues_is_complete_without_a_queue(self):
        assert face({pod(0): readings(running=1.0)}).complete

    def test_coverage_is_that_of_the_worst_signal(self):
        found = face({pod(0): load(1), pod(1): load(1, waiting=NO)})

        assert (found.covered, found.expected, found.freshness) == (1, 2, Freshness.MISSING)


class TestUnasked:
    """Faces that the spec has no number for."""

    @pytest.mark.parametrize("missing", ["generated_tokens", "running"])
    def test_one_that_is_blind_holds_nothing_up_and_lets_nothing_go(self, missing):
        answered = load(**{"running": 50.0, "requests": 5.0, missing: NO})

        found = faces({pod(0): answered}, capacity=LEARNED, targets={"requestsPerSecond": 1})

        assert not any(f.blind for f in found)
        assert not all(f.complete for f in found)
        assert max(f.replicas for f in found) == 5

    def test_of_a_stated_capacity_it_is_blind(self):
        found = faces({pod(0): load(generated_tokens=NO)}, capacity=STATED)

        assert found[0].blind


class TestWork:
    def test_prompt_tokens_weigh_what_was_learned(self):
        answered = load(generated_tokens=100.0, prompt_tokens=200.0)

        found = faces({pod(0): answered}, capacity=LEARNED)[0]

        assert (found.name, found.value, found.target, found.replicas) == ("utilization", 150.0, 80.0, 2)

    def test_the_message_says_where_the_capacity_comes_from(self):
        found = face({pod(0): load(generated_tokens=100.0)}, capacity=STATED)

        assert found.message == "100 weighted tokens/s at 80 per replica (0.8 of 100 stated) needs 2"

    def test_the_stated_share_of_the_capacity_is_the_target(self):
        found = face({pod(0): load(generated_tokens=100.0)}, capacity=STATED, targets={"utilization": 0.5})

        assert found.target == 50.0

    def test_head_room_for_fluctuations_comes_on_top(self):
        varied = Traffic(squares=1e30, deviations=1e30)  # 1 weighted token/s for each

        found = face({pod(0): load(generated_tokens=144.0)}, capacity=STATED, traffic=varied)

        assert (found.value, found.headroom) == (144.0, pytest.approx(36.0))
        assert found.load == pytest.approx(180.0 / 80.0)
        assert found.replicas == 3
        assert "and 36 of head-room" in found.message

    def test_without_load_there_is_nothing_to_keep_room_for(self):
        found = face({pod(0): load()}, capacity=STATED, traffic=Traffic())

        assert (found.replicas, found.headroom) == (0, 0.0)

    def test_what_is_not_served_yet_counts_and_is_said(self):
        before = Seen(NOW - 20, running=0.0, waiting=0.0, finished=1.0, work=10.0)
        traffic = STEADY._replace(
            last=before, in_flight=(InFlight(NOW - 20, 0.0, 0.0),), work=10.0, requests=1.0
        )

        found = face({pod(0): load(0, waiting=20, generated_tokens=10.0)}, capacity=STATED, traffic=traffic)

        # 20 requests of 10 tokens came in 20 s, and are to be done within a minute
        assert found.value == pytest.approx(10.0 + 10.0 + 20 * 10 / 60)
        assert "13.3 not served yet" in found.message

    def test_a_queue_that_cannot_be_read_keeps_the_face_from_shrinking_the_fleet(self):
        found = face({pod(0): load(10, generated_tokens=100.0, requests=1.0, waiting=NO)}, capacity=STATED)

        assert not found.complete
        assert not found.blind
        assert found.replicas == 2

    def test_an_engine_without_a_queue_is_complete(self):
        found = face({pod(0): readings(running=1.0, generated_tokens=80.0)}, capacity=STATED)

        assert found.complete


class TestOccupied:
    TARGETS: ClassVar = {"requestsPerSecond": 1}

    def test_a_fleet_that_may_shrink_to_nothing_keeps_a_replica_for_requests_in_flight(self):
        *_, found = faces({pod(0): load(1)}, minReplicas=0, targets=self.TARGETS)

        assert (found.name, found.replicas) == ("requestsInFlight", 1)

    def test_many_requests_in_flight_still_are_one_replica_and_no_burst(self):
        *_, found = faces({pod(0): load(900)}, minReplicas=0, targets=self.TARGETS)

        assert found.replicas == 1
        assert found.load <= 1

    def test_without_requests_in_flight_it_asks_for_none(self):
        *_, found = faces({pod(0): load(0)}, minReplicas=0, targets=self.TARGETS)

        assert (found.replicas, found.complete) == (0, True)

    @pytest.mark.parametrize(
        "fields",
        [
            {"minReplicas": 1, "targets": TARGETS},
            {"minReplicas": 0},
            {"minReplicas": 0, "targets": {"concurrentRequests": 5}},
        ],
        ids=["a floor", "the default face", "a target for requests in flight"],
    )
    def test_it_is_not_needed_beside(self, fields):
        assert len(faces({pod(0): load(1)}, **fields)) == 1


class TestFirstToken:
    TARGETS: ClassVar = {"timeToFirstToken": "2s"}
    SLOW = PodMetrics(load().readings, ((1.0, 0.0), (10.0, 10.0), (math.inf, 10.0)))
    FAST = PodMetrics(load().readings, ((1.0, 10.0), (10.0, 10.0), (math.inf, 10.0)))

    def guard(self, pods: dict[Pod, PodMetrics], current: int = 2) -> Face:
        return faces(pods, current=current, targets=self.TARGETS)[-1]

    def test_within_the_objective_it_asks_for_nothing(self):
        found = self.guard({pod(0): self.FAST, pod(1): self.FAST})

        assert (found.replicas, found.complete, found.load) == (0, True, 0.0)

    @pytest.mark.parametrize(("current", "asks"), [(2, 3), (10, 11), (11, 13), (30, 33)])
    def test_above_the_objective_it_asks_for_a_tenth_more(self, current, asks):
        assert self.guard({pod(n): self.SLOW for n in range(current)}, current).replicas == asks

    def test_it_does_not_ask_again_while_replicas_load(self):
        assert self.guard({pod(0): self.SLOW, loading(1): silent()}, current=2).replicas == 2

    def test_it_does_not_ask_again_while_the_window_still_shows_the_time_before(self):
        assert (
            self.guard({pod(0): self.SLOW, pod(1, ready_since=NOW - 59): self.FAST}, current=2).replicas == 2
        )

    def test_unknown_latencies_add_nothing_hold_nothing_up_and_remove_nothing(self):
        found = self.guard({pod(0): load(), pod(1): load()})

        assert (found.replicas, found.complete, found.blind) == (0, False, False)
        assert (found.freshness, found.covered, found.expected) == (Freshness.MISSING, 0, 2)

    def test_without_requests_the_objective_is_met(self):
        idle = PodMetrics(load().readings, ((1.0, 0.0), (math.inf, 0.0)))

        found = self.guard({pod(0): idle, pod(1): idle})

        assert (found.value, found.replicas, found.complete) == (None, 0, True)
        assert (found.freshness, found.covered) == (Freshness.FRESH, 2)
