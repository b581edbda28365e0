"""Readings in: what an answer of Prometheus is worth."""

from __future__ import annotations

import math

import pytest

from stoker.core import promql, signals
from stoker.core.promql import Freshness
from stoker.core.readings import Fresh, Key, MetricNames, Missing, PodMetrics, Series, Signal, Stale
from stoker.core.signals import Answer, Failed, Sample, Samples
from tests.factories import NOW, custom_metrics, vllm

VLLM: MetricNames = vllm()
CUSTOM = custom_metrics()
POD = Key("models", "llama-0")
THEIR_NOW = 5_000.0
"""Prometheus' clock, which need not be the operator's."""
STALE_AFTER = 60.0


def sample(
    series: Series, value: float, *, metrics: MetricNames = VLLM, pod: Key = POD, **more: str
) -> Sample:
    labels = {
        "namespace": pod.namespace,
        "pod": pod.name,
        "series": promql.series_id(series, metrics),
        **more,
    }
    return Sample(labels, value, THEIR_NOW)


def vector(*samples: Sample) -> Samples:
    return Samples(samples)


def answers(
    metrics: MetricNames = VLLM, value: float = 7.0, *, age: float = 5.0, oldest: float = 70.0
) -> dict[str, Answer]:
    """Every signal answered with `value`; last sample `age` s old, window-start sample `oldest` s old."""
    running = metrics.series[Signal.RUNNING][0]
    found: dict[str, Answer] = {
        signal.value: vector(sample(series[0], value, metrics=metrics))
        for signal, series in metrics.series.items()
    }
    found[Freshness.LAST_SAMPLE.value] = vector(sample(running, THEIR_NOW - age, metrics=metrics))
    found[Freshness.WINDOW_START.value] = vector(sample(running, THEIR_NOW - oldest, metrics=metrics))
    return found


def read(found: dict[str, Answer], metrics: MetricNames = VLLM) -> PodMetrics:
    return signals.gathered(found, [(POD, metrics)], NOW, STALE_AFTER).pods[POD]


def reading(found: dict[str, Answer], signal: Signal = Signal.RUNNING) -> object:
    return read(found).readings[signal]


class TestFreshness:
    @pytest.mark.parametrize("signal", list(Signal))
    def test_a_fresh_answer_is_dated_by_its_age_in_the_operators_clock(self, signal):
        assert reading(answers(age=5.0), signal) == Fresh(7.0, NOW - 5.0)

    def test_zero_is_a_value(self):
        assert reading(answers(value=0.0)) == Fresh(0.0, NOW - 5.0)

    def test_an_old_last_sample_makes_the_answer_stale(self):
        assert reading(answers(age=60.1)) == Stale(7.0, pytest.approx(NOW - 60.1))

    def test_a_sample_as_old_as_allowed_is_fresh(self):
        assert isinstance(reading(answers(age=60.0)), Fresh)

    def test_without_the_age_of_the_last_sample_nothing_is_fresh(self):
        found = answers()
        found[Freshness.LAST_SAMPLE.value] = vector()

        assert reading(found) == Missing("the age of the last sample is unknown")

    def test_a_sample_from_the_future_of_prometheus_is_as_old_as_now(self):
        assert reading(answers(age=-30.0)) == Fresh(7.0, NOW)

    def test_a_failed_age_query_makes_everything_missing(self):
        found = answers() | {Freshness.LAST_SAMPLE.value: Failed("timeout")}

        assert isinstance(reading(found), Missing)

    def test_the_clocks_of_operator_and_prometheus_may_differ_by_years(self):
        assert isinstance(reading(answers()), Fresh)
        assert abs(NOW - THEIR_NOW) > 365 * 86400


