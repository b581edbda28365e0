"""What to ask Prometheus, and what its answers mean: PromQL out, readings in.

Rules of this module:

* One query per signal for the whole fleet, whatever the number of ModelDeployments. Engines that
  name a series differently are joined with ``or`` under a label that tells them apart.
* Freshness is judged by Prometheus' own clock: the age of the last sample behind an answer, against
  the time of the evaluation. The operator's clock plays no part.
* A rate is whole only when a sample stands just before its window and another near its end. ``rate()``
  divides what it saw by the whole window: after an outage, and while a window fills, that reads as a drop. So
  a rate is the slope between those two samples, whatever stands in between.
* What cannot be a rate or a gauge (NaN, infinite, negative, beyond all measure) is Missing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from stoker.core.readings import (
    FOR_LEARNING,
    Fresh,
    Key,
    MetricNames,
    Metrics,
    Missing,
    PodMetrics,
    Reading,
    Series,
    Signal,
    Stale,
)

COUNTERS = frozenset({Signal.GENERATED_TOKENS, Signal.PROMPT_TOKENS, Signal.REQUESTS})

WINDOWED = COUNTERS | FOR_LEARNING
"""Signals that speak of the whole rate window, not of the last scrape."""

MOST = 1e12
"""No pod has so many requests, or so many tokens per second: such a number is an error in the exporter."""


class Freshness(StrEnum):
    """The two questions behind every reading of a pod, asked of its ``running`` gauge."""

    LAST_SAMPLE = "lastSample"
    """When the pod was last scraped."""
    WINDOW_START = "windowStart"
    """When it was last scraped before the rate window began."""


def edge(window: float) -> float:
    """How far (s) a rate's first sample may lie before its window (s), and its last one before the end.

    A rate needs two samples, so a window serves scrape intervals of up to its half; 5 s more for a scrape
    that is late. Larger windows are for requests that last long, not for rare scrapes: a minute is enough.
    """
    return min(60.0, window / 2 + 5.0)


FIRST_TOKEN = "firstToken"  # noqa: S105 - a query's name, not a secret


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float
    at: float
    """Evaluation time, Unix s, by Prometheus' clock."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Prometheus answered; the vector may be empty."""

    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    """Prometheus' own, e.g. that a remote store gave only part of the data."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Prometheus did not answer this query."""

    why: str
    unreachable: bool = False
    """Whether it could not be reached at all (as against refusing or garbling this query)."""


Answer = Samples | Failed


@dataclass(frozen=True, slots=True)
class LatencyScope:
    """Where time-to-first-token histograms are needed: they are many series, so only where a target asks."""

    namespace: str
    metrics: MetricNames


def queries(engines: Iterable[MetricNames], latency: Iterable[LatencyScope] = ()) -> dict[str, str]:
    """PromQL by query name for all engines in use: at most 10 queries.

    Args:
        engines: The metric names of every engine that some ModelDeployment uses; repeats are fine.
        latency: Namespaces with a time-to-first-token target.
    """
    names = sorted(set(engines), key=repr)
    asked = {signal.value: _union(_signal_terms(signal, names)) for signal in Signal}
    asked[Freshness.LAST_SAMPLE.value] = _union(_timestamp_terms(names, at_window_start=False))
    asked[Freshness.WINDOW_START.value] = _union(_timestamp_terms(names, at_window_start=True))
    asked[FIRST_TOKEN] = _first_token(latency)
    return {name: query for name, query in asked.items() if query}


def _signal_terms(signal: Signal, engines: Sequence[MetricNames]) -> list[str]:
    return [
        _tagged(_by_pod(signal, series, metrics), series_id(series, metrics))
        for metrics in engines
        for series in metrics.series.get(signal, ())
    ]


def _by_pod(signal: Signal, series: Series, metrics: MetricNames) -> str:
    """One element per pod, whatever the number of its data-parallel ranks."""
    window = metrics.rate_window_seconds
    if signal is Signal.CACHE_USAGE:
        return f"avg by (namespace, pod) (avg_over_time({series}[{window:.0f}s]))"
    if signal is Signal.INTER_TOKEN_LATENCY:
        return _inter_token_latency(series, metrics)
    return f"sum by (namespace, pod) ({_rate(series, window) if signal in COUNTERS else series})"


