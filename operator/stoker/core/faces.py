"""From demand to faces: what each target of the spec says about how many replicas the traffic needs.

Rules of this module:

* Every target of the spec is one face; the largest answer wins (``scaling`` combines them).
* Work and requests in flight are faces whether the spec states a number for them or not: what one replica
  carries is then what was learned. A prior is a guess: it counts where there is nothing better, and never
  beside a target that the user stated.
* A face may shrink the fleet only when every total that it is made of is complete.
* A face that nobody asked for holds nothing up when it is blind; it only keeps the fleet from shrinking.
* Tokens that were not counted yet are no idleness: a fleet that may shrink to nothing also looks at the
  requests in flight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from stoker.api.v1alpha1 import CapacitySource, Freshness, ModelDeploymentSpec, Targets
from stoker.core import offered
from stoker.core.demand import Demand, Total
from stoker.core.learning import ReplicaCapacity
from stoker.core.readings import Fresh, Missing, Reading, Signal, Stale
from stoker.core.traffic import Traffic

DEFAULT_CONCURRENT_REQUESTS = 40
"""Requests in flight per replica where only requests that a gateway holds tell of demand."""

OCCUPIED = "requestsInFlight"
"""Name of the face that keeps one replica while there is a request."""


class Face(NamedTuple):
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
    headroom: float = 0.0
    """Room for fluctuations on top of ``value``, in ``unit``."""

    @property
    def load(self) -> float:
        """Demand with its head-room in replicas, not rounded; 0 where it is unknown or cannot be said."""
        if self.value is None or self.guard or self.ahead:
            return 0.0
        return (self.value + self.headroom) / self.target


def faces_of(
    spec: ModelDeploymentSpec, demand: Demand, current: int, capacity: ReplicaCapacity, traffic: Traffic
) -> tuple[Face, ...]:
    """Every target's answer, in the order of the spec.

    Args:
        spec: With ``scaling`` set.
        demand: From ``measure``.
        current: Replicas wanted by the last decision.
        capacity: Of one replica.
        traffic: What the traffic has been like.
    """
    assert spec.scaling is not None  # noqa: S101 - the caller's contract
    targets = spec.scaling.targets
    rates = (
        ("generatedTokensPerSecond", Signal.GENERATED_TOKENS, targets.generated_tokens_per_second),
        ("promptTokensPerSecond", Signal.PROMPT_TOKENS, targets.prompt_tokens_per_second),
        ("requestsPerSecond", Signal.REQUESTS, targets.requests_per_second),
    )
    stated = [_rate(name, signal, demand, target) for name, signal, target in rates if target is not None]
    work = _work(targets, capacity, demand, traffic)
    requests = _in_flight(targets, capacity, demand, traffic, alone=not stated and work is None)
    found = [*([work] if work else []), *stated, *([requests] if requests else [])]
    if spec.scaling.min_replicas == 0 and requests is None:
        found.append(_occupied(demand))
    guard = _first_token_guard(targets, demand, current)
    return (*found, guard) if guard is not None else tuple(found)


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


def _rate(name: str, signal: Signal, demand: Demand, target: float) -> Face:
    unit = "requests/s" if signal is Signal.REQUESTS else "tokens/s"
    total = _total(demand, signal)
    return _face(name, unit, target, [total], _Load(total.at_least))


def _work(targets: Targets, capacity: ReplicaCapacity, demand: Demand, traffic: Traffic) -> Face | None:
    """The offered work against what a replica carries × utilization; None while that is a guess."""
    if capacity.source is CapacitySource.PRIOR:
        return None
    totals = [_total(demand, Signal.GENERATED_TOKENS)]
    if Signal.PROMPT_TOKENS in demand.totals:
        totals.append(demand.totals[Signal.PROMPT_TOKENS])
    beside = [t for s in _QUEUE if (t := demand.totals.get(s)) is not None]
    target = capacity.tokens_per_second * targets.utilization
    found = offered.work(demand, traffic, capacity)
    room = f" and {shown(found.headroom)} of head-room" if found.headroom else ""
    unserved = f" ({shown(found.unserved)} not served yet)" if found.unserved else ""
    load = _Load(
        found.total,
        found.headroom,
        f"{unserved}{room}",
        f" ({targets.utilization:.3g} of {shown(capacity.tokens_per_second)} {_WHENCE[capacity.source]})",
    )
    face = _face("utilization", "weighted tokens/s", target, totals, load, beside)
    return face if capacity.source is CapacitySource.STATED else _unasked(face)


_QUEUE = (Signal.WAITING, Signal.RUNNING, Signal.REQUESTS)
"""What the work that is not served yet is told by."""

_WHENCE = {
    CapacitySource.STATED: "stated",
    CapacitySource.LEARNED: "learned",
    CapacitySource.PRIOR: "by default",
}


def _in_flight(
    targets: Targets, capacity: ReplicaCapacity, demand: Demand, traffic: Traffic, *, alone: bool
) -> Face | None:
    """Requests in flight against the stated number, or what is learned × utilization.

    Args:
        targets: Of the spec.
        capacity: Of one replica.
        demand: From ``measure``.
        traffic: What the traffic has been like.
        alone: No other face counts: then even a guess does.
    """
    if targets.concurrent_requests is not None:
        stated = float(targets.concurrent_requests)
        return _requests("concurrentRequests", stated, "", demand, traffic, math.inf)
    held, share = capacity.concurrent_requests, targets.utilization
    if capacity.samples:
        target, measure = held * share, f" ({share:.3g} of {shown(held)} learned)"
        most = offered.OVERFULL * target
        return _unasked(_requests("concurrentRequests (learned)", target, measure, demand, traffic, most))
    if not alone:
        return None
    return _requests("concurrentRequests (default)", held, " by default", demand, traffic, math.inf)


def _requests(name: str, target: float, measure: str, demand: Demand, traffic: Traffic, most: float) -> Face:
    load = _Load(offered.requests(demand, traffic, target, most), measure=measure)
    return _face(name, "requests", target, _in_flight_totals(demand), load)


def _in_flight_totals(demand: Demand) -> list[Total]:
    totals = [_total(demand, Signal.RUNNING)]
    if Signal.WAITING in demand.totals or not demand.totals:
        totals.append(_total(demand, Signal.WAITING))
    return totals


def _unasked(face: Face) -> Face:
    """A face that the spec has no number for: unknown, it holds nothing up, and lets nothing go."""
    return face._replace(blind=False) if face.blind else face


def in_flight(name: str, demand: Demand, target: float) -> Face:
    """Requests running and waiting in all replicas, as they were counted, against what one is to hold."""
    totals = _in_flight_totals(demand)
    return _face(name, "requests", target, totals, _Load(math.fsum([t.at_least for t in totals])))


def _occupied(demand: Demand) -> Face:
    """One replica while any request is in flight, whatever the other faces say."""
    face = in_flight(OCCUPIED, demand, DEFAULT_CONCURRENT_REQUESTS)
    if not face.value:
        return face
    message = f"{shown(face.value)} requests in flight need a replica"
    half = max(face.target, 2 * face.value)  # of one replica at most: no tolerance makes it two
    return face._replace(replicas=1, target=half, message=message)


class _Load(NamedTuple):
    """What a face divides by its target, if any replica has answered."""

    value: float
    headroom: float = 0.0
    parts: str = ""
    """What else there is to say of it."""
    measure: str = ""
    """Where the target comes from."""


def _face(
    name: str, unit: str, target: float, totals: Sequence[Total], load: _Load, beside: Sequence[Total] = ()
) -> Face:
    """A face over totals: blind if any of them is; complete only if all are, and those beside them."""
    covered = min([t.covered for t in totals])
    expected = max([t.expected for t in totals])
    if not covered:
        why = next(_why(t.reading) for t in totals if t.blind)
        worst = max([Freshness.STALE, *(t.freshness for t in totals)], key=_SEVERITY.index)
        return Face(name, unit, None, target, 0, False, True, why, worst, covered, expected)
    involved = [*totals, *beside]
    incomplete = next((t for t in involved if not t.complete), None)
    worst = Freshness.FRESH
    if incomplete is not None:
        worst = max([t.freshness for t in involved], key=_SEVERITY.index)
    replicas = needed(load.value + load.headroom, target)
    return Face(
        name=name,
        unit=unit,
        value=load.value,
        target=target,
        replicas=replicas,
        complete=incomplete is None,
        blind=False,
        message=f"{shown(load.value)} {unit}{load.parts} at {shown(target)} per replica{load.measure}"
        f" needs {replicas}{_partial(incomplete)}",
        freshness=worst,
        covered=covered,
        expected=expected,
        headroom=load.headroom,
    )


def _partial(incomplete: Total | None) -> str:
    """Who did not answer, for the end of a message; empty when all did."""
    if incomplete is None:
        return ""
    return f" at least: {incomplete.covered} of {incomplete.serving} replicas answered"


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
