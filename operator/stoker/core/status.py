"""From observation and decisions to the published status.

Rules of this module:

* Unknown is not False, and stale metrics never touch ``Ready``.
* A quiet fleet publishes nothing: numbers that only drift are rounded and republished at most every
  REFRESH_SECONDS; whatever a decision turned on is published at once.
* Conditions are in ``verdicts``; here are the fields, and what is worth publishing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.api import meta
from stoker.api.conditions import ConditionType, Reason
from stoker.api.status import MAX_HISTORY, MAX_REPLICA_STATES
from stoker.api.v1alpha1 import (
    BoundsStatus,
    CapacitySource,
    CapacityStatus,
    Condition,
    ConditionStatus,
    Decision,
    DemandStatus,
    FieldError,
    ModelDeploymentStatus,
    ReplicaPhase,
    ReplicaState,
    ScalingStatus,
)
from stoker.core.diagnose import diagnose_pod, phase
from stoker.core.faces import Face
from stoker.core.learning import settled
from stoker.core.observed import ModelDeployment, Pod
from stoker.core.plan import Event
from stoker.core.readings import Signal
from stoker.core.verdicts import FALSE, UNKNOWN, Decided, conditions_of, moment, set_verdict, with_ready

REFRESH_SECONDS = 30.0
"""How often numbers that only drift are republished, at most."""

REFRESHES_PER_SECOND = 30.0
"""Of a whole fleet: a large one refreshes more rarely, so that the writes that matter keep their share of the
API server. A status takes 0.5 ms of CPU to write (`bench/controller`)."""

_ARGUMENT = re.compile(r"\.args(\[\d+\])?$")


def compute(decided: Decided) -> ModelDeploymentStatus:
    """The whole status. Equal to the published one when there is nothing new to say."""
    before = decided.deployment.status
    alive = [p for p in decided.pods if not p.terminal]
    states = _replica_states(decided)
    status = ModelDeploymentStatus(
        observed_generation=decided.deployment.generation,
        replicas=len(alive),
        ready_replicas=decided.serving,
        desired_replicas=decided.desired,
        granted_replicas=decided.grant.replicas,
        ready=f"{decided.serving}/{decided.desired}",
        selector=meta.selector(decided.deployment.key.name),
        accelerator=_accelerator(decided),
        tokens_per_second=_tokens_per_second(decided),
        capacity=_capacity(decided),
        startup=decided.startup,
        scaling=_scaling(decided),
        replica_states=states[:MAX_REPLICA_STATES],
        replica_states_omitted=max(0, len(states) - MAX_REPLICA_STATES) or None,
        conditions=conditions_of(decided),
    )
    return _settled(before, status, decided.now, refresh_seconds(decided.fleet_size))


def refresh_seconds(fleet_size: int) -> float:
    """How long (s) numbers that only drift may wait in a fleet of so many ModelDeployments."""
    return max(REFRESH_SECONDS, fleet_size / REFRESHES_PER_SECOND)


def rejected(deployment: ModelDeployment, errors: Sequence[FieldError], now: float) -> ModelDeploymentStatus:
    """The status of an object that cannot be acted on: replicas keep running as they are."""
    message = "; ".join(f"{e.path}: {e.message}" for e in errors)
    reserved = bool(errors) and all(_ARGUMENT.search(e.path) for e in errors)
    verdict = (FALSE, Reason.RESERVED_ARGUMENT if reserved else Reason.INVALID_SPEC, message)
    conditions = set_verdict(
        deployment.status.conditions, ConditionType.ACCEPTED, verdict, deployment.generation, now
    )
    return deployment.status.model_copy(
        update={
            "observed_generation": deployment.generation,
            "conditions": with_ready(conditions, deployment.generation, now),
        }
    )


def failed(deployment: ModelDeployment, reason: Reason, message: str, now: float) -> ModelDeploymentStatus:
    """The status when Stoker itself could not finish: ``Ready`` is Unknown, the rest stays as published."""
    verdict = (UNKNOWN, reason, message)
    conditions = set_verdict(
        deployment.status.conditions, ConditionType.READY, verdict, deployment.generation, now
    )
    return deployment.status.model_copy(update={"conditions": conditions})


# --- Fields --------------------------------------------------------------------------------------


def _accelerator(decided: Decided) -> str | None:
    spec = decided.deployment.spec
    return spec.accelerators[0].name if spec is not None else None


def _tokens_per_second(decided: Decided) -> int | None:
    total = decided.demand.totals.get(Signal.GENERATED_TOKENS) if decided.demand is not None else None
    return round(_rounded(total.at_least)) if total is not None and total.covered else None


def _capacity(decided: Decided) -> tuple[CapacityStatus, ...]:
    """What one replica carries; of a fixed fleet, whose metrics nobody reads, what the spec says."""
    if decided.standing is not None:
        return settled(decided.deployment.status.capacity, decided.standing.status)
    spec = decided.deployment.spec
    return tuple(
        CapacityStatus(
            accelerator=a.name, tokens_per_second=a.tokens_per_second, source=CapacitySource.STATED
        )
        for a in (spec.accelerators if spec is not None else ())
        if a.tokens_per_second is not None
    )


def _scaling(decided: Decided) -> ScalingStatus | None:
    before = decided.deployment.status.scaling or ScalingStatus(mode="Fixed")
    decision = _decision(decided)
    history = (decision, *before.history)[:MAX_HISTORY] if decision is not None else before.history
    mode = decided.scaling.mode.value if decided.scaling is not None else "Fixed"
    if decided.scaling is None:
        return before.model_copy(
            update={
                "mode": mode,
                "bounds": None,
                "demand": (),
                "demand_observed_at": None,
                "forecast": None,
                "history": history,
                "last_decision": decision or before.last_decision,
            }
        )
    return ScalingStatus(
        mode=mode,
        bounds=_bounds(decided),
        demand=tuple(_demand(face) for face in decided.faces),
        demand_observed_at=moment(decided.now),
        forecast=decided.forecast,
        last_decision=decision or before.last_decision,
        history=history,
    )


def _bounds(decided: Decided) -> BoundsStatus | None:
    """Where there are schedules: what holds now, and until when."""
    held = decided.bounds
    if held is None or held.until is None:
        return None
    return BoundsStatus(
        min_replicas=held.least,
        max_replicas=held.most,
        schedules=held.open,
        until=moment(held.until),
        message=held.conflict,
    )


def _decision(decided: Decided) -> Decision | None:
    """The change of this tick; None when the number stays."""
    if decided.previous == decided.desired:
        return None
    chosen = decided.recommendation
    return Decision(
        time=moment(decided.now),
        from_=_before(decided),
        to=decided.desired,
        limited_by=chosen.limited_by if chosen is not None else "replicas",
        reason=_direction(decided),
        message=chosen.message if chosen is not None else f"spec.replicas is {decided.desired}",
    )


def _before(decided: Decided) -> int:
    """The former number; of a fleet whose status was lost, the replicas that run."""
    if decided.previous is not None:
        return decided.previous
    return sum(not p.leaving and not p.terminal for p in decided.pods)


def _direction(decided: Decided) -> str:
    if decided.previous is None:
        return "Started"
    return "ScaledUp" if decided.desired > decided.previous else "ScaledDown"


def _demand(face: Face) -> DemandStatus:
    return DemandStatus(
        signal=face.name,
        value=None if face.value is None else _rounded(face.value),
        unit=face.unit,
        freshness=face.freshness,
        covered=face.covered,
        expected=face.expected,
        proposes=None if face.blind else face.replicas,
        message=face.message,
    )


def _replica_states(decided: Decided) -> tuple[ReplicaState, ...]:
    published = {s.name: s for s in decided.deployment.status.replica_states}
    states = [_replica_state(p, decided.now, published.get(p.key.name)) for p in decided.pods]
    return tuple(sorted(states, key=lambda s: (s.phase is ReplicaPhase.SERVING, s.name)))


def _replica_state(pod: Pod, now: float, published: ReplicaState | None) -> ReplicaState:
    """One replica; the very object that is published when it still says it, which spares checking it anew."""
    finding = None if pod.routed or pod.leaving else diagnose_pod(pod, now)
    state = {
        "name": pod.key.name,
        "accelerator": pod.accelerator,
        "revision": pod.revision,
        "phase": phase(pod, now),
        "node": pod.node,
        "reason": finding.reason if finding is not None else "",
        "message": finding.message if finding is not None else pod.drain_reason,
        "since": moment(_phase_since(pod)),
    }
    return published if published is not None and vars(published) == state else ReplicaState(**state)


def _phase_since(pod: Pod) -> float:
    if pod.drain_started_at is not None:
        return pod.drain_started_at
    return pod.ready_since or pod.created_at


# --- Quiet ---------------------------------------------------------------------------------------


def _settled(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus, now: float, refresh: float
) -> ModelDeploymentStatus:
    """The new status; numbers that only drift stay as published for ``refresh`` seconds."""
    if after == before:  # by far the commonest case
        return before
    if before.scaling is None or after.scaling is None:
        return after
    if _prompt(before) != _prompt(after):
        return after
    drifted = _drifting(before) != _drifting(after)
    published = before.scaling.demand_observed_at
    young = published is not None and now - published.timestamp() < refresh
    turned = [(d.signal, d.freshness, d.proposes) for d in before.scaling.demand] != [
        (d.signal, d.freshness, d.proposes) for d in after.scaling.demand
    ]
    return after if drifted and (turned or not young) else before


_DRIFTS = frozenset({"tokens_per_second", "capacity", "scaling", "conditions"})
"""Fields of a status that hold what may wait for the refresh."""

_SCALING_DRIFTS = frozenset({"demand", "demand_observed_at", "forecast"})
"""Likewise of its scaling section."""


def _prompt(status: ModelDeploymentStatus) -> tuple[object, ...]:
    """What is published at once: all but the numbers that drift, and messages that tell of nothing else."""
    assert status.scaling is not None  # noqa: S101 - the caller has looked
    return (
        {name: value for name, value in vars(status).items() if name not in _DRIFTS},
        {name: value for name, value in vars(status.scaling).items() if name not in _SCALING_DRIFTS},
        [
            (c.type, c.status, c.reason, c.observed_generation, c.last_transition_time)
            for c in status.conditions
        ],
    )


def _drifting(status: ModelDeploymentStatus) -> tuple[object, ...]:
    """What may wait for the refresh."""
    scaling = status.scaling
    signals = (scaling.demand, scaling.forecast) if scaling is not None else ()
    return status.tokens_per_second, status.capacity, signals, status.conditions


def _rounded(value: float) -> float:
    """Three significant digits: what a person reads, and what noise does not move every second."""
    return float(f"{value:.3g}")


# --- Events --------------------------------------------------------------------------------------


def transitions(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> tuple[Event, ...]:
    """One Event per condition that flipped or changed its reason, and one per scaling decision."""
    published = {c.type: c for c in before.conditions}
    events = [
        _event(c)
        for c in after.conditions
        if (old := published.get(c.type)) is None or (old.status, old.reason) != (c.status, c.reason)
        if old is not None or c.type in (ConditionType.ACCEPTED, ConditionType.READY)
    ]
    decision = after.scaling.last_decision if after.scaling is not None else None
    if decision is not None and (before.scaling is None or decision != before.scaling.last_decision):
        text = f"{decision.from_} → {decision.to} replicas, by {decision.limited_by}: {decision.message}"
        events.append(Event("Normal", decision.reason, text, "Scale"))
    return tuple(events)


_CALM = frozenset({Reason.FIXED, Reason.SHADOW, Reason.COMPLETE, Reason.SCALED_TO_ZERO, Reason.STARTING})
"""Reasons of a False condition that nobody has to act on."""


def _event(condition: Condition) -> Event:
    bad = condition.status is ConditionStatus.FALSE and condition.reason not in _CALM
    bad = bad or condition.reason == Reason.INTERNAL_ERROR
    return Event("Warning" if bad else "Normal", condition.reason, f"{condition.type}: {condition.message}")
