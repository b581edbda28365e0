"""From demand to faces: what each target of the spec says about how many replicas the traffic needs.

Rules of this module:

* Every target of the spec is one face; the largest answer wins (``scaling`` combines them).
* A face may shrink the fleet only when every total that it is made of is complete.
* Served-token counters go flat when replicas saturate, so the token face also counts the work that
  stands in the engines' queues.
* Tokens that were not counted yet are no idleness: a fleet that may shrink to nothing also looks at the
  requests in flight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stoker.api.v1alpha1 import Freshness, ModelDeploymentSpec, Targets
from stoker.core.demand import Demand, Total
from stoker.core.readings import Fresh, Missing, Reading, Signal, Stale

PROMPT_TOKEN_WEIGHT = 0.3
"""Cost of computing a prompt token relative to generating one: between 0.25 and 0.35 for the published
H100 measurements of 32B and 70B models (ai-dynamo/aiconfigurator, silicon_sample.csv)."""

BACKLOG_SECONDS = 60.0
"""Queued work is to be done within this time, beside the arriving one."""

DEFAULT_CONCURRENT_REQUESTS = 40
"""Requests in flight per replica when the spec states no target and no capacity. With it, scaling on
requests in flight came within 0.1 points of a clairvoyant policy's attainment, on a day of production
traffic at 60 s start-up (32B model on two H100)."""


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
    whole: bool = False
    """Whether it was read for the fleet as a whole, so that it can be known while no replica serves."""
    guard: bool = False
    """A guard only adds, and its value is no load that could be split over replicas."""
    ahead: bool = False
    """It is about a moment to come: it only adds, and is no evidence of what was needed."""

    @property
    def load(self) -> float:
        """Demand in replicas, not rounded; 0 where it is unknown or cannot be said."""
        return 0.0 if self.value is None or self.guard or self.ahead else self.value / self.target


def faces_of(spec: ModelDeploymentSpec, demand: Demand, current: int) -> tuple[Face, ...]:
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
        in_flight("concurrentRequests", demand, targets.concurrent_requests),
    ]
    stated = [face for face in found if face is not None]
    if not stated:
        default = in_flight("concurrentRequests (default)", demand, DEFAULT_CONCURRENT_REQUESTS)
        stated = [default] if default is not None else []
    if spec.scaling.min_replicas == 0 and not any(face.unit == "requests" for face in stated):
        stated += _occupied(demand)
    guard = _first_token_guard(targets, demand, current)
    return (*stated, guard) if guard is not None else tuple(stated)


def _total(demand: Demand, signal: Signal) -> Total:
    """The signal's total; one that nobody answered, and says why, when there was nothing to add up."""
    why = "nothing was read: the engine has no such metric, or Prometheus was not asked yet"
    missing = Missing(why if demand.serving else "no replica serves yet")
    return demand.totals.get(signal, Total(0.0, missing, 0, demand.serving, demand.serving))


def needed(load: float, per_replica: float) -> int:
    """Replicas that carry ``load``; a load that fits to within rounding error needs no further replica."""
    return max(0, math.ceil(load / per_replica - 1e-9))


