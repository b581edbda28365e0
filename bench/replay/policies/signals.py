"""External metrics as people configure them: PromQL totals, and what KEDA or the adapter makes of no answer.

Source: KEDA 2.21, pkg/scalers/prometheus_scaler.go: an empty vector counts as 0 while ``ignoreNullValues`` is
true, its default; more than one element is an error; an error reaches the HPA as an error, unless
``fallback`` is set (pkg/fallback/fallback.go).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.replay.policies.hpa import Metric, MetricError
from bench.replay.prometheus import Unavailable
from bench.replay.view import View

RATE_WINDOW = 60.0
PROMPT_WEIGHT = 0.3

Vector = Mapping[str, float]


def rates(column: str) -> Callable[[View], Vector]:
    """``rate(vllm:…[1m])``."""
    return lambda view: view.prometheus.rates(column, RATE_WINDOW, view.now)


def gauge(column: str) -> Callable[[View], Vector]:
    """The gauge as it stands."""
    return lambda view: view.prometheus.instant(column, view.now)


def total(terms: Iterable[tuple[float, Callable[[View], Vector]]], *, empty_is_zero: bool) -> Metric:
    """``weight · sum(…) + …``; like PromQL, nothing at all when one term is empty.

    Args:
        terms: weight and vector of each.
        empty_is_zero: KEDA's ``ignoreNullValues``; otherwise an empty answer is an error.
    """
    chosen = tuple(terms)

    def metric(view: View) -> float:
        try:
            vectors = [(weight, vector(view)) for weight, vector in chosen]
        except Unavailable as error:
            raise MetricError(str(error)) from None
        if any(not vector for _, vector in vectors):
            if empty_is_zero:
                return 0.0
            raise MetricError("the query returned nothing")
        return math.fsum(weight * math.fsum(vector.values()) for weight, vector in vectors)

    return metric


def generated(*, empty_is_zero: bool) -> Metric:
    """``sum(rate(vllm:generation_tokens_total[1m]))``."""
    return total([(1.0, rates("generation_tokens_total"))], empty_is_zero=empty_is_zero)


def weighted(*, empty_is_zero: bool) -> Metric:
    """Generated plus 0.3 times prompt tokens per second."""
    terms = [(1.0, rates("generation_tokens_total")), (PROMPT_WEIGHT, rates("prompt_tokens_total"))]
    return total(terms, empty_is_zero=empty_is_zero)


def waiting() -> Metric:
    """``sum(vllm:num_requests_waiting)`` with KEDA's defaults."""
    return total([(1.0, gauge("num_requests_waiting"))], empty_is_zero=True)


def in_flight() -> Metric:
    """``sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)`` with KEDA's defaults."""
    return total(
        [(1.0, gauge("num_requests_running")), (1.0, gauge("num_requests_waiting"))], empty_is_zero=True
    )


@dataclass(slots=True)
class WithFallback:
    """A KEDA trigger with ``fallback``: after more errors in a row than allowed, a fixed count is asked for.

    Attributes:
        metric: the trigger's own.
        target: its threshold, average per pod.
        replicas: ``fallback.replicas``.
        failures: ``fallback.failureThreshold``.
    """

    metric: Metric
    target: float
    replicas: int
    failures: int
    _failed: int = 0

    def __call__(self, view: View) -> float:
        """The metric, or what makes the HPA arrive at the fallback."""
        try:
            value = self.metric(view)
        except MetricError:
            self._failed += 1
            if self._failed <= self.failures:
                raise
            return self.target * self.replicas
        self._failed = 0
        return value


def one_element(vector: Callable[[View], Vector]) -> Metric:
    """A query that nobody aggregates: KEDA refuses it as soon as there are two pods."""

    def metric(view: View) -> float:
        try:
            values = list(vector(view).values())
        except Unavailable as error:
            raise MetricError(str(error)) from None
        if len(values) > 1:
            raise MetricError("prometheus query returned multiple elements")
        return values[0] if values else 0.0

    return metric
