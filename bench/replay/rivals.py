"""The autoscalers that Stoker is compared with, and the references.

Rules of this module:

* A policy's second knob is the one that its users turn: how long it waits before it goes down.
* What has no target in requests or tokens (queue length, share of a cache) says what its parameter is.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.replay.calibration import Capacity
from bench.replay.candidate import FACTORS, FINE, Candidate, Choice, Context, Make
from bench.replay.policies import signals
from bench.replay.policies.aibrix import ApaLike
from bench.replay.policies.dynamo import DynamoLike
from bench.replay.policies.hpa import HorizontalPodAutoscaler, Metric
from bench.replay.policies.knative import KnativePodAutoscaler
from bench.replay.policies.llmd import WvaLike
from bench.replay.policies.reference import Clairvoyant, Static
from bench.replay.view import Policy

FACTOR = "share of one replica's capacity"
SHORTER = "down window 2 min"

_KPA_CONCURRENCY = 70.0
"""container-concurrency-target-default (100) times container-concurrency-target-percentage (70 %):
knative/serving, config/core/configmaps/autoscaler.yaml."""


def _hpa(metric: Callable[[], Metric], unit: Callable[[Capacity], float], down: float = 300.0) -> Make:
    def make(context: Context, factor: float) -> Policy:
        target = unit(context.capacity) * factor
        return HorizontalPodAutoscaler(metric(), target, context.minimum, context.maximum, down)

    return make


def _on_metric(name: str, metric: Callable[[], Metric], unit: Callable[[Capacity], float]) -> Candidate:
    variants = {SHORTER: _hpa(metric, unit, down=120.0)}
    return Candidate(name, FACTOR, FACTORS, _hpa(metric, unit), variants)


def _production_stack(context: Context, threshold: float) -> Policy:
    """``query: vllm:num_requests_waiting``, not aggregated; fallback 2 after 3 failures."""
    query = signals.one_element(signals.gauge("num_requests_waiting"))
    metric = signals.WithFallback(query, threshold, replicas=2, failures=3)
    # cooldownPeriod (360 s) concerns the way to zero alone; the HPA's own window stays at its default.
    return HorizontalPodAutoscaler(metric, threshold, context.minimum, context.maximum)


def _kpa(delay: float) -> Make:
    return lambda c, factor: KnativePodAutoscaler(c.capacity.in_flight * factor, c.minimum, c.maximum, delay)


def _kpa_default(context: Context, concurrency: float) -> Policy:
    return KnativePodAutoscaler(concurrency, context.minimum, context.maximum)


def _apa(*, corrected: bool) -> Make:
    return lambda c, factor: ApaLike(c.capacity.in_flight * factor, c.minimum, c.maximum, corrected)


def _wva(context: Context, share: float) -> Policy:
    return WvaLike(share, context.kv_capacity, context.minimum, context.maximum)


def _dynamo(context: Context, factor: float) -> Policy:
    return DynamoLike(context.capacity.weighted * factor, context.minimum, context.maximum)


def _clairvoyant(context: Context, factor: float) -> Policy:
    capacity = context.capacity.weighted * factor
    return Clairvoyant(context.demand, capacity, context.horizon, context.minimum, context.maximum)


def _static(context: Context, share: float) -> Policy:
    """A share of what the highest minute of the workload needs."""
    peak = float(context.demand.max()) / context.capacity.weighted
    return Static(min(max(context.minimum, round(peak * share)), context.maximum))


_PEAK_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75)
_FORESEEN = (0.7, 0.8, 0.87, 0.95, 1.0, 1.05, 1.12, 1.2, 1.3, 1.5)
"""Who knows what comes can plan replicas fuller than who has to leave room for surprises."""

_QUEUES = (1, 2, 5, 10, 20)
_CACHE_SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

RIVALS: tuple[Candidate, ...] = (
    Candidate("static at peak", "share of the peak's need", _PEAK_SHARES, _static, reference=True),
    Candidate("clairvoyant heuristic", FACTOR, _FORESEEN, _clairvoyant, reference=True),
    _on_metric("hpa generated tokens", lambda: signals.generated(empty_is_zero=False), lambda c: c.generated),
    _on_metric("hpa weighted tokens", lambda: signals.weighted(empty_is_zero=False), lambda c: c.weighted),
    Candidate(
        "keda waiting",
        "requests",
        _QUEUES,
        _hpa(signals.waiting, lambda _: 1.0),
        {SHORTER: _hpa(signals.waiting, lambda _: 1.0, down=120.0)},
        default=Choice(5.0),
    ),
    _on_metric("keda running+waiting", signals.in_flight, lambda c: c.in_flight),
    Candidate("production-stack recipe", "threshold", (5,), _production_stack, default=Choice(5.0)),
    Candidate("knative kpa", FACTOR, FACTORS, _kpa(0.0), {"scale-down-delay 5 min": _kpa(300.0)}),
    Candidate(
        "knative kpa, default",
        "concurrency",
        (_KPA_CONCURRENCY,),
        _kpa_default,
        default=Choice(_KPA_CONCURRENCY),
    ),
    Candidate("aibrix apa-like, as coded", FACTOR, FINE, _apa(corrected=False)),
    Candidate("aibrix apa-like, corrected", FACTOR, FINE, _apa(corrected=True)),
    Candidate("llm-d wva-like", "share of the KV cache", _CACHE_SHARES, _wva, default=Choice(0.8)),
    Candidate("dynamo planner-like", FACTOR, FINE, _dynamo),
)