def _inter_token_latency(series: Series, metrics: MetricNames) -> str:
    """Mean of a histogram; of a counter of tokens: the requests in the batch per token and second."""
    window = f"[{metrics.rate_window_seconds:.0f}s]"
    if series in metrics.series.get(Signal.GENERATED_TOKENS, ()):
        running = metrics.series[Signal.RUNNING][0]
        seconds, tokens = f"avg_over_time({running}{window})", f"rate({series}{window})"
    else:
        seconds, tokens = (f"rate({replace(series, name=series.name + end)}{window})" for end in _MEAN)
    return f"sum by (namespace, pod) ({seconds}) / sum by (namespace, pod) ({tokens})"


_MEAN = ("_sum", "_count")


def _rate(series: Series, window: float) -> str:
    """The slope of a counter from its last sample before the window to its last one, per second.

    A counter that is younger than that, or started again since, has no such slope: then ``rate()`` gives a
    lower bound, as the sum over samples that are there.
    """
    then = f"{series} offset {window:.0f}s"
    slope = f"({series} - {then}) / (timestamp({series}) - timestamp({then}))"
    unbroken = f"resets({series}[{window + edge(window):.0f}s]) == 0"
    return f"({slope} and {unbroken}) or rate({series}[{window:.0f}s])"


def _timestamp_terms(engines: Sequence[MetricNames], *, at_window_start: bool) -> list[str]:
    terms = []
    for metrics in engines:
        for series in metrics.series[Signal.RUNNING]:
            window = metrics.rate_window_seconds
            offset = f" offset {window:.0f}s" if at_window_start else ""
            # min: of several series of one pod the oldest decides (a namesake's leftovers, a dead rank)
            inner = f"min by (namespace, pod) (timestamp({series}{offset}))"
            terms.append(_tagged(inner, series_id(series, metrics)))
    return terms


def _first_token(scopes: Iterable[LatencyScope]) -> str:
    namespaces: dict[MetricNames, set[str]] = defaultdict(set)
    for scope in scopes:
        if scope.metrics.first_token:
            namespaces[scope.metrics].add(scope.namespace)
    terms = []
    for metrics, where in sorted(namespaces.items(), key=repr):
        within = "|".join(sorted(where))  # namespaces are DNS labels: nothing to escape
        selector = f'{metrics.first_token}_bucket{{namespace=~"{within}"}}'
        rate = f"rate({selector}[{metrics.rate_window_seconds:.0f}s])"
        terms.append(_tagged(f"sum by (namespace, pod, le) ({rate})", metrics.first_token or ""))
    return _union(terms)


def series_id(series: Series, metrics: MetricNames) -> str:
    """What tells one engine's series from another's in a joined answer."""
    return f"{series}@{metrics.rate_window_seconds:.0f}s".replace('"', "'")


def _tagged(expression: str, tag: str) -> str:
    return f'label_replace({expression}, "series", "{tag}", "", "")'


def _union(terms: Iterable[str]) -> str:
    return " or ".join(sorted(set(terms)))


# --- Answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answers:
    """One tick's answers, indexed by pod."""

    at: float
    """The operator's clock, Unix s: stamped on readings so that ages compare with ``Snapshot.now``."""
    stale_after: float
    """Seconds after which a pod's last sample is too old to act on."""
    values: Mapping[str, Mapping[tuple[Key, str], Sample]]
    failures: Mapping[str, str]
    buckets: Mapping[tuple[Key, str], tuple[tuple[float, float], ...]]


def index(answers: Mapping[str, Answer], at: float, stale_after: float) -> Answers:
    """Sort answers by pod and series, once for the whole fleet."""
    values = {
        name: {_where(s): s for s in answer.samples}
        for name, answer in answers.items()
        if isinstance(answer, Samples) and name != FIRST_TOKEN
    }
    failures = {name: answer.why for name, answer in answers.items() if isinstance(answer, Failed)}
    return Answers(at, stale_after, values, failures, _buckets(answers.get(FIRST_TOKEN)))


def failure(answers: Mapping[str, Answer]) -> str | None:
    """Why Prometheus as a whole cannot be used; None when at least one query was answered."""
    failed = [a.why for a in answers.values() if isinstance(a, Failed)]
    if answers and len(failed) == len(answers):
        return failed[0]
    return None


