import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.controller.exposition import (
    MANY_PODS,
    RUNNING,
    Exposition,
    counted,
    prometheus_configuration,
    swung,
)
from bench.controller.fleet import REQUESTS_PER_REPLICA
from stoker.core.engines.vllm import METRICS

PODS = [("team-0", "a"), ("team-1", "b")]


def samples(exposition):
    with exposition:
        text = httpx.get(f"http://{exposition.address}/metrics").text
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def test_every_pod_has_every_series_that_the_operator_asks_for():
    found = samples(Exposition(PODS))
    for series in (one for alternatives in METRICS.series.values() for one in alternatives):
        names = {series.name, f"{series.name}_sum", f"{series.name}_count"} & {s.name for s in found}
        assert names in ({series.name}, {f"{series.name}_sum", f"{series.name}_count"}), series
        having = {
            (s.labels["namespace"], s.labels["pod"])
            for s in found
            if s.name in names and series.labels.items() <= s.labels.items()
        }
        assert having == set(PODS), series


def test_a_surge_is_one_pods():
    exposition = Exposition(PODS)
    exposition.surge(PODS[1], 12_001)
    running = {s.labels["pod"]: s.value for s in samples(exposition) if s.name == RUNNING}
    assert running["b"] == 12_001
    assert running["a"] <= REQUESTS_PER_REPLICA


@pytest.mark.parametrize("number", [0, 1, 17])
@pytest.mark.parametrize("elapsed", [0.0, 31.0, 500.0])
def test_a_counter_rises_by_the_rate_that_swings(number, elapsed):
    step = 0.01
    rate = (counted(100, elapsed + step, number) - counted(100, elapsed, number)) / step
    assert rate == pytest.approx(swung(100, elapsed + step / 2, number), rel=1e-6)


def test_a_counter_starts_at_zero():
    assert counted(100, 0.0, 5) == 0


def test_prometheus_keeps_the_labels_of_the_text():
    with Exposition(PODS) as exposition:
        (job,) = prometheus_configuration(exposition)["scrape_configs"]
    assert job["honor_labels"] is True
    assert job["static_configs"] == [{"targets": [exposition.address]}]


@pytest.mark.parametrize(("pods", "interval"), [(MANY_PODS, "7s"), (MANY_PODS + 1, "17s")])
def test_many_pods_are_scraped_more_rarely(pods, interval):
    with Exposition([("team-0", "a")] * pods) as exposition:
        assert prometheus_configuration(exposition)["global"]["scrape_interval"] == interval
