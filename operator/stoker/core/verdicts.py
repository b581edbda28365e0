"""The conditions: one small function each, that returns (status, reason, message).

Rules of this module:

* Unknown is not False, and stale metrics never touch ``Ready``.
* A message says what is wrong, where, and what to do; a reason is one stable word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stoker.api.conditions import ConditionType, Reason, find, ready_condition, set_condition
from stoker.api.v1alpha1 import (
    Condition,
    ConditionStatus,
    FieldError,
    ForecastStatus,
    Freshness,
    Scaling,
    ScalingMode,
    StartupStatus,
)
from stoker.core.capacity import Grant
from stoker.core.demand import Demand
from stoker.core.diagnose import Finding, diagnose
from stoker.core.faces import Face
from stoker.core.learning import Standing
from stoker.core.lifecycle import Steps
from stoker.core.observed import ModelDeployment, Obstacle, Pod
from stoker.core.scaling import Recommendation
from stoker.core.schedule import Bounds

STUCK_SECONDS = 45 * 60.0
"""A rollout whose new replica has not come up for this long is stuck: longer than any start-up budget."""

STUCK_WITH_CAUSE_SECONDS = 60.0
"""Likewise when the cause is known."""

Verdict = tuple[ConditionStatus, str, str]
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Decided:
    """Everything that was decided for one ModelDeployment in this tick."""

    deployment: ModelDeployment
    now: float
    pods: Sequence[Pod]
    """Its own pods."""
    desired: int
    previous: int | None
    """What was desired before; None at first sight."""
    grant: Grant
    steps: Steps
    errors: tuple[FieldError, ...] = ()
    recommendation: Recommendation | None = None
    """None while the number is fixed."""
    demand: Demand | None = None
    faces: tuple[Face, ...] = ()
    bounds: Bounds | None = None
    """Those that hold now; None while the number is fixed."""
    metrics_failure: str | None = None
    metrics_pending: bool = False
    """Prometheus has not been asked yet."""
    obstacle: Obstacle | None = None
    """What the API server refused, if anything."""
    standing: Standing | None = None
    """What one replica carries; None while the number is fixed."""
    forecast: ForecastStatus | None = None
    """What is expected; None when nobody is to look ahead."""
    startup: tuple[StartupStatus, ...] = ()
    """How long replicas take to serve."""
    fleet_size: int = 1
    """ModelDeployments in all."""
    serving: int = field(init=False)
    """Replicas that the Service routes to."""

    def __post_init__(self) -> None:
        """Count what every condition asks for."""
        object.__setattr__(self, "serving", sum([p.routed for p in self.pods]))

    @property
    def scaling(self) -> Scaling | None:
        """The spec's scaling section."""
        return self.deployment.spec.scaling if self.deployment.spec is not None else None

    @property
    def least(self) -> int | None:
        """The minimum that holds now; None while the number is fixed."""
        if self.bounds is not None:
            return self.bounds.least
        return self.scaling.min_replicas if self.scaling is not None else None


def moment(at: float) -> datetime:
    """Unix seconds as the whole-second UTC time that status holds."""
    return datetime.fromtimestamp(int(at), UTC)


def conditions_of(decided: Decided) -> tuple[Condition, ...]:
    """All conditions, ``Ready`` last, in the place of the published ones."""
    generation, now = decided.deployment.generation, decided.now
    conditions = decided.deployment.status.conditions
    for kind, verdict in (
        (ConditionType.ACCEPTED, (TRUE, Reason.ACCEPTED, "the spec can be acted on")),
        (ConditionType.CAPACITY_GRANTED, _granted(decided)),
        (ConditionType.PROGRESSING, _progressing(decided)),
        (ConditionType.AVAILABLE, _available(decided)),
        (ConditionType.SCALING_ACTIVE, _scaling_active(decided)),
    ):
        conditions = set_verdict(conditions, kind, verdict, generation, now)
    return with_ready(conditions, generation, now)


def with_ready(conditions: tuple[Condition, ...], generation: int, now: float) -> tuple[Condition, ...]:
    """The conditions with ``Ready`` derived anew."""
    return set_verdict(conditions, ConditionType.READY, ready_condition(conditions), generation, now)


def set_verdict(
    conditions: Sequence[Condition], kind: ConditionType, verdict: Verdict, generation: int, now: float
) -> tuple[Condition, ...]:
    """The conditions with this one set; the very same ones when they say so already."""
    status, reason, message = verdict
    old = find(conditions, kind)
    if old is not None and (old.status, old.reason, old.message, old.observed_generation) == (
        status,
        reason,
        message,
        generation,
    ):
        return tuple(conditions)
    new = Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=moment(now),
        reason=reason,
        message=message,
    )
    return set_condition(conditions, new)


def _granted(decided: Decided) -> Verdict:
    shortage, obstacle = decided.grant.shortage, decided.obstacle
    if obstacle is not None and obstacle.reason is Reason.QUOTA_EXCEEDED:
        return FALSE, obstacle.reason, obstacle.message
    if shortage is None:
        return (
            TRUE,
            Reason.GRANTED,
            "every replica that is wanted has its accelerators, or has not been refused them",
        )
    return FALSE, shortage.reason, shortage.message


def _progressing(decided: Decided) -> Verdict:
    if decided.obstacle is not None:
        return FALSE, decided.obstacle.reason, decided.obstacle.message
    if decided.steps.rolling:
        return _rolling(decided)
    draining = sum(p.leaving for p in decided.pods)
    missing = decided.grant.replicas - decided.serving
    if missing > 0:
        return TRUE, Reason.SCALING, f"{decided.serving} of {decided.grant.replicas} replicas serve"
    if decided.grant.shortage is not None:
        return FALSE, decided.grant.shortage.reason, decided.grant.shortage.message
    if draining:
        return TRUE, Reason.DRAINING, f"{_replicas(draining)} finishing requests before leaving"
    return FALSE, Reason.COMPLETE, f"{_replicas(decided.serving)} serving the current spec, as wanted"