def pod_metrics(answers: Answers, pod: Key, metrics: MetricNames) -> PodMetrics:
    """The readings of one pod that speaks ``metrics``."""
    window = _window(answers, pod, metrics)
    readings = {signal: _reading(answers, pod, signal, metrics, window) for signal in metrics.series}
    buckets = answers.buckets.get((pod, metrics.first_token or ""), ())
    return PodMetrics(readings, buckets)


def gathered(
    answers: Mapping[str, Answer], pods: Iterable[tuple[Key, MetricNames]], at: float, stale_after: float
) -> Metrics:
    """Everything that Prometheus said about these pods.

    Args:
        answers: By query name, for the queries that ``queries`` made.
        pods: Every pod of the fleet with the metric names its engine uses.
        at: The operator's clock, Unix s.
        stale_after: Seconds after which a sample is too old to act on.
    """
    indexed = index(answers, at, stale_after)
    return Metrics(
        at=at,
        pods={pod: pod_metrics(indexed, pod, metrics) for pod, metrics in pods},
        first_token_failure=indexed.failures.get(FIRST_TOKEN),
        failure=failure(answers),
    )


@lru_cache(maxsize=256)
def _series_ids(metrics: MetricNames) -> Mapping[Signal, tuple[str, ...]]:
    """What tells the series of one engine apart, by signal, the preferred one first."""
    return {signal: tuple(series_id(s, metrics) for s in found) for signal, found in metrics.series.items()}


@dataclass(frozen=True, slots=True)
class _Window:
    """How well one pod's samples cover the rate window."""

    newest: float | None
    """Age (s) of the last sample; None when Prometheus did not say."""
    whole: bool
    """Whether a sample stands just before the window, and one near its end."""


def _window(answers: Answers, pod: Key, metrics: MetricNames) -> _Window:
    running, window = _series_ids(metrics)[Signal.RUNNING], metrics.rate_window_seconds
    newest = _age(answers, Freshness.LAST_SAMPLE, pod, running)
    oldest = _age(answers, Freshness.WINDOW_START, pod, running)
    begun = oldest is not None and oldest <= window + edge(window)
    return _Window(newest, begun and newest is not None and newest <= edge(window))


def _reading(answers: Answers, pod: Key, signal: Signal, metrics: MetricNames, window: _Window) -> Reading:
    if why := answers.failures.get(signal):
        return Missing(f"Prometheus: {why}")
    found = answers.values.get(signal, {})
    for series in _series_ids(metrics)[signal]:
        sample = found.get((pod, series))
        if sample is not None:
            return _judged(answers, signal, sample, window)
    return Missing(f"no series {' or '.join(s.name for s in metrics.series[signal])} for the pod")


def _judged(answers: Answers, signal: Signal, sample: Sample, window: _Window) -> Reading:
    if not 0 <= sample.value <= MOST:  # NaN is not either
        return Missing(f"Prometheus answered {sample.value}")
    if window.newest is None:
        return Missing("the age of the last sample is unknown")
    if window.newest > answers.stale_after:
        return Stale(sample.value, answers.at - window.newest)
    if signal in WINDOWED and not window.whole:
        return Stale(sample.value, answers.at)
    return Fresh(sample.value, answers.at - window.newest)


def _age(answers: Answers, question: Freshness, pod: Key, running: Sequence[str]) -> float | None:
    """Seconds between the pod's sample and the evaluation; None when Prometheus did not say."""
    found = answers.values.get(question, {})
    for series in running:
        sample = found.get((pod, series))
        if sample is not None and math.isfinite(sample.value):
            return max(0.0, sample.at - sample.value)
    return None


def _where(sample: Sample) -> tuple[Key, str]:
    labels = sample.labels
    return Key(labels.get("namespace", ""), labels.get("pod", "")), labels.get("series", "")


def _buckets(answer: Answer | None) -> dict[tuple[Key, str], tuple[tuple[float, float], ...]]:
    if not isinstance(answer, Samples):
        return {}
    found: dict[tuple[Key, str], list[tuple[float, float]]] = defaultdict(list)
    for sample in answer.samples:
        bound = _bound(sample.labels.get("le", ""))
        if bound is not None and 0 <= sample.value <= MOST:
            found[_where(sample)].append((bound, sample.value))
    return {where: tuple(sorted(pairs)) for where, pairs in found.items()}


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
