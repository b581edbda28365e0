"""What Prometheus' answers mean: samples in, readings out. What it is asked is `stoker.core.promql`.

Rules of this module:

* Freshness is judged by Prometheus' own clock: the age of the last sample behind an answer, against
  the time of the evaluation. The operator's clock plays no part.
* A rate is whole only when a sample stands just before its window and another near its end: it is the slope
  between those two, whatever stands in between.
* What cannot be a rate or a gauge (NaN, infinite, negative, beyond all measure) is Missing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from stoker.core import promql
from stoker.core.promql import COUNTERS, FIRST_TOKEN, Freshness, edge, series_id
from stoker.core.readings import (
    FOR_LEARNING,
    Fresh,
    Key,
    MetricNames,
    Metrics,
    Missing,
    PodMetrics,
    Reading,
    Signal,
    Stale,
)

WINDOWED = COUNTERS | FOR_LEARNING
"""Signals that speak of the whole rate window, not of the last scrape."""

MOST = 1e12
"""No pod has so many requests, or so many tokens per second: such a number is an error in the exporter."""


class Sample(NamedTuple):
    """One element of an instant vector. There are tens of thousands per tick: a tuple takes half the time."""

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


Pod = tuple[str, str]
"""Namespace and name: a `Key`, or what is equal to one; empty where a sample has no such label."""

BySeries = Mapping[str, Mapping[Pod, Sample]]
"""By what tells the series of a joined answer apart, then by pod."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One tick's answers, indexed by pod."""

    at: float
    """The operator's clock, Unix s: stamped on readings so that ages compare with ``Snapshot.now``."""
    stale_after: float
    """Seconds after which a pod's last sample is too old to act on."""
    values: Mapping[str, BySeries]
    failures: Mapping[str, str]
    buckets: Mapping[tuple[str, str, str], tuple[tuple[float, float], ...]]
    """By namespace, pod and series."""


