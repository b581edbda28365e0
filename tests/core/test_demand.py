"""Totals: who answered, what is a lower bound, and the latency quantile."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.v1alpha1 import Freshness
from stoker.core.demand import ANSWERS_LAST, WARM_UP_SECONDS, Demand, Total, histogram_quantile, measure
from stoker.core.observed import Pod
from stoker.core.readings import Fresh, Metrics, Missing, PodMetrics, Signal, Stale
from tests.factories import NOW, deleting, draining, failed, load, loading, metrics, pod, readings, silent

WINDOW = 60.0
GRACE = WINDOW + WARM_UP_SECONDS


def measured(pods: dict[Pod, PodMetrics], *, now: float = NOW, at: float = NOW) -> Demand:
    return measure(metrics(pods, at=at), tuple(pods), now, WINDOW)


def total(pods: dict[Pod, PodMetrics], signal: Signal = Signal.RUNNING, **times: float) -> Total:
    return measured(pods, **times).totals[signal]


class TestCompleteness:
    def test_when_every_serving_replica_answered_the_total_is_complete(self):
        found = total({pod(0): load(3), pod(1): load(4)})

        assert found.complete
        assert found.at_least == 7

    @pytest.mark.parametrize(
        "answer", [silent(), readings(running=Stale(9.0, NOW - 90))], ids=["missing", "stale"]
    )
    def test_one_replica_that_did_not_answer_makes_it_a_lower_bound(self, answer):
        found = total({pod(0): load(3), pod(1): answer})

        assert not found.complete
        assert (found.at_least, found.covered, found.expected, found.serving) == (3, 1, 2, 2)

    def test_a_replica_that_nobody_asked_for_is_as_good_as_silent(self):
        found = measure(metrics({pod(0): load(3)}), [pod(0), pod(1)], NOW, WINDOW).totals[Signal.RUNNING]

        assert not found.complete

    def test_zero_from_everybody_is_complete(self):
        assert total({pod(0): load(0)}).reading == Fresh(0.0, NOW)

    def test_nothing_known_of_anybody_is_blind(self):
        assert total({pod(0): silent(), pod(1): silent()}).blind

    def test_without_serving_replicas_nothing_is_complete(self):
        found = total({loading(): load(0)})

        assert not found.complete
        assert found.blind

    def test_the_worst_reading_names_its_pod(self):
        found = total({pod(0): load(3), pod(1): silent("no series x")})

        assert found.reading == Missing(f"{pod(1).key.name}: no series x")

    def test_missing_outweighs_stale(self):
        found = total({pod(0): readings(running=Stale(1.0, NOW - 90)), pod(1): silent()})

        assert isinstance(found.reading, Missing)

    def test_an_unready_replica_is_not_waited_for(self):
        assert total({pod(0): load(3), loading(1): silent()}).complete


class TestWhoCounts:
    def test_the_requests_of_a_draining_replica_count(self):
        assert total({pod(0): load(3), draining(1): load(5)}).at_least == 8

    def test_a_draining_replica_without_an_answer_keeps_nothing_from_being_complete(self):
        assert total({pod(0): load(3), draining(1): silent()}).complete

    def test_what_an_unready_replica_says_counts(self):
        assert total({pod(0): load(3), loading(1): load(2)}).at_least == 5

    @pytest.mark.parametrize("gone", [deleting(1), failed(1)], ids=["being deleted", "failed"])
    def test_what_is_gone_counts_no_more(self, gone):
        assert total({pod(0): load(3), gone: load(5)}).at_least == 3


class TestWarming:
    @pytest.mark.parametrize(
        ("age", "expected"), [(GRACE - 1, 1), (GRACE, 2)], ids=["just ready", "ready for long"]
    )
    def test_a_replica_that_just_became_ready_is_not_expected_to_answer(self, age, expected):
        found = total({pod(0): load(3), pod(1, ready_since=NOW - age): silent()})

        assert found.expected == expected

    def test_while_it_warms_up_the_total_is_incomplete_nevertheless(self):
        found = total({pod(0): load(3), pod(1, ready_since=NOW - 5): silent()})

        assert not found.complete
        assert found.freshness is Freshness.FRESH

    def test_a_warm_replica_that_answers_is_expected_to(self):
        assert total({pod(0, ready_since=NOW - 5): load(3)}).expected == 1

    def test_a_rate_whose_window_still_fills_is_a_lower_bound(self):
        filling = readings(generated_tokens=Stale(50.0, NOW - 3))

        found = total(
            {pod(0): load(generated_tokens=100.0), pod(1, ready_since=NOW - 5): filling},
            Signal.GENERATED_TOKENS,
            at=NOW - 3,
        )

        assert found.at_least == 150

    def test_a_rate_of_a_pod_that_is_scraped_no_more_is_no_bound(self):
        old = readings(generated_tokens=Stale(50.0, NOW - 90))

        assert (
            total({pod(0): load(generated_tokens=100.0), pod(1): old}, Signal.GENERATED_TOKENS).at_least
            == 100
        )

    def test_replicas_settle_when_they_have_served_for_the_whole_rate_window(self):
        found = measured({pod(0): load(), pod(1, ready_since=NOW - WINDOW + 1): load()})

        assert (found.serving, found.settled) == (2, 1)


class TestAge:
    @pytest.mark.parametrize("away", [ANSWERS_LAST + 1, -ANSWERS_LAST - 1], ids=["long ago", "in the future"])
    def test_answers_of_another_time_are_missing(self, away):
        found = total({pod(0): load(3, at=NOW - away)}, at=NOW - away)

        assert found.blind
        assert isinstance(found.reading, Missing)

    def test_answers_of_the_last_tick_are_fresh(self):
        assert total({pod(0): load(3, at=NOW - 5)}, at=NOW - 5).complete

    def test_latencies_of_long_ago_are_unknown(self):
        old = PodMetrics({}, ((1.0, 1.0), (math.inf, 1.0)))

        found = measured({pod(0): old}, at=NOW - 61).first_token

        assert (found.p95, found.covered, found.expected) == (None, 0, 1)
        assert "asked last 61 s ago" in found.why


class TestFailure:
    def test_without_any_answer_there_are_no_totals(self):
        assert measure(Metrics(at=NOW, failure="away"), [pod(0)], NOW, WINDOW).totals == {}


BOUNDS = (0.001, 0.005, 0.1, 1.0, 10.0, math.inf)


def promql_quantile(q: float, buckets: list[tuple[float, float]]) -> float:
    """bucketQuantile of Prometheus' promql/quantile.go, for sorted classic buckets that end in +Inf."""
    observations = buckets[-1][1]
    rank = q * observations
    b = next((i for i in range(len(buckets) - 1) if buckets[i][1] >= rank), len(buckets) - 1)
    if b == len(buckets) - 1:
        return buckets[-2][0]
    if b == 0 and buckets[0][0] <= 0:
        return buckets[0][0]
    start, end, count = 0.0, buckets[b][0], buckets[b][1]
    if b > 0:
        start = buckets[b - 1][0]
        count -= buckets[b - 1][1]
        rank -= buckets[b - 1][1]
    return start + (end - start) * (rank / count)


