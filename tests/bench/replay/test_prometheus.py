"""Prometheus in virtual time: against the test data of Prometheus itself, and against the real promtool."""

import random
import subprocess

import pytest

from bench.replay.faults import Fault, FaultKind
from bench.replay.prometheus import Exposition, Prometheus, Unavailable, rate
from stoker.core.promql import _rate, edge
from stoker.core.readings import Series
from testbed.binaries import ensure

MINUTE = 60.0


def expansion(step: float, *parts: tuple[float, float, int]) -> list[tuple[float, float]]:
    """Samples of promtool's notation `start+increment x times`, one part after the other."""
    values = [start + increment * n for start, increment, times in parts for n in range(times + 1)]
    return [(number * step, value) for number, value in enumerate(values)]


def over(samples: list[tuple[float, float]], window: float, at: float) -> float | None:
    return rate([(t, v) for t, v in samples if at - window < t <= at], at - window, at)


@pytest.mark.parametrize(
    ("samples", "window", "at", "expected"),
    [
        # Prometheus 3.16, promql/promqltest/testdata/functions.test, "Tests for rate()"
        (expansion(5 * MINUTE, (0, 27, 4), (0, 27, 5)), 50 * MINUTE, 50 * MINUTE, 0.08),
        (expansion(5 * MINUTE, (0, 10, 9), (0, 0, 0), (10, 0, 0)), 5 * MINUTE, 50 * MINUTE, None),
        (expansion(5 * MINUTE, (0, 10, 9), (0, 0, 0), (10, 0, 0)), 6 * MINUTE, 50 * MINUTE, 0.0),
        (expansion(5 * MINUTE, (0, 80, 10)), 50 * MINUTE, 50 * MINUTE, 0.26666666666666666),
        *(
            (expansion(4 * MINUTE, (first, 240, 10)), 20 * MINUTE, at, expected)
            for at, row in (
                (10 * MINUTE, (0.5, 0.55, 0.6, 0.6, 0.6, 0.6)),
                (50 * MINUTE, (0.6, 0.6, 0.6, 0.6, 0.6, 0.6)),
            )
            for first, expected in zip((0, 60, 120, 180, 240, 300), row, strict=True)
        ),
    ],
)
def test_rate_gives_what_prometheus_own_tests_expect(samples, window, at, expected):
    assert over(samples, window, at) == (None if expected is None else pytest.approx(expected, rel=1e-9))