def _rolling(decided: Decided) -> Verdict:
    since, finding = decided.steps.stuck_since, _finding(decided)
    waited = decided.now - since if since is not None else 0.0
    left = _replicas(decided.steps.rolling)
    stay = f"{left} of the old one {'stays' if decided.steps.rolling == 1 else 'stay'}"
    if finding is not None and waited >= STUCK_WITH_CAUSE_SECONDS:
        message = f"the new revision does not come up; {stay}. {finding.message}"
        return FALSE, Reason.ROLLOUT_STUCK, message
    if waited >= STUCK_SECONDS:
        message = f"the new revision is not ready after {waited / 60:.0f} min; {stay}"
        return FALSE, Reason.ROLLOUT_STUCK, message
    return TRUE, Reason.ROLLING_OUT, f"{left} of an older revision still to be replaced"


def _available(decided: Decided) -> Verdict:
    if decided.desired == 0:
        return FALSE, Reason.SCALED_TO_ZERO, "no replica is wanted, so nothing serves"
    minimum = _minimum(decided)
    if decided.serving >= minimum:
        return TRUE, Reason.SERVING, f"{_replicas(decided.serving)} serving, {minimum} needed at least"
    finding = _finding(decided)
    have = f"{_replicas(decided.serving)} serving, {minimum} needed at least"
    if finding is not None:
        return FALSE, finding.reason, f"{have}. {finding.message}"
    if decided.obstacle is not None:
        return FALSE, decided.obstacle.reason, f"{have}. {decided.obstacle.message}"
    if any(not p.leaving for p in decided.pods) or not decided.pods:
        return FALSE, Reason.STARTING, f"{have}: the rest is starting"
    return FALSE, Reason.NO_READY_REPLICA, have


def _replicas(count: int) -> str:
    return "no replica" if count == 0 else f"{count} replica{'s' if count > 1 else ''}"


def _minimum(decided: Decided) -> int:
    """Replicas that must serve: the stated minimum; one fewer while a rollout replaces one without room."""
    floor = _fixed_minimum(decided) if decided.least is None else decided.least
    floor = max(1, min(floor, decided.desired))
    return max(1, floor - 1) if decided.steps.rolling else floor


def _fixed_minimum(decided: Decided) -> int:
    """Of a fixed number all must serve; while it grows, as many as before, until they could have started."""
    if decided.previous is not None and 0 < decided.previous < decided.desired:
        return decided.previous
    published = decided.deployment.status.scaling
    last = published.last_decision if published is not None else None
    if last is None or last.to != decided.desired or not 0 < last.from_ < last.to:
        return decided.desired
    young = decided.now - last.time.timestamp() < STUCK_SECONDS
    return last.from_ if young else decided.desired


def _finding(decided: Decided) -> Finding | None:
    return diagnose([p for p in decided.pods if not p.routed and not p.leaving], decided.now)


def _scaling_active(decided: Decided) -> Verdict:
    if decided.scaling is None:
        return FALSE, Reason.FIXED, "spec.scaling is not set: spec.replicas, or /scale, sets the number"
    if decided.metrics_failure is not None and decided.metrics_pending:
        return UNKNOWN, Reason.WAITING_FOR_METRICS, decided.metrics_failure
    if decided.metrics_failure is not None:
        return FALSE, Reason.PROMETHEUS_UNREACHABLE, f"the number is held: {decided.metrics_failure}"
    if decided.demand is None or not decided.demand.serving:
        return _unserved(decided)
    first = {f.freshness: f for f in reversed(decided.faces)}
    for freshness, reason in (
        (Freshness.MISSING, Reason.METRICS_MISSING),
        (Freshness.STALE, Reason.METRICS_STALE),
    ):
        if freshness in first:
            return _not_fresh(first[freshness], reason)
    return _fresh(decided, "every serving replica's metrics are fresh")


def _fresh(decided: Decided, message: str) -> Verdict:
    """Everything is known that decisions are made from; in Shadow mode they are not carried out."""
    if decided.scaling is not None and decided.scaling.mode is ScalingMode.SHADOW:
        told = f"decisions are recorded and not carried out: {decided.desired} replicas would run"
        return FALSE, Reason.SHADOW, told
    return TRUE, Reason.METRICS_FRESH, message


def _unserved(decided: Decided) -> Verdict:
    """While nothing serves, only what is known of the fleet as a whole can ask for replicas."""
    whole = [f for f in decided.faces if f.whole]
    blind = next((f for f in whole if f.blind), None)
    if blind is not None:
        return _not_fresh(blind, Reason.METRICS_MISSING)
    if not whole:
        return UNKNOWN, Reason.WAITING_FOR_METRICS, "no replica serves yet, so there is nothing to measure"
    names = ", ".join(f.name for f in whole)
    return _fresh(decided, f"no replica serves; what can ask for one is known: {names}")


def _not_fresh(face: Face, reason: Reason) -> Verdict:
    if face.whole:
        return FALSE, reason, f"{face.name}: {face.message}; no replica is removed until it can be read"
    some = f"{face.covered} of {face.expected} serving replicas have fresh metrics"
    if face.blind and face.expected == 0:
        return UNKNOWN, Reason.WAITING_FOR_METRICS, f"{face.name}: replicas have just become ready"
    message = f"{face.name}: {some}; no replica is removed until all have. {face.message}"
    return FALSE, reason, message