class TestQuantile:
    @given(
        counts=st.lists(st.integers(0, 50), min_size=len(BOUNDS), max_size=len(BOUNDS)),
        q=st.floats(0.01, 0.99),
    )
    def test_it_is_what_prometheus_computes(self, counts, q):
        cumulative = [(bound, float(sum(counts[: i + 1]))) for i, bound in enumerate(BOUNDS)]
        if cumulative[-1][1] == 0:
            assert histogram_quantile(q, cumulative) is None
        else:
            assert histogram_quantile(q, cumulative) == pytest.approx(promql_quantile(q, cumulative))

    @pytest.mark.parametrize(
        "buckets",
        [[], [(math.inf, 5.0)], [(1.0, 5.0), (2.0, 5.0)], [(1.0, 0.0), (math.inf, 0.0)]],
        ids=["nothing", "one bucket", "no +Inf", "no observations"],
    )
    def test_without_a_histogram_there_is_no_quantile(self, buckets):
        assert histogram_quantile(0.95, buckets) is None

    def test_the_histograms_of_all_pods_are_one(self):
        fast = PodMetrics({}, ((1.0, 90.0), (10.0, 90.0), (math.inf, 90.0)))
        slow = PodMetrics({}, ((1.0, 0.0), (10.0, 10.0), (math.inf, 10.0)))

        found = measured({pod(0): fast, pod(1): slow}).first_token

        assert found.p95 == pytest.approx(5.5)
        assert (found.covered, found.expected, found.why) == (2, 2, "")

    def test_a_replica_without_a_histogram_is_named(self):
        fast = PodMetrics({}, ((1.0, 90.0), (10.0, 90.0), (math.inf, 90.0)))

        found = measured({pod(0): fast, pod(1): PodMetrics({})}).first_token

        assert (found.p95, found.covered, found.expected) == (pytest.approx(0.95), 1, 2)
        assert pod(1).key.name in found.why

    def test_a_failed_query_is_told_apart_from_no_requests(self):
        nothing = PodMetrics({}, ((1.0, 0.0), (math.inf, 0.0)))

        assert measured({pod(0): nothing}).first_token.why == ""
        failed = Metrics(at=NOW, pods={pod(0).key: PodMetrics({})}, first_token_failure="time-out")
        assert measure(failed, [pod(0)], NOW, WINDOW).first_token.why == "Prometheus: time-out"