@pytest.mark.built
def test_rate_agrees_with_promtool(tmp_path):
    """Random counters with resets and gaps, asked at moments that fall anywhere between the scrapes."""
    draw = random.Random(7)
    lines = ["evaluation_interval: 1s", "tests:"]
    for number in range(40):
        value, texts, samples = 0.0, [], []
        for step in range(12):
            value = float(draw.randint(0, 5)) if draw.random() < 0.15 else value + draw.randint(0, 40)
            lost = draw.random() < 0.2
            texts.append("_" if lost else f"{value:.0f}")
            if not lost:
                samples.append((step * 15.0, value))
        at = draw.randint(60, 165)
        expected = over(samples, 60.0, at)
        lines += [
            f"- name: case {number}",
            "  interval: 15s",
            f"  input_series: [{{series: 'c_total', values: '{' '.join(texts)}'}}]",
            "  promql_expr_test:",
            f"  - expr: rate(c_total[60s])\n    eval_time: {at}s",
            "    exp_samples: "
            + ("[]" if expected is None else f"[{{labels: '{{}}', value: {expected!r}}}]"),
        ]
    file = tmp_path / "rates.yaml"
    file.write_text("\n".join([*lines, "fuzzy_compare: true", ""]))
    answer = subprocess.run(
        [str(ensure("promtool")), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.built
def test_the_operators_own_query_for_a_counter_agrees_with_promtool(tmp_path):
    """Word for word: should the query change, what the replay makes of it has to follow."""
    draw, window = random.Random(11), 60.0
    query = _rate(Series("c_total"), window)
    lines = ["evaluation_interval: 1s", "tests:"]
    for number in range(60):
        prometheus, value, texts = Prometheus(), 0.0, []
        born = draw.choice((0, 0, 5, 8))
        for step in range(14):
            value = float(draw.randint(0, 5)) if draw.random() < 0.05 else value + draw.randint(0, 40)
            there = step >= born and draw.random() < 0.9
            texts.append(f"{value:.0f}" if there else "_")
            if there:
                prometheus.scrape("a", 0, step * 15.0, row(generated=value))
        at = draw.randint(100, 195)
        answer = prometheus.slopes("generation_tokens_total", window, window + edge(window), at)
        expected = "".join(f"{{labels: '{{}}', value: {found!r}}}" for found in answer.values())
        lines += [
            f"- name: case {number}",
            "  interval: 15s",
            f"  input_series: [{{series: 'c_total', values: '{' '.join(texts)}'}}]",
            "  promql_expr_test:",
            f"  - expr: '{query}'\n    eval_time: {at}s\n    exp_samples: [{expected}]",
        ]
    file = tmp_path / "slopes.yaml"
    file.write_text("\n".join([*lines, "fuzzy_compare: true", ""]))
    told = subprocess.run(
        [str(ensure("promtool")), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


def row(generated: float = 0.0, running: float = 0.0) -> Exposition:
    return Exposition(generated, 0.0, 0.0, running, 0.0, 0.0)


def test_an_instant_vector_looks_back_five_minutes_and_no_longer():
    prometheus = Prometheus()
    prometheus.scrape("a", 0, 100.0, row(running=3))
    assert prometheus.instant("num_requests_running", 99.9) == {}
    assert prometheus.instant("num_requests_running", 399.9) == {"a": 3.0}
    assert prometheus.instant("num_requests_running", 400.0) == {}
    assert prometheus.timestamps(399.9) == {"a": 100.0}


def test_a_failed_scrape_ends_a_series_at_once_and_its_rate_only_as_the_window_empties():
    prometheus = Prometheus([Fault("lost", FaultKind.SCRAPES, 45.0, 50.0)])
    for at in (15.0, 30.0, 45.0, 60.0):
        prometheus.scrape("a", 0, at, row(generated=at * 2, running=1))
    assert prometheus.instant("num_requests_running", 50.0) == {}
    assert prometheus.rates("generation_tokens_total", 60.0, 50.0).keys() == {"a"}
    assert prometheus.timestamps(70.0, offset=25.0) == {}
    assert prometheus.instant("num_requests_running", 60.0) == {"a": 1.0}


def test_a_series_begins_with_a_pods_first_successful_scrape():
    prometheus = Prometheus([Fault("lost", FaultKind.SCRAPES, 0.0, 10.0)])
    prometheus.scrape("a", 0, 5.0, row())
    assert prometheus.instant("num_requests_running", 6.0) == {}


def test_a_deleted_pod_leaves_the_instant_vector_but_not_yet_the_range():
    prometheus = Prometheus()
    for at in (15.0, 30.0, 45.0):
        prometheus.scrape("a", 0, at, row(generated=at))
    prometheus.forget("a", 50.0)
    assert prometheus.instant("num_requests_running", 51.0) == {}
    assert prometheus.rates("generation_tokens_total", 60.0, 51.0) == {"a": pytest.approx(43.5 / 60.0)}
    assert prometheus.rates("generation_tokens_total", 60.0, 120.0) == {}
    prometheus.scrape("b", 1, 2000.0, row())
    prometheus.forget("b", 2000.0)
    assert (
        prometheus.rates("generation_tokens_total", 4000.0, 2000.0) == {}
    )  # what is long gone costs nothing


def test_half_the_pods_are_missing_in_a_partial_outage():
    prometheus = Prometheus([Fault("half", FaultKind.HALF, 20.0, 40.0)])
    for at in (15.0, 30.0):
        for number in range(4):
            prometheus.scrape(f"p{number}", number, at, row(running=1))
    assert prometheus.instant("num_requests_running", 31.0).keys() == {"p0", "p2"}


def test_while_prometheus_is_down_it_fails_and_afterwards_it_knows_nothing_of_that_time():
    prometheus = Prometheus([Fault("down", FaultKind.PROMETHEUS, 20.0, 50.0)])
    for at in (15.0, 30.0, 45.0):
        prometheus.scrape("a", 0, at, row(generated=at, running=at))
    for ask in (
        lambda: prometheus.instant("num_requests_running", 30.0),
        lambda: prometheus.rates("generation_tokens_total", 60.0, 30.0),
        lambda: prometheus.timestamps(30.0),
    ):
        with pytest.raises(Unavailable):
            ask()
    assert prometheus.instant("num_requests_running", 50.0) == {"a": 15.0}  # nobody has marked it stale


def test_samples_that_no_query_can_reach_are_dropped():
    prometheus = Prometheus()
    for step in range(1000):
        prometheus.scrape("a", 0, step * 15.0, row(generated=step))
    assert len(prometheus._targets["a"].times) < 130
    assert prometheus.rates("generation_tokens_total", 60.0, 999 * 15.0)["a"] == pytest.approx(1 / 15)
