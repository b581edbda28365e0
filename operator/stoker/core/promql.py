"""What to ask Prometheus: PromQL for the whole fleet.

Rules of this module:

* One query per signal for the whole fleet, whatever the number of ModelDeployments. Engines that
  name a series differently are joined with ``or`` under a label that tells them apart.
* The freshness of what it answers is asked of Prometheus too: the operator's clock plays no part.
* ``rate()`` divides what it saw by the whole window: after an outage, and while a window fills, that reads as
  a drop. So a rate is the slope between two samples, whatever stands in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from stoker.core.readings import FOR_LEARNING, MetricNames, Series, Signal

COUNTERS = frozenset({Signal.GENERATED_TOKENS, Signal.PROMPT_TOKENS, Signal.REQUESTS})

FIRST_TOKEN = "firstToken"  # noqa: S105 - a query's name, not a secret


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


@dataclass(frozen=True, slots=True)
class LatencyScope:
    """Where time-to-first-token histograms are needed: they are many series, so only where a target asks."""

    namespace: str
    metrics: MetricNames


def queries(
    engines: Iterable[MetricNames], latency: Iterable[LatencyScope] = (), idle: Container[str] = ()
) -> dict[str, str]:
    """PromQL by query name for all engines in use: at most 10 queries.

    Args:
        engines: The metric names of every engine that some ModelDeployment uses; repeats are fine.
        latency: Namespaces with a time-to-first-token target.
        idle: What tells those alternatives apart that no pod has: Prometheus works as hard for them as for
            those that all have.
    """
    names = sorted(set(engines), key=repr)
    # First what no other answer means anything without: a Prometheus that is slow leaves the last ones out.
    asked = {
        Freshness.LAST_SAMPLE.value: _union(_timestamp_terms(names, at_window_start=False)),
        Freshness.WINDOW_START.value: _union(_timestamp_terms(names, at_window_start=True)),
    }
    asked |= {
        signal.value: _union(_signal_terms(signal, names, idle))
        for signal in sorted(Signal, key=FOR_LEARNING.__contains__)
    }
    asked[FIRST_TOKEN] = _first_token(latency)
    return {name: query for name, query in asked.items() if query}


def alternatives(signal: Signal, metrics: MetricNames) -> set[str]:
    """What tells the series apart that can stand in for an engine's preferred one."""
    return {series_id(series, metrics) for series in metrics.series[signal][1:]}


def _signal_terms(signal: Signal, engines: Sequence[MetricNames], idle: Container[str]) -> list[str]:
    return [
        _preferred([_by_pod(signal, series, metrics) for series in _asked(signal, metrics, idle)])
        for metrics in engines
        if signal in metrics.series
    ]


def _asked(signal: Signal, metrics: MetricNames, idle: Container[str]) -> list[Series]:
    preferred, *others = metrics.series[signal]
    return [preferred, *(series for series in others if series_id(series, metrics) not in idle)]


def _preferred(terms: Sequence[str]) -> str:
    """Of each pod the first of them that it has: an answer with all would be as many times as long."""
    joined = " or on (namespace, pod) ".join(terms)
    return f"({joined})" if len(terms) > 1 else joined


def _by_pod(signal: Signal, series: Series, metrics: MetricNames) -> str:
    """One element per pod, whatever the number of its data-parallel ranks, under the name of its series."""
    return _tagged(_merged(signal, series, metrics), series_id(series, metrics))


def _merged(signal: Signal, series: Series, metrics: MetricNames) -> str:
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