def shown(value: float) -> str:
    """A number as a person reads it: whole from 100 on, else three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _simple(name: str, unit: str, signal: Signal, demand: Demand, target: float | None) -> Face | None:
    if target is None:
        return None
    return _face(name, unit, target, [_total(demand, signal)], lambda values: values[0])


def in_flight(name: str, demand: Demand, target: float | None) -> Face | None:
    """Requests running and waiting in all replicas, against what one is to hold; None without a target."""
    if target is None:
        return None
    totals = [_total(demand, Signal.RUNNING)]
    if Signal.WAITING in demand.totals or not demand.totals:
        totals.append(_total(demand, Signal.WAITING))
    return _face(name, "requests", target, totals, math.fsum)


def _occupied(demand: Demand) -> list[Face]:
    """One replica while any request is in flight, whatever the other faces say."""
    face = in_flight("requestsInFlight", demand, DEFAULT_CONCURRENT_REQUESTS)
    if face is None or not face.value:
        return [face] if face is not None else []
    message = f"{shown(face.value)} requests in flight need a replica"
    return [replace(face, replicas=1, target=max(face.target, face.value), message=message)]


def _utilization(targets: Targets, capacity: int | None, demand: Demand) -> Face | None:
    """Weighted token rate, with the queued work on top, against the stated capacity × utilization."""
    if capacity is None:
        return None
    totals = [_total(demand, Signal.GENERATED_TOKENS)]
    if Signal.PROMPT_TOKENS in demand.totals:
        totals.append(demand.totals[Signal.PROMPT_TOKENS])
    queue = [t for s in _QUEUE if (t := demand.totals.get(s)) is not None]

    def weighted(values: Sequence[float]) -> float:
        arriving = _weighted(values)
        return arriving + _backlog(demand, arriving)

    return _face("utilization", "weighted tokens/s", capacity * targets.utilization, totals, weighted, queue)


_QUEUE = (Signal.WAITING, Signal.RUNNING, Signal.REQUESTS)
"""What the queued work is told by."""


def _weighted(rates: Sequence[float]) -> float:
    """Weighted tokens/s of the rates of generated and, if there is one, of prompt tokens."""
    generated, *prompt = rates
    return generated + PROMPT_TOKEN_WEIGHT * math.fsum(prompt)


def _backlog(demand: Demand, arriving: float) -> float:
    """Weighted tokens/s that would do the queued requests within BACKLOG_SECONDS.

    A queued request is taken to be as large as the part of a request that was done within the rate window:
    its work divided by the requests that finished in it or still run. Those that still run have more to do,
    so it is a lower bound; divided by the finished ones alone, it would be beyond all measure while the
    first requests after a quiet time are under way. Unknown sizes add nothing.
    """
    waiting, running = demand.totals.get(Signal.WAITING), demand.totals.get(Signal.RUNNING)
    requests, generated = demand.totals.get(Signal.REQUESTS), demand.totals.get(Signal.GENERATED_TOKENS)
    if waiting is None or running is None or requests is None or generated is None:
        return 0.0
    worked_on = requests.at_least * demand.rate_window + running.at_least
    if worked_on <= 0 or min(requests.covered, running.covered) < generated.covered:
        return 0.0
    return waiting.at_least * (arriving * demand.rate_window / worked_on) / BACKLOG_SECONDS


def _face(
    name: str,
    unit: str,
    target: float,
    totals: Sequence[Total],
    combine: Callable[[Sequence[float]], float],
    beside: Sequence[Total] = (),
) -> Face:
    """A face over totals: blind if any of them is; complete only if all are, and those beside them."""
    covered = min(t.covered for t in totals)
    expected = max(t.expected for t in totals)
    worst = max((t.freshness for t in totals), key=_SEVERITY.index)
    if any(t.blind for t in totals):
        why = next(_why(t.reading) for t in totals if t.blind)
        worst = max(worst, Freshness.STALE, key=_SEVERITY.index)
        return Face(name, unit, None, target, 0, False, True, why, worst, covered, expected)
    value = combine([t.at_least for t in totals])
    worst = max((t.freshness for t in (*totals, *beside)), key=_SEVERITY.index)
    incomplete = next((t for t in (*totals, *beside) if not t.complete), None)
    replicas = needed(value, target)
    message = f"{shown(value)} {unit} at {shown(target)} per replica needs {replicas}"
    if incomplete is not None:
        message += f" at least: {incomplete.covered} of {incomplete.serving} replicas answered"
    return Face(
        name, unit, value, target, replicas, incomplete is None, False, message, worst, covered, expected
    )


_SEVERITY = (Freshness.FRESH, Freshness.STALE, Freshness.MISSING)


def _first_token_guard(targets: Targets, demand: Demand, current: int) -> Face | None:
    """Above the objective: a tenth more replicas (at least one), once the latencies show the wanted ones."""
    if targets.time_to_first_token is None:
        return None
    measured, objective = demand.first_token, targets.time_to_first_token.seconds
    replicas, message = _guarded(demand, objective, current)
    fresh = measured.covered >= measured.expected and measured.covered > 0
    return Face(
        name="timeToFirstToken",
        unit="s",
        value=measured.p95,
        target=objective,
        replicas=replicas,
        complete=fresh,  # unknown waits may be too long, so nothing is removed; they hold nothing up either
        blind=False,
        message=message,
        freshness=Freshness.FRESH if fresh else Freshness.MISSING,
        covered=measured.covered,
        expected=measured.expected,
        guard=True,
    )


def _guarded(demand: Demand, objective: float, current: int) -> tuple[int, str]:
    """(replicas, message) of the guard; no replicas when it has nothing to ask for."""
    measured = demand.first_token
    if measured.p95 is None:
        idle = "no request got its first token within the rate window"
        return 0, measured.why or (idle if demand.serving else "no replica serves yet")
    if measured.p95 <= objective:
        return 0, f"p95 {measured.p95:.3g} s is within {objective:.3g} s"
    above = f"p95 {measured.p95:.3g} s is above {objective:.3g} s"
    if demand.settled < current:
        waits = f"{current} wanted already, {demand.settled} have served for the whole rate window"
        return current, f"{above}: {waits}"
    replicas = current + max(1, math.ceil(current / 10))
    return replicas, f"{above}: needs {replicas}"


def _why(reading: Reading) -> str:
    match reading:
        case Missing(why):
            return why
        case Stale():
            return "the last samples are too old"
        case Fresh():
            return "some replicas did not answer"
