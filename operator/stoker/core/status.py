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
from typing import Any, NamedTuple

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
    ForecastStatus,
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
    """The whole status; the very one that is published when there is nothing new to say, as on most ticks."""
    published, prompt = decided.deployment.status, _prompt(decided)
    told = _tells(published, prompt)
    if told and not _due(published, decided):
        return published
    drifting = _drifting(decided, prompt)
    if told and _drifting_of(published) == drifting:
        return published
    scaling = ScalingStatus(
        **prompt.scaling,
        demand=drifting.demand,
        demand_observed_at=moment(decided.now) if decided.scaling is not None else None,
        forecast=drifting.forecast,
    )
    return ModelDeploymentStatus(
        **prompt.fields,
        tokens_per_second=drifting.tokens_per_second,
        capacity=drifting.capacity,
        scaling=scaling,
        conditions=prompt.conditions,
    )


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


class _Prompt(NamedTuple):
    """What is published at once."""

    fields: dict[str, Any]
    """Of the status."""
    scaling: dict[str, Any]
    """Of its scaling section."""
    conditions: tuple[Condition, ...]
    """But for their messages, which may wait."""


class _Drifting(NamedTuple):
    """What may wait for the refresh: numbers that drift, and messages that tell of nothing else."""

    tokens_per_second: int | None
    capacity: tuple[CapacityStatus, ...]
    demand: tuple[DemandStatus, ...]
    forecast: ForecastStatus | None
    conditions: tuple[Condition, ...]


def _prompt(decided: Decided) -> _Prompt:
    states = _replica_states(decided)
    fields = {
        "observed_generation": decided.deployment.generation,
        "replicas": sum([not p.terminal for p in decided.pods]),
        "ready_replicas": decided.serving,
        "desired_replicas": decided.desired,
        "granted_replicas": decided.grant.replicas,
        "ready": f"{decided.serving}/{decided.desired}",
        "selector": meta.selector(decided.deployment.key.name),
        "accelerator": _accelerator(decided),
        "startup": decided.startup,
        "replica_states": states[:MAX_REPLICA_STATES],
        "replica_states_omitted": max(0, len(states) - MAX_REPLICA_STATES) or None,
    }
    return _Prompt(fields, _scaling(decided), conditions_of(decided))


def _drifting(decided: Decided, prompt: _Prompt) -> _Drifting:
    return _Drifting(
        tokens_per_second=_tokens_per_second(decided),
        capacity=_capacity(decided),
        demand=tuple([_demand(face) for face in decided.faces]),
        forecast=decided.forecast,
        conditions=prompt.conditions,
    )


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


def _scaling(decided: Decided) -> dict[str, Any]:
    """The scaling section but for what drifts."""
    published, decision = decided.deployment.status.scaling, _decision(decided)
    last, history = (published.last_decision, published.history) if published is not None else (None, ())
    return {
        "mode": decided.scaling.mode.value if decided.scaling is not None else "Fixed",
        "bounds": _bounds(decided),
        "last_decision": decision or last,
        "history": (decision, *history)[:MAX_HISTORY] if decision is not None else history,
    }


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
        proposes=_proposes(face),
        message=face.message,
    )


def _proposes(face: Face) -> int | None:
    return None if face.blind else face.replicas


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


def _tells(published: ModelDeploymentStatus, prompt: _Prompt) -> bool:
    """Whether the published status says already all that would be published at once."""
    scaling = published.scaling
    return (
        scaling is not None
        and prompt.fields.items() <= vars(published).items()
        and prompt.scaling.items() <= vars(scaling).items()
        and _alike(published.conditions, prompt.conditions)
    )


def _alike(before: Sequence[Condition], after: Sequence[Condition]) -> bool:
    """Whether they differ in their messages at most."""
    return before == after or [_gist(c) for c in before] == [_gist(c) for c in after]


def _gist(condition: Condition) -> tuple[object, ...]:
    """A condition without its message."""
    c = condition
    return c.type, c.status, c.reason, c.observed_generation, c.last_transition_time


def _due(published: ModelDeploymentStatus, decided: Decided) -> bool:
    """Whether numbers that drifted may be published: it has been long enough, or a decision turned on one."""
    scaling = published.scaling
    observed_at = scaling.demand_observed_at if scaling is not None else None
    if scaling is None or observed_at is None:
        return True
    if decided.now - observed_at.timestamp() >= refresh_seconds(decided.fleet_size):
        return True
    said = [(d.signal, d.freshness, d.proposes) for d in scaling.demand]
    return said != [(f.name, f.freshness, _proposes(f)) for f in decided.faces]


def _drifting_of(published: ModelDeploymentStatus) -> _Drifting:
    """What is published of that which may wait."""
    scaling = published.scaling
    demand, forecast = (scaling.demand, scaling.forecast) if scaling is not None else ((), None)
    return _Drifting(published.tokens_per_second, published.capacity, demand, forecast, published.conditions)


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