def index(answers: Mapping[str, Answer], at: float, stale_after: float) -> Answers:
    """Sort answers by pod and series, once for the whole fleet."""
    values = {
        name: _by_series(answer.samples)
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


def idle(answers: Mapping[str, Answer], engines: Iterable[MetricNames]) -> frozenset[str]:
    """What tells those alternatives apart that no pod has, as far as Prometheus answered for all pods.

    Args:
        answers: By query name, for what ``promql.queries`` asks of these engines with nothing left out.
        engines: The metric names of every engine in use; repeats are fine.
    """
    known = {(signal, metrics) for metrics in set(engines) for signal in metrics.series}
    return frozenset(
        tag
        for signal, metrics in known
        if len(metrics.series[signal]) > 1 and isinstance(answer := answers.get(signal.value), Samples)
        for tag in promql.alternatives(signal, metrics) - {s.labels.get("series") for s in answer.samples}
    )


def gathered(
    answers: Mapping[str, Answer], pods: Sequence[tuple[Key, MetricNames]], at: float, stale_after: float
) -> Metrics:
    """Everything that Prometheus said about these pods.

    Args:
        answers: By query name, for the queries that ``promql.queries`` made.
        pods: Every pod of the fleet with the metric names its engine uses.
        at: The operator's clock, Unix s.
        stale_after: Seconds after which a sample is too old to act on.
    """
    indexed = index(answers, at, stale_after)
    engines = {metrics: _engine(indexed, metrics) for metrics in {metrics for _, metrics in pods}}
    return Metrics(
        at=at,
        pods={pod: _pod_metrics(engines[metrics], pod) for pod, metrics in pods},
        first_token_failure=indexed.failures.get(FIRST_TOKEN),
        failure=failure(answers),
    )


# What is the same for all pods of an engine is looked up once for all of them.


@dataclass(frozen=True, slots=True)
class _Asked:
    """What Prometheus answered about one signal of an engine."""

    signal: Signal
    windowed: bool
    found: Sequence[Mapping[Pod, Sample]]
    """Of each alternative, the preferred one first."""
    absent: Reading
    """The reading of a pod that has none of the series."""


@dataclass(frozen=True, slots=True)
class _Engine:
    """The answers about the pods that speak ``metrics``."""

    answers: Answers
    metrics: MetricNames
    asked: Sequence[_Asked]
    last: Sequence[Mapping[Pod, Sample]]
    """When each pod was scraped last."""
    before: Sequence[Mapping[Pod, Sample]]
    """When it was scraped last before the rate window began."""


def _engine(answers: Answers, metrics: MetricNames) -> _Engine:
    asked = [_asked(answers, signal, metrics) for signal in metrics.series]
    last = _found(answers, Freshness.LAST_SAMPLE, Signal.RUNNING, metrics)
    before = _found(answers, Freshness.WINDOW_START, Signal.RUNNING, metrics)
    return _Engine(answers, metrics, asked, last, before)


def _found(answers: Answers, query: str, signal: Signal, metrics: MetricNames) -> list[Mapping[Pod, Sample]]:
    """An answer about the series of a signal, for each alternative of which there is something."""
    known = answers.values.get(query, {})
    return [known[tag] for series in metrics.series[signal] if (tag := series_id(series, metrics)) in known]


def _asked(answers: Answers, signal: Signal, metrics: MetricNames) -> _Asked:
    if why := answers.failures.get(signal):
        absent: Reading = Missing(f"Prometheus: {why}")
    else:
        names = " or ".join(s.name for s in metrics.series[signal])
        absent = Missing(f"no series {names} for the pod")
    return _Asked(signal, signal in WINDOWED, _found(answers, signal, signal, metrics), absent)


def _pod_metrics(engine: _Engine, pod: Key) -> PodMetrics:
    """The readings of one pod."""
    worth = _worth(engine, pod)
    readings = {asked.signal: _reading(asked, pod, worth) for asked in engine.asked}
    return PodMetrics(readings, engine.answers.buckets.get((*pod, engine.metrics.first_token or ""), ()))


class _Worth(NamedTuple):
    """What a pod's samples are good for: the same for all of its gauges, and for all of its rates."""

    at: float
    """When the gauges were measured."""
    gauge: type[Fresh | Stale]
    rate_at: float
    rate: type[Fresh | Stale]


def _worth(engine: _Engine, pod: Key) -> _Worth | None:
    """None when Prometheus did not say how old they are."""
    answers, window = engine.answers, engine.metrics.rate_window_seconds
    newest, oldest = _age(engine.last, pod), _age(engine.before, pod)
    if newest is None:
        return None
    at = answers.at - newest
    if newest > answers.stale_after:
        return _Worth(at, Stale, at, Stale)
    whole = oldest is not None and oldest <= window + edge(window) and newest <= edge(window)
    return _Worth(at, Fresh, at, Fresh) if whole else _Worth(at, Fresh, answers.at, Stale)


def _reading(asked: _Asked, pod: Key, worth: _Worth | None) -> Reading:
    for found in asked.found:
        sample = found.get(pod)
        if sample is not None:
            break
    else:
        return asked.absent
    value = sample.value
    if not 0 <= value <= MOST:  # NaN is not either
        return Missing(f"Prometheus answered {value}")
    if worth is None:
        return Missing("the age of the last sample is unknown")
    return worth.rate(value, worth.rate_at) if asked.windowed else worth.gauge(value, worth.at)


def _age(found: Sequence[Mapping[Pod, Sample]], pod: Key) -> float | None:
    """Seconds between the pod's sample and the evaluation; None when Prometheus did not say."""
    for series in found:
        sample = series.get(pod)
        if sample is not None and math.isfinite(sample.value):
            return max(0.0, sample.at - sample.value)
    return None


_POD, _SERIES = itemgetter("namespace", "pod"), itemgetter("series")


def _by_series(samples: Sequence[Sample]) -> BySeries:
    """Whose samples these are: all at once, for there are tens of thousands, hardly one without a label."""
    labels = [sample.labels for sample in samples]
    try:
        pods, series = list(map(_POD, labels)), list(map(_SERIES, labels))
    except KeyError:
        pods = [(one.get("namespace", ""), one.get("pod", "")) for one in labels]
        series = [one.get("series", "") for one in labels]
    found: dict[str, dict[Pod, Sample]] = {tag: {} for tag in set(series)}
    if len(found) == 1:
        return {series[0]: dict(zip(pods, samples, strict=True))}
    for tag, pod, sample in zip(series, pods, samples, strict=True):
        found[tag][pod] = sample
    return found


def _buckets(answer: Answer | None) -> dict[tuple[str, str, str], tuple[tuple[float, float], ...]]:
    if not isinstance(answer, Samples):
        return {}
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for labels, value, _ in answer.samples:
        bound = _bound(labels.get("le", ""))
        if bound is not None and 0 <= value <= MOST:
            where = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("series", ""))
            found[where].append((bound, value))
    return {where: tuple(sorted(pairs)) for where, pairs in found.items()}


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
