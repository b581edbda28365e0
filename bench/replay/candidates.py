"""Who is compared, and with which settings: the same number of them for every policy that has one.

Rules of this module:

* A policy's target is what `calibration` measured, times a factor; the factors are the same for all.
* What has no such target (queue length, no setting at all) says what its parameter is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.replay.calibration import Capacity
from bench.replay.policies import signals
from bench.replay.policies.aibrix import ApaLike
from bench.replay.policies.dynamo import DynamoLike
from bench.replay.policies.hpa import HorizontalPodAutoscaler, Metric
from bench.replay.policies.knative import KnativePodAutoscaler
from bench.replay.policies.llmd import WvaLike
from bench.replay.policies.reference import Clairvoyant, Static
from bench.replay.policies.stoker import Stoker, deployment
from bench.replay.view import Policy

FACTORS = (0.35, 0.5, 0.65, 0.8, 0.95)


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy may be made from.

    Attributes:
        capacity: of one replica, from `calibration`.
        minimum: fewest replicas.
        maximum: most replicas.
        demand: of the workload, for the clairvoyant alone.
        horizon: seconds to serve, at the longest that is reckoned with.
    """

    capacity: Capacity
    minimum: int
    maximum: int
    demand: NDArray[np.float64]
    horizon: float
    kv_capacity: int
    """Tokens that a replica's KV cache holds, as the engine exports it (``vllm:cache_config_info``)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy and the settings it is tried with.

    Attributes:
        name: in results; ``-like`` where the source's rule is not exact.
        parameter: what the settings are.
        settings: one run each.
        make: a fresh policy for a setting.
        reference: it is no autoscaler that anybody could run.
    """

    name: str
    parameter: str
    settings: Sequence[float]
    make: Callable[[Context, float], Policy]
    reference: bool = False


def _hpa(
    metric: Callable[[], Metric], unit: Callable[[Capacity], float]
) -> Callable[[Context, float], Policy]:
    def make(context: Context, factor: float) -> Policy:
        target = unit(context.capacity) * factor
        return HorizontalPodAutoscaler(metric(), target, context.minimum, context.maximum)

    return make


def _production_stack(context: Context, threshold: float) -> Policy:
    """``query: vllm:num_requests_waiting``, not aggregated; fallback 2 after 3 failures."""
    query = signals.one_element(signals.gauge("num_requests_waiting"))
    metric = signals.WithFallback(query, threshold, replicas=2, failures=3)
    # cooldownPeriod (360 s) concerns the way to zero alone; the HPA's own window stays at its default.
    return HorizontalPodAutoscaler(metric, threshold, context.minimum, context.maximum)


def _stoker_defaults(context: Context, _: float) -> Policy:
    return Stoker(deployment(context.minimum, context.maximum))


def _stoker_utilization(context: Context, utilization: float) -> Policy:
    capacity = round(context.capacity.weighted)
    targets = {"utilization": utilization}
    return Stoker(deployment(context.minimum, context.maximum, tokens_per_second=capacity, targets=targets))


def _stoker_in_flight(context: Context, factor: float) -> Policy:
    targets = {"concurrentRequests": max(1, round(context.capacity.in_flight * factor))}
    return Stoker(deployment(context.minimum, context.maximum, targets=targets))


def _stoker_both(context: Context, factor: float) -> Policy:
    """Tokens and requests in flight; the latter at its full measure, as a guard."""
    targets = {"utilization": factor, "concurrentRequests": max(1, round(context.capacity.in_flight))}
    capacity = round(context.capacity.weighted)
    return Stoker(deployment(context.minimum, context.maximum, tokens_per_second=capacity, targets=targets))


def _kpa(delay: float) -> Callable[[Context, float], Policy]:
    return lambda c, factor: KnativePodAutoscaler(c.capacity.in_flight * factor, c.minimum, c.maximum, delay)


def _apa(*, corrected: bool) -> Callable[[Context, float], Policy]:
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


_FACTOR = "share of one replica's capacity"

CANDIDATES: tuple[Candidate, ...] = (
    Candidate("static", "share of the peak's need", (0.5, 0.75, 1.0, 1.25, 1.5), _static, reference=True),
    Candidate("clairvoyant heuristic", _FACTOR, FACTORS, _clairvoyant, reference=True),
    Candidate(
        "hpa generated tokens",
        _FACTOR,
        FACTORS,
        _hpa(lambda: signals.generated(empty_is_zero=False), lambda c: c.generated),
    ),
    Candidate(
        "hpa weighted tokens",
        _FACTOR,
        FACTORS,
        _hpa(lambda: signals.weighted(empty_is_zero=False), lambda c: c.weighted),
    ),
    Candidate("keda waiting", "requests", (1, 2, 5, 10, 20), _hpa(signals.waiting, lambda _: 1.0)),
    Candidate("keda running+waiting", _FACTOR, FACTORS, _hpa(signals.in_flight, lambda c: c.in_flight)),
    Candidate("production-stack recipe", "threshold", (5,), _production_stack),
    Candidate("knative kpa", _FACTOR, FACTORS, _kpa(0.0)),
    Candidate("knative kpa, scale-down-delay 5m", _FACTOR, FACTORS, _kpa(300.0)),
    Candidate("aibrix apa-like, as coded", _FACTOR, FACTORS, _apa(corrected=False)),
    Candidate("aibrix apa-like, corrected", _FACTOR, FACTORS, _apa(corrected=True)),
    Candidate("llm-d wva-like", "share of the KV cache", (0.15, 0.25, 0.4, 0.6, 0.8), _wva),
    Candidate("dynamo planner-like", _FACTOR, FACTORS, _dynamo),
    Candidate("stoker, min and max only", "none", (0,), _stoker_defaults),
    Candidate("stoker utilization", "utilization", FACTORS, _stoker_utilization),
    Candidate("stoker concurrentRequests", _FACTOR, FACTORS, _stoker_in_flight),
    Candidate("stoker utilization and concurrentRequests", "utilization", FACTORS, _stoker_both),
)


def candidate(name: str) -> Candidate:
    """The candidate of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    found = next((c for c in CANDIDATES if c.name == name), None)
    if found is None:
        raise ValueError(f"policy {name!r} is not known; known are: {'; '.join(c.name for c in CANDIDATES)}")
    return found
