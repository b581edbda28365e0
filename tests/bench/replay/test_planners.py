"""WVA-like and Dynamo-like, rule by rule."""

import pytest

from bench.replay.faults import Fault, FaultKind
from bench.replay.policies.dynamo import DynamoLike, weighted_rate
from bench.replay.policies.llmd import WvaLike, wva
from bench.replay.prometheus import Prometheus
from bench.replay.view import Gateway
from testbed.replica import Request
from tests.bench.replay.scene import exposed, pod, view


@pytest.mark.parametrize(
    ("replicas", "ready", "demand", "expected"),
    [
        (2, 2, 1.36, 2),  # 1.36 / 0.85 is what two replicas at 0.8 supply
        (2, 2, 1.37, 3),
        (3, 2, 1.37, 3),  # the pending one is supply
        (4, 4, 1.10, 2),  # 1.10 / 0.70 = 1.57: two of four are spare
        (4, 3, 1.10, 4),  # not while one is pending
        (2, 2, 6.8, 10),
    ],
)
def test_wva_scales_up_and_down_at_different_shares(replicas, ready, demand, expected):
    assert wva(replicas, ready, demand, 0.8) == expected


def loaded(usage: float, waiting: float, faults=()) -> Prometheus:
    prometheus = Prometheus(faults)
    for at in range(0, 1000, 15):
        for n in range(2):
            row = exposed(kv_cache_usage_perc=usage, num_requests_waiting=waiting)
            prometheus.scrape(f"replica-{n}", n, float(at), row)
    return prometheus


def test_wva_waits_for_the_lowest_of_four_minutes_and_counts_queued_prompts():
    policy, pods = WvaLike(0.8, 100_000, 1, 100), [pod(0), pod(1)]
    quiet, busy = loaded(0.5, 0), loaded(0.5, 20)
    gateway = Gateway(requests=10, prompt_tokens=100_000)
    assert policy.decide(view(30.0, pods, prometheus=quiet, gateway=gateway)) == 2
    assert policy.decide(view(60.0, pods, prometheus=busy, gateway=gateway)) == 2
    assert policy.decide(view(300.0, pods, prometheus=busy, gateway=gateway)) == 8  # 5 caches / 0.85 / 0.8


def test_wva_does_nothing_without_metrics():
    policy, pods = WvaLike(0.8, 100_000, 1, 100), [pod(0), pod(1)]
    assert policy.decide(view(30.0, pods)) == 2
    down = loaded(0.9, 50, [Fault("down", FaultKind.PROMETHEUS, 20.0, 40.0)])
    assert policy.decide(view(30.0, pods, prometheus=down)) == 2


def test_the_weighted_rate_of_arrivals_takes_answers_at_their_average_length():
    before = Gateway(requests=10, prompt_tokens=1000, finished=5, output_tokens=500)
    now = Gateway(requests=30, prompt_tokens=5000, finished=9, output_tokens=1300)
    assert weighted_rate(before, now, 10.0) == pytest.approx((20 * 200 + 0.3 * 4000) / 10)
    assert weighted_rate(before, before, 10.0) == 0.0


def test_dynamo_forecast_is_a_floor_and_one_replica_is_removed_at_a_time():
    policy, pods = DynamoLike(100.0, 1, 100), [pod(n) for n in range(5)]
    assert policy.decide(view(0.0, pods)) == 5
    later = Gateway(requests=180, prompt_tokens=180_000, finished=180, output_tokens=0)
    assert policy.decide(view(180.0, pods, gateway=later)) == 4  # the floor is 3
    assert policy.decide(view(185.0, pods[:4], gateway=later)) == 3
    assert policy.decide(view(190.0, pods[:3], gateway=later)) == 3


def test_dynamo_adds_one_when_all_engines_are_slow_and_waits_while_it_loads():
    slow = pod(0)
    for n in range(60):
        slow.replica.submit(Request(n, 4000, 500), 0)
    slow.replica.advance(5_000_000_000)  # prompts, 100 ms for each iteration
    policy = DynamoLike(1e9, 1, 100)
    assert policy.decide(view(0.0, [slow])) == 2
    assert policy.decide(view(5.0, [slow, pod(1, ready=False)])) == 2
    slow.replica.advance(8_000_000_000)
    assert policy.decide(view(10.0, [slow, pod(1)])) == 2  # not all of them are slow
