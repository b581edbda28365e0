"""From readings to faces: what each signal says about how many replicas the traffic needs.

Rules of this module:

* A total is complete only when every replica that is known to serve has answered with a fresh value.
  An incomplete total is still a lower bound: it may add replicas, it never takes one away.
* Every target of the spec is one face; the largest answer wins (``scaling`` combines them).
* Served-token counters go flat when replicas saturate, so the token face also counts the work that
  stands in the engines' queues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stoker.api.v1alpha1 import Freshness, ModelDeploymentSpec, Targets
from stoker.core.observed import Fresh, Key, Metrics, Missing, Pod, PodMetrics, Reading, Signal, Stale

PROMPT_TOKEN_WEIGHT = 0.3
"""Cost of computing a prompt token relative to generating one: between 0.25 and 0.35 for the published
H100 measurements of 32B and 70B models (ai-dynamo/aiconfigurator, silicon_sample.csv)."""

BACKLOG_SECONDS = 60.0
"""Queued work is to be done within this time, beside the arriving one."""

DEFAULT_CONCURRENT_REQUESTS = 40
"""Requests in flight per replica when the spec states no target and no capacity. With it, scaling on
requests in flight came within 0.1 points of a clairvoyant policy's attainment, on a day of production
traffic at 60 s start-up (32B model on two H100)."""

WARM_UP_SECONDS = 30.0
"""Beyond the rate window: how long a replica that just became ready may take to show up in Prometheus."""

FIRST_TOKEN_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class Total:
    """One signal over all replicas of a ModelDeployment."""

    at_least: float
    """Sum of what was answered freshly: a lower bound of the truth."""
    reading: Reading
    """Fresh only when complete."""
    covered: int
    """Serving replicas that answered freshly."""
    expected: int
    """Serving replicas that should have: all but those that just became ready."""
    serving: int
    """All serving replicas."""

    @property
    def complete(self) -> bool:
        """Whether every serving replica answered: only then may the total shrink a fleet."""
        return isinstance(self.reading, Fresh)

    @property
    def blind(self) -> bool:
        """Whether no serving replica is known to carry anything."""
        return self.covered == 0

    @property
    def freshness(self) -> Freshness:
        """The worst of the readings; replicas that just became ready are not held against it."""
        if self.covered >= self.expected and self.covered > 0:
            return Freshness.FRESH
        return Freshness.STALE if isinstance(self.reading, Stale) else Freshness.MISSING


@dataclass(frozen=True, slots=True)
class Demand:
    """What the replicas of one ModelDeployment carry, as far as it is known."""

    totals: Mapping[Signal, Total]
    first_token: Reading
    """p95 of the time to first token in s over all replicas; Missing when nobody measures or asks for it."""
    serving: int


@dataclass(frozen=True, slots=True)
class Face:
    """One target's answer."""

    name: str
    """The target's field name in the spec."""
    unit: str
    value: float | None
    """Demand in ``unit``; a lower bound unless complete; None when nothing is known."""
    target: float
    """What one replica is to carry, in ``unit``."""
    replicas: int
    """How many replicas the (lower bound of the) demand needs."""
    complete: bool
    """Whether the answer may also shrink the fleet."""
    blind: bool
    """Whether nothing is known."""
    message: str
    freshness: Freshness = Freshness.FRESH
    """The worst of its signals; replicas that just became ready are not held against it."""
    covered: int = 0
    """Serving replicas that answered."""
    expected: int = 0
    """Serving replicas that should have answered."""
    guard: bool = False
    """A guard only adds, and its value is no load that could be split over replicas."""

    @property
    def load(self) -> float:
        """Demand in replicas, not rounded; 0 where it is unknown or cannot be said."""
        return 0.0 if self.value is None or self.guard else self.value / self.target


# --- Totals --------------------------------------------------------------------------------------


def measure(metrics: Metrics, pods: Sequence[Pod], now: float, rate_window: float) -> Demand:
    """Sum the readings of one ModelDeployment's pods and check who answered.

    Args:
        metrics: All readings of this tick.
        pods: The ModelDeployment's pods, in any order.
        now: Unix s.
        rate_window: Seconds of the engine's rate window.
    """
    counted = [p for p in pods if not p.deleting and not p.terminal]
    signals = sorted({s for p in counted if (m := metrics.pods.get(p.key)) for s in m.readings})
    grace = rate_window + WARM_UP_SECONDS
    serving = sum(p.routed for p in counted)
    totals = {signal: _total(signal, metrics, counted, now, grace) for signal in signals}
    return Demand(totals, _first_token(metrics, counted), serving)


