"""Stoker in the benchmark: its own code decides, on what Prometheus would have said."""

from dataclasses import replace

import pytest

from bench.replay.faults import Fault, FaultKind
from bench.replay.policies.stoker import NAMESPACE, Stoker, asked, deployment
from bench.replay.prometheus import Prometheus
from stoker.controller.rounds import Rounds
from stoker.core.history import history_of
from stoker.core.readings import Fresh, Key, Missing, Signal, Stale
from tests.bench.replay.scene import exposed, pod, view


def scraped(load: float, *, until: float = 120.0, pods: int = 2, faults=()) -> Prometheus:
    prometheus = Prometheus(faults)
    for step in range(int(until // 15) + 1):
        at = step * 15.0
        for n in range(pods):
            row = exposed(
                generation_tokens_total=1000 * at, prompt_tokens_total=500 * at, num_requests_running=load
            )
            prometheus.scrape(f"replica-{n}", n, at, row)
    return prometheus


def readings(prometheus: Prometheus, now: float):
    stoker = Stoker(deployment(1, 10))
    pods = tuple(stoker._record(pod(n)) for n in range(2))
    metrics = asked(prometheus, pods, stoker.deployment.metrics, Rounds(lambda: now), now)
    return metrics, metrics.pods[Key(NAMESPACE, "replica-0")].readings


def test_the_operator_reads_rates_and_gauges_with_their_age():
    metrics, found = readings(scraped(3.0), 125.0)
    assert metrics.failure is None
    assert found[Signal.RUNNING] == Fresh(3.0, 120.0)
    assert found[Signal.GENERATED_TOKENS] == Fresh(pytest.approx(1000.0), 120.0)
    assert found[Signal.PROMPT_TOKENS] == Fresh(pytest.approx(500.0), 120.0)
    assert set(found) == set(Signal)


def test_a_window_with_a_hole_at_its_start_is_stale_and_a_pod_without_series_is_missing():
    prometheus = scraped(3.0, faults=[Fault("hole", FaultKind.SCRAPES, 50.0, 95.0)])
    _, found = readings(prometheus, 125.0)
    assert isinstance(found[Signal.GENERATED_TOKENS], Stale)
    assert found[Signal.RUNNING] == Fresh(3.0, 120.0)
    _, missing = readings(Prometheus(), 125.0)
    assert all(isinstance(one, Missing) for one in missing.values())


def test_a_rate_is_whole_only_with_a_sample_from_before_its_window():
    assert isinstance(readings(scraped(3.0), 58.0)[1][Signal.GENERATED_TOKENS], Stale)
    assert isinstance(readings(scraped(3.0), 62.0)[1][Signal.GENERATED_TOKENS], Fresh)


def test_a_prometheus_that_is_down_is_a_failure_of_all_queries():
    metrics, found = readings(scraped(3.0, faults=[Fault("down", FaultKind.PROMETHEUS, 121.0, 130.0)]), 125.0)
    assert metrics.failure is not None
    assert all(isinstance(one, Missing) for one in found.values())


def test_the_defaults_are_forty_requests_in_flight():
    stoker = Stoker(deployment(1, 10))
    assert stoker.decide(view(125.0, [pod(0), pod(1)], prometheus=scraped(90.0))) == 5  # 180 / 40: a burst
    assert stoker.last is not None
    assert stoker.last.recommendation.limited_by == "concurrentRequests (default)"


def test_a_stated_capacity_makes_weighted_tokens_the_target():
    stoker = Stoker(deployment(1, 10, tokens_per_second=500, targets={"utilization": 0.5}))
    assert stoker.decide(view(125.0, [pod(0), pod(1)], prometheus=scraped(1.0))) == 10  # 2300 / 250, a burst
    assert stoker.last is not None
    assert stoker.last.faces[0].value == pytest.approx(2300.0)


def test_windows_remember_from_tick_to_tick():
    stoker, prometheus = Stoker(deployment(1, 10, windows={"up": "30s"})), scraped(50.0, until=300.0)
    pods = [pod(0), pod(1)]
    decided = {at: stoker.decide(view(at, pods, prometheus=prometheus)) for at in range(125, 165, 5)}
    assert decided[150] == 2
    assert decided[155] == 3


def test_a_draining_pod_is_seen_as_one():
    stoker, leaving = Stoker(deployment(1, 10)), pod(0)
    before = stoker._record(leaving)
    leaving.drain_since = 50.0
    after = stoker._record(leaving)
    assert (before.routed, after.routed) == (True, False)
    assert after == replace(before, serving=False, drain_started_at=50.0)


def test_a_spec_that_the_operator_would_refuse_is_an_error():
    with pytest.raises(ValueError, match="utilization"):
        deployment(1, 2, targets={"utilization": 7})


def test_it_knows_how_long_its_replicas_took_to_load():
    """Those that served when the run began had loaded before it."""
    stoker, pods = Stoker(deployment(1, 10)), [pod(0), pod(1)]
    for one, seconds in zip(pods, (200.0, 300.0), strict=True):
        one.loaded_in = seconds
    stoker.decide(view(125.0, pods, prometheus=scraped(3.0)))
    assert stoker.last is not None
    assert stoker.last.memory.startups is not None
    (found,) = stoker.last.memory.startups.summary
    assert (found.p50_seconds, found.p90_seconds, found.samples) == (200.0, 300.0, 2)


def test_forecasts_can_be_turned_off():
    stoker = Stoker(deployment(1, 10, forecast=False))
    stoker.decide(view(125.0, [pod(0), pod(1)], prometheus=scraped(3.0)))
    assert stoker.last is not None
    assert stoker.last.memory.outlook is None


@pytest.mark.parametrize("days", [0, 3])
def test_the_days_before_reach_its_forecast(days):
    history = history_of(-144 * days, [100.0] * 144 * days) if days else None
    stoker = Stoker(deployment(1, 10), history=history)
    stoker.decide(view(125.0, [pod(0), pod(1)], prometheus=scraped(3.0)))
    assert stoker.last is not None
    assert stoker.last.memory.outlook is not None
    assert ("no daily shape" in stoker.last.memory.outlook.status.message) == (days == 0)


def test_what_only_teaches_is_known_from_the_last_round_that_asked_for_it():
    prometheus, stoker = Prometheus(), Stoker(deployment(1, 10))
    pods, key = (stoker._record(pod(0)),), Key(NAMESPACE, "replica-0")
    clock = [120.0]
    rounds = Rounds(lambda: clock[0])

    def usage(at: float) -> object:
        clock[0] = at
        return (
            asked(prometheus, pods, stoker.deployment.metrics, rounds, at)
            .pods[key]
            .readings[Signal.CACHE_USAGE]
            .value
        )

    for step in range(9):
        prometheus.scrape("replica-0", 0, step * 15.0, exposed(kv_cache_usage_perc=0.2))
    first = usage(121.0)
    prometheus.scrape("replica-0", 0, 122.0, exposed(kv_cache_usage_perc=0.8))

    assert first == usage(126.0) == usage(131.0) == pytest.approx(0.2)
    assert usage(136.0) > 0.2
