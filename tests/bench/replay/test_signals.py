"""What KEDA makes of Prometheus' answers."""

import pytest

from bench.replay.faults import Fault, FaultKind
from bench.replay.policies import signals
from bench.replay.policies.hpa import MetricError
from bench.replay.prometheus import Prometheus
from tests.bench.replay.scene import exposed, pod, view


def scraped(*, faults=(), pods=2):
    prometheus = Prometheus(faults)
    for at in (0.0, 15.0, 30.0, 45.0, 60.0):
        for n in range(pods):
            row = exposed(
                generation_tokens_total=100 * at,
                prompt_tokens_total=200 * at,
                num_requests_running=3,
                num_requests_waiting=2,
            )
            prometheus.scrape(f"p{n}", n, at, row)
    return view(60.0, [pod(n) for n in range(pods)], prometheus=prometheus)


def test_totals_are_sums_over_pods():
    seen = scraped()
    assert signals.in_flight()(seen) == 10.0
    assert signals.waiting()(seen) == 4.0
    assert signals.generated(empty_is_zero=True)(seen) == pytest.approx(200.0)
    assert signals.weighted(empty_is_zero=True)(seen) == pytest.approx(200.0 + 0.3 * 400.0)


def test_an_empty_answer_is_zero_for_keda_and_an_error_otherwise():
    nothing = view(0.0, [pod(0)])
    assert signals.in_flight()(nothing) == 0.0
    with pytest.raises(MetricError):
        signals.generated(empty_is_zero=False)(nothing)


def test_a_prometheus_that_is_down_is_an_error():
    seen = scraped(faults=[Fault("down", FaultKind.PROMETHEUS, 50.0, 70.0)])
    for metric in (signals.in_flight(), signals.one_element(signals.gauge("num_requests_waiting"))):
        with pytest.raises(MetricError):
            metric(seen)


def test_a_query_that_nobody_aggregates_works_for_one_pod_alone():
    metric = signals.one_element(signals.gauge("num_requests_waiting"))
    assert metric(view(0.0, [])) == 0.0
    assert metric(scraped(pods=1)) == 2.0
    with pytest.raises(MetricError, match="multiple elements"):
        metric(scraped(pods=2))


def test_the_fallback_follows_more_errors_in_a_row_than_allowed():
    good, bad = scraped(pods=1), scraped(pods=2)
    metric = signals.WithFallback(
        signals.one_element(signals.gauge("num_requests_waiting")), target=5.0, replicas=2, failures=3
    )
    for _ in range(3):
        with pytest.raises(MetricError):
            metric(bad)
    assert metric(bad) == 10.0
    assert metric(good) == 2.0
    with pytest.raises(MetricError):
        metric(bad)