def _total(signal: Signal, metrics: Metrics, pods: Sequence[Pod], now: float, grace: float) -> Total:
    readings = [(p, _reading_of(metrics.pods.get(p.key), signal)) for p in pods]
    at_least = math.fsum(_lower_bound(r, metrics.at) for _, r in readings)
    serving = [(p, r) for p, r in readings if p.routed]
    covered = sum(isinstance(r, Fresh) for _, r in serving)
    warming = sum(not isinstance(r, Fresh) and _warming(p, now, grace) for p, r in serving)
    reading = _combined([(p.key, r) for p, r in serving], at_least)
    return Total(at_least, reading, covered, len(serving) - warming, len(serving))


def _lower_bound(reading: Reading, at: float) -> float:
    """What a reading proves of the present: its value if fresh, or of a window still filling ``at``."""
    match reading:
        case Fresh(value):
            return value
        case Stale(value, seen) if seen >= at:
            return value
    return 0.0


def _warming(pod: Pod, now: float, grace: float) -> bool:
    return pod.ready_since is not None and now - pod.ready_since < grace


def _reading_of(metrics: PodMetrics | None, signal: Signal) -> Reading:
    if metrics is None:
        return Missing("the pod was not asked for")
    return metrics.readings.get(signal, Missing("the engine has no such metric"))


def _combined(serving: Sequence[tuple[Key, Reading]], at_least: float) -> Reading:
    """The worst of the readings: Missing before Stale before Fresh; it names one pod as the example."""
    if not serving:
        return Missing("no replica serves yet")
    ordered = sorted(serving, key=lambda pair: pair[0])
    for key, reading in ordered:
        if isinstance(reading, Missing):
            return Missing(f"{key.name}: {reading.why}")
    stale = [r.at for _, r in ordered if isinstance(r, Stale)]
    if stale:
        return Stale(at_least, min(stale))
    return Fresh(at_least, min(r.at for _, r in ordered if isinstance(r, Fresh)))


def _first_token(metrics: Metrics, pods: Sequence[Pod]) -> Reading:
    """p95 over the summed histograms of all pods that answered."""
    summed: dict[float, float] = {}
    for pod in sorted(pods, key=lambda p: p.key):
        for bound, rate in (metrics.pods.get(pod.key) or _NO_METRICS).first_token_buckets:
            summed[bound] = summed.get(bound, 0.0) + rate
    value = histogram_quantile(FIRST_TOKEN_QUANTILE, sorted(summed.items()))
    if value is None:
        return Missing("no request got its first token within the rate window")
    return Fresh(value, metrics.at)


_NO_METRICS = PodMetrics({})


