"""What is offered to a fleet: served work, what comes on top, and queues that keep their replica busy."""

from __future__ import annotations

import pytest

from stoker.api.v1alpha1 import CapacitySource
from stoker.core.demand import Demand, measure
from stoker.core.learning import ReplicaCapacity
from stoker.core.observed import Pod
from stoker.core.offered import BACKLOG_SECONDS, remembered, requests, work
from stoker.core.readings import Missing, PodMetrics
from stoker.core.traffic import InFlight, Traffic
from tests.factories import NOW, load, metrics, pod, silent

CAPACITY = ReplicaCapacity(1000.0, 50.0, 0.25, CapacitySource.LEARNED, 0.9, 25)
REQUESTS = Traffic(
    in_flight=(InFlight(NOW - 20, 40.0, 0.0),), work=1000.0, requests=10.0, stayed=60.0, left=10.0
)
"""20 s ago 40 ran and none waited; a request is 100 weighted tokens and stays for 6 s."""


def demand(*answers: PodMetrics) -> Demand:
    pods: dict[Pod, PodMetrics] = {pod(n): answer for n, answer in enumerate(answers)}
    return measure(metrics(pods), tuple(pods), NOW, 60.0)


class TestWork:
    def test_served_work_is_weighted_as_the_capacity_is(self):
        assert (
            work(demand(load(generated_tokens=100.0, prompt_tokens=40.0)), Traffic(), CAPACITY).served == 110
        )

    def test_requests_that_came_on_top_count_before_their_tokens_do(self):
        found = work(demand(load(80, generated_tokens=400.0)), REQUESTS, CAPACITY)

        # 2 requests/s more than finished, each half done in the mean
        assert (found.served, found.unserved) == (400.0, pytest.approx(100.0))

    def test_a_queue_that_grows_is_arriving_work_and_one_to_be_worked_off(self):
        found = work(demand(load(40, waiting=60, generated_tokens=400.0)), REQUESTS, CAPACITY)

        assert found.unserved == pytest.approx(3 * 100 + 60 * 100 / BACKLOG_SECONDS)

    def test_a_queue_keeps_its_replica_busy_and_no_other(self):
        before = Traffic(in_flight=(InFlight(NOW - 20, 40.0, 9000.0),), work=1000.0, requests=10.0)

        found = work(demand(load(40, waiting=9000), load()), before, CAPACITY)

        assert found.unserved == CAPACITY.tokens_per_second

    def test_while_a_queue_is_worked_off_that_is_what_is_served(self):
        before = Traffic(in_flight=(InFlight(NOW - 20, 40.0, 9200.0),), work=1000.0, requests=10.0)

        found = work(demand(load(40, waiting=9000, generated_tokens=1000.0)), before, CAPACITY)

        assert found.unserved == 0.0

    def test_fewer_requests_than_before_take_nothing_from_what_is_served(self):
        assert work(demand(load(0, generated_tokens=400.0)), REQUESTS, CAPACITY).total == 400.0

    @pytest.mark.parametrize(
        "traffic", [Traffic(), Traffic(in_flight=REQUESTS.in_flight)], ids=["new", "no size"]
    )
    def test_requests_of_unknown_size_add_nothing(self, traffic):
        assert work(demand(load(90, waiting=900, generated_tokens=100.0)), traffic, CAPACITY).unserved == 0.0

    def test_an_incomplete_count_is_no_growth(self):
        found = work(demand(load(90, generated_tokens=100.0), silent()), REQUESTS, CAPACITY)

        assert found.unserved == 0.0


class TestRequests:
    def test_they_are_the_running_and_the_waiting(self):
        assert requests(demand(load(30, waiting=11)), Traffic(), 50.0) == 41

    def test_a_queue_counts_as_one_replica_at_most(self):
        assert requests(demand(load(40, waiting=9000), load(30)), Traffic(), 50.0) == 40 + 50 + 30

    def test_a_batch_that_is_too_large_counts_as_far_as_it_is_told(self):
        assert requests(demand(load(256, waiting=9), load(30)), Traffic(), 50.0, most=75.0) == 75 + 30

    def test_what_comes_on_top_will_be_in_flight_for_as_long_as_a_request_stays(self):
        found = requests(demand(load(40, waiting=100)), REQUESTS, 50.0)

        assert found == pytest.approx(40 + 50 + 6 * 100 / 20)

    def test_a_queue_that_shrinks_takes_nothing_away(self):
        assert requests(demand(load(10)), REQUESTS, 50.0) == 10


class TestRemembered:
    def test_complete_readings_are(self):
        found = remembered(demand(load(30, waiting=2, requests=5.0)), Traffic(), CAPACITY, NOW)

        assert found.in_flight == (InFlight(NOW, 30.0, 2.0),)

    @pytest.mark.parametrize(
        "answer", [silent(), load(waiting=Missing("no series"))], ids=["a silent replica", "an unknown queue"]
    )
    def test_incomplete_ones_are_not(self, answer):
        assert remembered(demand(load(30), answer), REQUESTS, CAPACITY, NOW) is REQUESTS

    def test_rates_that_are_not_known_leave_the_requests_in_flight(self):
        answer = load(30, requests=Missing("no series"), generated_tokens=Missing("no series"))

        found = remembered(demand(answer), Traffic(), CAPACITY, NOW)

        assert found.last is not None
        assert (found.last.finished, found.last.work) == (None, None)

    def test_an_engine_without_a_queue_has_none_waiting(self):
        answered = PodMetrics({s: r for s, r in load(3).readings.items() if s != "waiting"})

        assert remembered(demand(answered), Traffic(), CAPACITY, NOW).in_flight == (InFlight(NOW, 3.0, 0.0),)