class TestWholeWindow:
    @pytest.mark.parametrize("signal", sorted(promql.COUNTERS))
    def test_a_rate_whose_window_has_no_sample_near_its_start_is_stale(self, signal):
        assert reading(answers(oldest=95.1), signal) == Stale(7.0, NOW)

    @pytest.mark.parametrize("signal", sorted(promql.COUNTERS))
    def test_a_rate_whose_samples_reach_to_the_start_is_fresh(self, signal):
        assert isinstance(reading(answers(oldest=94.9), signal), Fresh)

    def test_a_rate_of_a_series_that_began_within_the_window_is_stale(self):
        found = answers()
        found[Freshness.WINDOW_START.value] = vector()

        assert isinstance(reading(found, Signal.GENERATED_TOKENS), Stale)

    def test_a_rate_whose_last_sample_is_late_is_stale_before_the_sample_is(self):
        found = answers(age=36.0)

        assert isinstance(reading(found, Signal.GENERATED_TOKENS), Stale)
        assert isinstance(reading(found, Signal.RUNNING), Fresh)

    def test_scrapes_every_30_s_with_some_jitter_are_fresh_throughout(self):
        for age in range(31):
            newest_at_offset = 60 + (age - 60) % 30
            found = answers(age=age + 1.0, oldest=newest_at_offset + 1.0)

            assert isinstance(reading(found, Signal.GENERATED_TOKENS), Fresh), age

    @pytest.mark.parametrize("interval", [1, 15, 30])
    @pytest.mark.parametrize("outage", [20, 45, 61, 75, 100, 119, 360])
    def test_after_an_outage_a_rate_is_fresh_only_with_a_sample_just_before_its_window(
        self, outage, interval
    ):
        """Scrapes stop for `outage` seconds and come back; seconds are counted from the return."""
        scrapes = [-outage - interval * n for n in range(90)] + [interval * n for n in range(200)]
        for now in range(200):
            past = [s for s in scrapes if s <= now]
            before = max(s for s in past if s <= now - 60)
            found = answers(age=now - max(past), oldest=now - before)
            fresh = isinstance(reading(found, Signal.GENERATED_TOKENS), Fresh)

            assert fresh == (before >= 0 or now + outage <= 95), now

    def test_a_gauge_needs_no_window(self):
        assert isinstance(reading(answers(oldest=9999.0), Signal.WAITING), Fresh)


class TestBadAnswers:
    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, -0.001, 1e300],
        ids=["NaN", "+Inf", "-Inf", "negative", "beyond all measure"],
    )
    @pytest.mark.parametrize("signal", [Signal.GENERATED_TOKENS, Signal.RUNNING])
    def test_what_cannot_be_a_rate_or_a_gauge_is_missing(self, signal, value):
        found = reading(answers(value=value), signal)

        assert isinstance(found, Missing)
        assert str(value) in found.why

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_an_age_that_is_no_number_is_no_age(self, value):
        found = answers()
        found[Freshness.LAST_SAMPLE.value] = vector(sample(VLLM.series[Signal.RUNNING][0], value))

        assert isinstance(reading(found), Missing)

    def test_a_failed_query_makes_its_signal_missing_and_no_other(self):
        found = answers() | {Signal.RUNNING.value: Failed("HTTP 503")}

        assert reading(found, Signal.RUNNING) == Missing("Prometheus: HTTP 503")
        assert isinstance(reading(found, Signal.WAITING), Fresh)

    def test_an_empty_answer_names_the_series_that_was_looked_for(self):
        found = answers() | {Signal.PROMPT_TOKENS.value: vector()}

        missing = reading(found, Signal.PROMPT_TOKENS)

        assert missing == Missing(
            "no series vllm:prompt_tokens_by_source_total or vllm:prompt_tokens_total for the pod"
        )

    def test_the_preferred_series_wins_over_its_alternative(self):
        preferred, other = VLLM.series[Signal.PROMPT_TOKENS]
        found = answers() | {Signal.PROMPT_TOKENS.value: vector(sample(other, 9.0), sample(preferred, 3.0))}

        assert reading(found, Signal.PROMPT_TOKENS) == Fresh(3.0, NOW - 5.0)

    def test_the_alternative_stands_in_for_a_preferred_series_that_is_not_there(self):
        _, other = VLLM.series[Signal.PROMPT_TOKENS]
        found = answers() | {Signal.PROMPT_TOKENS.value: vector(sample(other, 9.0))}

        assert reading(found, Signal.PROMPT_TOKENS) == Fresh(9.0, NOW - 5.0)

    def test_another_pods_or_another_namespaces_samples_do_not_count(self):
        series = VLLM.series[Signal.RUNNING][0]
        others = vector(
            sample(series, 1.0, pod=Key("models", "llama-1")), sample(series, 1.0, pod=Key("else", "llama-0"))
        )

        assert isinstance(reading(answers() | {Signal.RUNNING.value: others}), Missing)

    def test_a_sample_without_labels_harms_nobody(self):
        found = answers() | {Signal.WAITING.value: vector(Sample({}, 1.0, THEIR_NOW))}

        assert isinstance(reading(found, Signal.RUNNING), Fresh)
        assert isinstance(reading(found, Signal.WAITING), Missing)

    def test_a_signal_that_the_engine_has_not_is_absent_rather_than_missing(self):
        assert Signal.WAITING not in read(answers(CUSTOM), CUSTOM).readings