def histogram_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Quantile of a cumulative histogram, as Prometheus' ``histogram_quantile`` computes it.

    Args:
        q: 0 < q < 1.
        buckets: (upper bound, cumulative count or rate), ascending, ending in +Inf.

    Returns:
        Linear interpolation within the bucket; the highest finite bound if the quantile lies beyond it;
        None without observations or without a +Inf bucket (promql/quantile.go, bucketQuantile).
    """
    if len(buckets) < 2 or not math.isinf(buckets[-1][0]) or buckets[-1][1] <= 0:
        return None
    rank = q * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, cumulative in buckets:
        if cumulative >= rank:
            if math.isinf(bound):
                return lower
            width = cumulative - below
            return lower + (bound - lower) * ((rank - below) / width if width > 0 else 1.0)
        lower, below = bound, cumulative
    return lower


# --- Faces ---------------------------------------------------------------------------------------


def faces(spec: ModelDeploymentSpec, demand: Demand, current: int) -> tuple[Face, ...]:
    """Every target's answer, in the order of the spec.

    Args:
        spec: With ``scaling`` set.
        demand: From ``measure``.
        current: Replicas wanted by the last decision.
    """
    assert spec.scaling is not None  # noqa: S101 - the caller's contract
    targets = spec.scaling.targets
    found = [
        _utilization(targets, spec.accelerators[0].tokens_per_second, demand),
        _simple(
            "generatedTokensPerSecond",
            "tokens/s",
            Signal.GENERATED_TOKENS,
            demand,
            targets.generated_tokens_per_second,
        ),
        _simple(
            "promptTokensPerSecond",
            "tokens/s",
            Signal.PROMPT_TOKENS,
            demand,
            targets.prompt_tokens_per_second,
        ),
        _simple("requestsPerSecond", "requests/s", Signal.REQUESTS, demand, targets.requests_per_second),
        _in_flight("concurrentRequests", demand, targets.concurrent_requests),
    ]
    stated = [face for face in found if face is not None]
    if not stated:
        default = _in_flight("concurrentRequests (default)", demand, DEFAULT_CONCURRENT_REQUESTS)
        stated = [default] if default is not None else []
    guard = _first_token_guard(targets, demand, current)
    return (*stated, guard) if guard is not None else tuple(stated)


def needed(load: float, per_replica: float) -> int:
    """Replicas that carry ``load``; a load that fits to within rounding error needs no further replica."""
    return max(0, math.ceil(load / per_replica - 1e-9))


def _simple(name: str, unit: str, signal: Signal, demand: Demand, target: float | None) -> Face | None:
    if target is None:
        return None
    return _face(name, unit, target, [demand.totals.get(signal)], lambda values: values[0])


def _in_flight(name: str, demand: Demand, target: float | None) -> Face | None:
    if target is None:
        return None
    totals = [demand.totals.get(Signal.RUNNING)]
    if Signal.WAITING in demand.totals or not demand.totals:
        totals.append(demand.totals.get(Signal.WAITING))
    return _face(name, "requests", target, totals, math.fsum)


def _utilization(targets: Targets, capacity: int | None, demand: Demand) -> Face | None:
    """Weighted token rate, with the queued work on top, against the stated capacity × utilization."""
    if capacity is None:
        return None
    totals = [demand.totals.get(Signal.GENERATED_TOKENS)]
    if Signal.PROMPT_TOKENS in demand.totals:
        totals.append(demand.totals[Signal.PROMPT_TOKENS])
    backlog = _backlog(demand)

    def weighted(values: Sequence[float]) -> float:
        prompt = values[1] if len(values) > 1 else 0.0
        return values[0] + PROMPT_TOKEN_WEIGHT * prompt + backlog

    return _face("utilization", "weighted tokens/s", capacity * targets.utilization, totals, weighted)


def _backlog(demand: Demand) -> float:
    """Weighted tokens/s that would do the queued requests within BACKLOG_SECONDS.

    A queued request is taken to be as large as those that finished lately; unknown sizes add nothing.
    """
    waiting, requests = demand.totals.get(Signal.WAITING), demand.totals.get(Signal.REQUESTS)
    generated, prompt = demand.totals.get(Signal.GENERATED_TOKENS), demand.totals.get(Signal.PROMPT_TOKENS)
    if waiting is None or requests is None or generated is None or requests.at_least <= 0:
        return 0.0
    work = generated.at_least + (PROMPT_TOKEN_WEIGHT * prompt.at_least if prompt is not None else 0.0)
    return waiting.at_least * (work / requests.at_least) / BACKLOG_SECONDS


def _face(
    name: str,
    unit: str,
    target: float,
    totals: Sequence[Total | None],
    combine: Callable[[Sequence[float]], float],
) -> Face:
    """A face over totals: complete only if all are, blind if any is."""
    known = [t for t in totals if t is not None]
    covered = min((t.covered for t in known), default=0)
    expected = max((t.expected for t in known), default=0)
    worst = max((t.freshness for t in known), key=_SEVERITY.index, default=Freshness.MISSING)
    if len(known) < len(totals) or any(t.blind for t in known):
        unknown = (
            "the engine has no such metric" if any(t.serving for t in known) else "no replica serves yet"
        )
        why = next((_why(t.reading) for t in known if t.blind), unknown)
        worst = max(worst, Freshness.STALE, key=_SEVERITY.index)
        return Face(name, unit, None, target, 0, False, True, why, worst, covered, expected)
    value = combine([t.at_least for t in known])
    incomplete = next((t for t in known if not t.complete), None)
    replicas = needed(value, target)
    message = f"{value:.4g} {unit} at {target:.4g} per replica needs {replicas}"
    if incomplete is not None:
        message += f" at least: {incomplete.covered} of {incomplete.serving} replicas answered"
    return Face(
        name, unit, value, target, replicas, incomplete is None, False, message, worst, covered, expected
    )


def _unknown(known: Sequence[Total]) -> str:
    return "the engine has no such metric" if any(t.serving for t in known) else "no replica serves yet"


_SEVERITY = (Freshness.FRESH, Freshness.STALE, Freshness.MISSING)


def _first_token_guard(targets: Targets, demand: Demand, current: int) -> Face | None:
    """Above the objective: a tenth more replicas (at least one), once those under way all serve."""
    if targets.time_to_first_token is None:
        return None
    name, objective = "timeToFirstToken", targets.time_to_first_token.seconds
    if not isinstance(demand.first_token, Fresh):
        return Face(
            name,
            "s",
            None,
            objective,
            0,
            complete=True,
            blind=False,
            message=_why(demand.first_token),
            guard=True,
        )
    value = demand.first_token.value
    replicas, message = 0, f"p95 {value:.3g} s is within {objective:.3g} s"
    if value > objective:
        settled = demand.serving >= current
        replicas = current + max(1, math.ceil(current / 10)) if settled else current
        then = f"needs {replicas}" if settled else f"{current} wanted already, {demand.serving} serve"
        message = f"p95 {value:.3g} s is above {objective:.3g} s: {then}"
    return Face(
        name, "s", value, objective, replicas, complete=True, blind=False, message=message, guard=True
    )


def _why(reading: Reading) -> str:
    match reading:
        case Missing(why):
            return why
        case Stale():
            return "the last samples are too old"
        case Fresh():
            return "some replicas did not answer"
