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


Where = tuple[str, str, str]
"""Namespace, pod, and what tells the series from others in a joined answer; empty where a sample has none."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One tick's answers, indexed by pod."""

    at: float
    """The operator's clock, Unix s: stamped on readings so that ages compare with ``Snapshot.now``."""
    stale_after: float
    """Seconds after which a pod's last sample is too old to act on."""
    values: Mapping[str, Mapping[Where, Sample]]
    failures: Mapping[str, str]
    buckets: Mapping[Where, tuple[tuple[float, float], ...]]


def index(answers: Mapping[str, Answer], at: float, stale_after: float) -> Answers:
    """Sort answers by pod and series, once for the whole fleet."""
    values = {
        name: dict(zip(_places(answer.samples), answer.samples, strict=True))
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
    series: Sequence[str]
    """What tells them apart, the preferred one first."""
    found: Mapping[Where, Sample]
    absent: Reading
    """The reading of a pod that has none of the series."""


@dataclass(frozen=True, slots=True)
class _Engine:
    """The answers about the pods that speak ``metrics``."""

    answers: Answers
    metrics: MetricNames
    asked: Sequence[_Asked]
    running: Sequence[str]
    """What tells the series apart by which the freshness is judged."""


def _engine(answers: Answers, metrics: MetricNames) -> _Engine:
    ids = {signal: [series_id(s, metrics) for s in found] for signal, found in metrics.series.items()}
    asked = [_asked(answers, signal, metrics, ids[signal]) for signal in metrics.series]
    return _Engine(answers, metrics, asked, ids[Signal.RUNNING])


def _asked(answers: Answers, signal: Signal, metrics: MetricNames, ids: Sequence[str]) -> _Asked:
    if why := answers.failures.get(signal):
        absent: Reading = Missing(f"Prometheus: {why}")
    else:
        names = " or ".join(s.name for s in metrics.series[signal])
        absent = Missing(f"no series {names} for the pod")
    return _Asked(signal, signal in WINDOWED, ids, answers.values.get(signal, {}), absent)


def _pod_metrics(engine: _Engine, pod: Key) -> PodMetrics:
    """The readings of one pod."""
    window = _window(engine, pod)
    readings = {asked.signal: _reading(engine.answers, asked, pod, window) for asked in engine.asked}
    return PodMetrics(readings, engine.answers.buckets.get((*pod, engine.metrics.first_token or ""), ()))


@dataclass(frozen=True, slots=True)
class _Window:
    """How well one pod's samples cover the rate window."""

    newest: float | None
    """Age (s) of the last sample; None when Prometheus did not say."""
    whole: bool
    """Whether a sample stands just before the window, and one near its end."""


def _window(engine: _Engine, pod: Key) -> _Window:
    answers, window = engine.answers, engine.metrics.rate_window_seconds
    newest = _age(answers.values.get(Freshness.LAST_SAMPLE, {}), pod, engine.running)
    oldest = _age(answers.values.get(Freshness.WINDOW_START, {}), pod, engine.running)
    begun = oldest is not None and oldest <= window + edge(window)
    return _Window(newest, begun and newest is not None and newest <= edge(window))


def _reading(answers: Answers, asked: _Asked, pod: Key, window: _Window) -> Reading:
    for series in asked.series:
        sample = asked.found.get((*pod, series))
        if sample is not None:
            return _judged(answers, asked, sample.value, window)
    return asked.absent


def _judged(answers: Answers, asked: _Asked, value: float, window: _Window) -> Reading:
    if not 0 <= value <= MOST:  # NaN is not either
        return Missing(f"Prometheus answered {value}")
    if window.newest is None:
        return Missing("the age of the last sample is unknown")
    if window.newest > answers.stale_after:
        return Stale(value, answers.at - window.newest)
    if asked.windowed and not window.whole:
        return Stale(value, answers.at)
    return Fresh(value, answers.at - window.newest)


def _age(found: Mapping[Where, Sample], pod: Key, running: Sequence[str]) -> float | None:
    """Seconds between the pod's sample and the evaluation; None when Prometheus did not say."""
    for series in running:
        sample = found.get((*pod, series))
        if sample is not None and math.isfinite(sample.value):
            return max(0.0, sample.at - sample.value)
    return None


_PLACE = itemgetter("namespace", "pod", "series")


def _places(samples: Sequence[Sample]) -> Iterable[Where]:
    """Whose samples these are: all at once, for there are tens of thousands, hardly one without a label."""
    labels = [sample.labels for sample in samples]
    try:
        return list(map(_PLACE, labels))
    except KeyError:
        return [(one.get("namespace", ""), one.get("pod", ""), one.get("series", "")) for one in labels]


def _buckets(answer: Answer | None) -> dict[Where, tuple[tuple[float, float], ...]]:
    if not isinstance(answer, Samples):
        return {}
    found: dict[Where, list[tuple[float, float]]] = defaultdict(list)
    for where, sample in zip(_places(answer.samples), answer.samples, strict=True):
        bound = _bound(sample.labels.get("le", ""))
        if bound is not None and 0 <= sample.value <= MOST:
            found[where].append((bound, sample.value))
    return {where: tuple(sorted(pairs)) for where, pairs in found.items()}


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