class TestFailure:
    def test_prometheus_is_away_when_no_query_was_answered(self):
        found = signals.gathered(dict.fromkeys(answers(), Failed("connection refused")), [], NOW, STALE_AFTER)

        assert found.failure == "connection refused"

    def test_one_answer_is_enough_to_be_there(self):
        found = signals.gathered(answers() | {"running": Failed("no")}, [], NOW, STALE_AFTER)

        assert found.failure is None

    def test_nothing_asked_is_nothing_failed(self):
        assert signals.gathered({}, [], NOW, STALE_AFTER).failure is None


class TestBuckets:
    def buckets(self, *pairs: tuple[str, float]) -> tuple[tuple[float, float], ...]:
        labels = {"namespace": POD.namespace, "pod": POD.name, "series": VLLM.first_token or ""}
        histogram = vector(*(Sample({**labels, "le": le}, value, THEIR_NOW) for le, value in pairs))
        return read(answers() | {promql.FIRST_TOKEN: histogram}).first_token_buckets

    def test_they_come_sorted_by_their_bounds(self):
        assert self.buckets(("+Inf", 3.0), ("0.5", 1.0), ("10", 2.0)) == (
            (0.5, 1.0),
            (10.0, 2.0),
            (math.inf, 3.0),
        )

    @pytest.mark.parametrize(
        ("le", "value"),
        [("", 1.0), ("NaN", 1.0), ("much", 1.0), ("1", math.nan), ("1", -1.0), ("1", math.inf)],
        ids=["no bound", "NaN bound", "a word", "NaN", "negative", "infinite"],
    )
    def test_a_bucket_that_cannot_be_is_left_out(self, le, value):
        assert self.buckets((le, value), ("+Inf", 2.0)) == ((math.inf, 2.0),)

    def test_a_failed_query_gives_none(self):
        assert read(answers() | {promql.FIRST_TOKEN: Failed("no")}).first_token_buckets == ()


class TestIdleAlternatives:
    PREFERRED, OTHER = VLLM.series[Signal.PROMPT_TOKENS]

    def test_is_one_that_no_pod_answered_with(self):
        assert signals.idle(answers(), [VLLM, CUSTOM]) == {promql.series_id(self.OTHER, VLLM)}

    def test_is_none_that_a_pod_answered_with(self):
        older = vector(sample(self.PREFERRED, 1.0), sample(self.OTHER, 1.0, pod=Key("models", "old-0")))

        assert signals.idle(answers() | {"promptTokens": older}, [VLLM]) == frozenset()

    def test_is_none_of_which_prometheus_said_nothing(self):
        assert signals.idle(answers() | {"promptTokens": Failed("busy")}, [VLLM]) == frozenset()
        assert signals.idle({}, [VLLM]) == frozenset()
