"""Faces: what each target asks for, and when its answer may shrink a fleet."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest

from stoker.api.v1alpha1 import Freshness
from stoker.core.demand import measure
from stoker.core.faces import DEFAULT_CONCURRENT_REQUESTS, Face, faces_of, needed
from stoker.core.observed import Pod
from stoker.core.readings import Missing, PodMetrics
from tests.factories import NOW, deployment, load, loading, metrics, pod, readings, silent

NO = Missing("no series")


def faces(
    pods: dict[Pod, PodMetrics], *, current: int = 2, capacity: int | None = None, **scaling: Any
) -> tuple[Face, ...]:
    accelerator = {"tokensPerSecond": capacity} if capacity else {}
    spec = deployment(scaling={"maxReplicas": 9, **scaling}, accelerators=[accelerator]).spec
    assert spec is not None
    return faces_of(spec, measure(metrics(pods), tuple(pods), NOW, 60.0), current)


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

    def test_without_targets_the_default_counts_requests_in_flight(self):
        found = face({pod(0): load(DEFAULT_CONCURRENT_REQUESTS + 1)})

        assert (found.name, found.replicas) == ("concurrentRequests (default)", 2)

    def test_the_default_steps_back_before_a_stated_target(self):
        assert [f.name for f in faces({pod(0): load()}, targets={"requestsPerSecond": 1})] == [
            "requestsPerSecond"
        ]

    def test_every_stated_target_is_a_face(self):
        targets = {
            "generatedTokensPerSecond": 10,
            "requestsPerSecond": 1,
            "concurrentRequests": 5,
            "timeToFirstToken": "1s",
        }

        names = [f.name for f in faces({pod(0): load()}, capacity=100, targets=targets)]

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


class TestUtilization:
    def test_prompt_tokens_weigh_three_tenths(self):
        found = face({pod(0): load(generated_tokens=100.0, prompt_tokens=200.0)}, capacity=100)

        assert (found.value, found.target, found.replicas) == (160.0, 80.0, 2)

    def test_the_stated_share_of_the_capacity_is_the_target(self):
        found = face({pod(0): load(generated_tokens=100.0)}, capacity=100, targets={"utilization": 0.5})

        assert found.target == 50.0

    def test_queued_work_comes_on_top(self):
        saturated = load(100, generated_tokens=1000.0, requests=5.0, waiting=400)

        found = face({pod(0): saturated}, capacity=1000)

        # 60,000 tokens went to 300 finished and 100 running requests: 150 each; 400 of them in a minute
        assert found.value == pytest.approx(1000.0 + 400 * 150 / 60)

    def test_the_first_requests_after_a_quiet_time_are_not_taken_for_giants(self):
        starting = load(80, generated_tokens=2000.0, requests=1 / 60, waiting=10)

        found = face({pod(0): starting}, capacity=2000)

        assert found.value is not None
        assert found.value < 2300

    def test_requests_of_unknown_size_add_nothing(self):
        found = face({pod(0): load(generated_tokens=100.0, waiting=50)}, capacity=100)

        assert found.value == 100.0

    def test_a_queue_that_cannot_be_read_keeps_the_face_from_shrinking_the_fleet(self):
        found = face({pod(0): load(10, generated_tokens=100.0, requests=1.0, waiting=NO)}, capacity=100)

        assert not found.complete
        assert not found.blind
        assert found.replicas == 2

    def test_sizes_are_not_made_of_tokens_from_more_replicas_than_requests(self):
        known, unknown = (
            load(10, generated_tokens=100.0, requests=1.0, waiting=9),
            load(10, generated_tokens=100.0, requests=NO),
        )

        assert face({pod(0): known, pod(1): unknown}, capacity=100).value == 200.0

    def test_an_engine_without_a_queue_is_complete(self):
        found = face({pod(0): readings(running=1.0, generated_tokens=80.0)}, capacity=100)

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
