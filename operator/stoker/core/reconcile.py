"""The table of contents of the program: what one tick decides, in order.

    demand and scaling    per ModelDeployment: how many replicas the traffic asks for
    capacity              once, across the fleet: how many of them the GPUs allow
    lifecycle             per ModelDeployment: which replicas to start, drain, replace
    resources             the objects beside the pods
    status                what to publish, and which Events tell of it

Rules of this module:

* Pure: a function of the snapshot. The same code serves the operator, dry runs, backtests and simulators.
* One ModelDeployment cannot harm another: what goes wrong in one becomes that one's status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from stoker.api import meta
from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import Forecast as ForecastMode
from stoker.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus, Scaling, ScalingMode
from stoker.core import capacity, demand, learning, offered, outside, scaling, schedule, startup, status
from stoker.core.demand import Demand
from stoker.core.faces import Face, faces_of
from stoker.core.forecast import Ahead, forecast
from stoker.core.lifecycle import Context, Steps, plan_replicas
from stoker.core.observed import Memory, ModelDeployment, Obstacle, OwnedObject, Pod, Snapshot
from stoker.core.outlook import Outlook
from stoker.core.plan import Action, Apply, CreatePod, Manifest, Plan
from stoker.core.readings import Key
from stoker.core.schedule import Bounds
from stoker.core.verdicts import Decided


@dataclass(frozen=True, slots=True)
class Want:
    """What one ModelDeployment asks for, before it is known what the GPUs allow."""

    spec: ModelDeploymentSpec
    desired: int
    """What the traffic, or the fixed number, asks for: published."""
    act_on: int
    """What is carried out: differs from ``desired`` in Shadow mode."""
    previous: int | None
    pods: tuple[Pod, ...]
    """Its own, by name."""
    memory: Memory = field(default_factory=Memory)
    """What the next tick is to know."""
    recommendation: scaling.Recommendation | None = None
    demand: Demand | None = None
    faces: tuple[Face, ...] = ()
    bounds: Bounds | None = None
    """None while the number is fixed."""


_NOTHING = Memory()
"""What is remembered of a ModelDeployment that is decided for the first time."""


def reconcile(snapshot: Snapshot, keys: Iterable[Key] | None = None) -> dict[Key, Plan]:
    """Plans for the ModelDeployments ``keys``, all of them by default."""
    chosen = sorted(snapshot.deployments if keys is None else snapshot.deployments.keys() & set(keys))
    wants: dict[Key, Want] = {}
    plans: dict[Key, Plan] = {}
    for key in chosen:
        deployment = snapshot.deployments[key]
        if deployment.deleting:  # owner references remove what it owned
            plans[key] = Plan(key, deployment.uid)
        elif deployment.errors or deployment.spec is None:
            plans[key] = _rejected(snapshot, deployment)
        else:
            try:
                wants[key] = want(snapshot, deployment, deployment.spec)
            except Exception as error:  # noqa: BLE001 - a bug in one deployment's data must not stop the fleet
                plans[key] = broken(snapshot, deployment, error)
    grants = _grants(snapshot, wants)
    for key, wanted in wants.items():
        try:
            grant = grants[key] if key in grants else _grants(snapshot, {key: wanted}, alone=True)[key]
            plans[key] = _plan(snapshot, snapshot.deployments[key], wanted, grant)
        except Exception as error:  # noqa: BLE001 - as above
            plans[key] = broken(snapshot, snapshot.deployments[key], error)
    return plans


# --- What the traffic asks for -------------------------------------------------------------------


def want(snapshot: Snapshot, deployment: ModelDeployment, spec: ModelDeploymentSpec) -> Want:
    """How many replicas one ModelDeployment asks for."""
    previous = deployment.status.desired_replicas
    pods = _own(snapshot, deployment)
    before = snapshot.memory.get(deployment.key, _NOTHING)
    startups = startup.remember(before.startups, deployment.status.startup, pods)
    learned = learning.learn(before.learned, deployment, pods, snapshot.metrics, snapshot.now)
    if spec.scaling is None:
        fixed = 1 if spec.replicas is None else spec.replicas
        return Want(spec, fixed, fixed, previous, pods, Memory(startups=startups, learned=learned))
    known = learning.standing(before.standing, spec, learned)
    bounds = schedule.bounds(spec.scaling, snapshot.now)
    stated, section = spec.scaling, bounds.applied(spec.scaling)
    spec = spec if section is stated else spec.model_copy(update={"scaling": section})
    running = sum([not p.leaving for p in pods])
    current = scaling.initial(section, running or None) if previous is None else previous
    window = deployment.metrics.rate_window_seconds if deployment.metrics is not None else 0.0
    measured = demand.measure(snapshot.metrics, pods, snapshot.now, window)
    inside = faces_of(spec, measured, current, known.capacity, before.traffic)
    traffic = offered.remembered(measured, before.traffic, known.capacity, snapshot.now)
    faces = outside.added(inside, section.signals, snapshot.metrics, deployment.key, measured, snapshot.now)
    ready = startup.time_to_ready(startups, spec.accelerators[0].name)
    outlook, ahead = _forecast(snapshot, deployment, section, ready, measured, faces)
    faces = (*faces, *ahead)
    memory = before._replace(
        startups=startups, learned=learned, standing=known, traffic=traffic, outlook=outlook
    )
    chosen = scaling.recommend(section, faces, memory, current, snapshot.now)
    if previous is None:
        chosen = scaling.first(section, chosen)
    limited_by, message = bounds.named(chosen.limited_by, chosen.message)
    if limited_by != chosen.limited_by:
        chosen = replace(chosen, limited_by=limited_by, message=message)
    act_on = chosen.replicas
    if section.mode is ScalingMode.SHADOW:
        held = deployment.status.granted_replicas
        act_on = scaling.initial(stated, (running or None) if held is None else held)
    return Want(spec, chosen.replicas, act_on, previous, pods, chosen.memory, chosen, measured, faces, bounds)


def _forecast(
    snapshot: Snapshot,
    deployment: ModelDeployment,
    section: Scaling,
    ready: float,
    measured: Demand,
    faces: Sequence[Face],
) -> tuple[Outlook | None, tuple[Face, ...]]:
    """What is expected, and what it asks for beyond the other faces."""
    if section.forecast is ForecastMode.DISABLED:
        return None, ()
    ahead = Ahead(ready, measured.rate_window, section.windows.up.seconds)
    known, before = snapshot.history.get(deployment.key), snapshot.memory.get(deployment.key, _NOTHING)
    why = snapshot.why_no_history if known is None else ""
    found = forecast(before.outlook, measured, faces, ahead, known, why_no_history=why, now=snapshot.now)
    return found.outlook, (found.face,) if found.face is not None else ()


def _own(snapshot: Snapshot, deployment: ModelDeployment) -> tuple[Pod, ...]:
    mine = [p for p in snapshot.pods.get(deployment.key, ()) if p.owner_uid == deployment.uid]
    return tuple(sorted(mine, key=attrgetter("key")))


def _grants(
    snapshot: Snapshot, wants: Mapping[Key, Want], *, alone: bool = False
) -> dict[Key, capacity.Grant]:
    """What the GPUs allow; nothing if one ModelDeployment breaks it: then each is looked at alone."""
    pods = {key: wanted.pods for key, wanted in wants.items()}
    try:
        return capacity.allocate({k: w.act_on for k, w in wants.items()}, pods, snapshot.now)
    except Exception:
        if alone:
            raise
        return {}


# --- What to do about it -------------------------------------------------------------------------


def _plan(snapshot: Snapshot, deployment: ModelDeployment, wanted: Want, grant: capacity.Grant) -> Plan:
    remembered = snapshot.memory.get(deployment.key, _NOTHING)
    context = Context(
        deployment=deployment,
        revision=deployment.revision,
        target=_target(deployment, wanted.pods, grant),
        now=snapshot.now,
        drain_timeout=wanted.spec.drain.timeout.seconds,
        metrics=snapshot.metrics,
        loads=snapshot.loads,
        made_room_at=remembered.made_room_at,
    )
    steps = plan_replicas(context, snapshot.pods.get(deployment.key, ()))
    obstacle = _obstacle(snapshot, deployment)
    if wanted.spec.scaling is not None and wanted.spec.scaling.mode is ScalingMode.SHADOW:
        grant = replace(grant, replicas=wanted.act_on)  # the number to keep: a shortage must not lower it
    published = status.compute(_decided(snapshot, deployment, wanted, grant, steps, obstacle))
    actions: Sequence[Action] = (*_objects(snapshot, deployment), *steps.actions)
    if obstacle is not None and snapshot.now < obstacle.retry_at:
        actions = [a for a in actions if not isinstance(a, CreatePod | Apply)]
    changed = published is not deployment.status and published != deployment.status
    made_room_at = _made_room_at(snapshot.now, steps, remembered)
    memory = wanted.memory
    return Plan(
        key=deployment.key,
        uid=deployment.uid,
        actions=tuple(actions),
        status=published if changed else None,
        events=(*steps.events, *(status.transitions(deployment.status, published) if changed else ())),
        memory=memory if memory.made_room_at == made_room_at else memory._replace(made_room_at=made_room_at),
        requeue_at=_earliest(
            steps.requeue_at,
            capacity.review_at(wanted.pods, snapshot.now),
            obstacle.retry_at if obstacle is not None and obstacle.retry_at > snapshot.now else None,
            wanted.bounds.until if wanted.bounds is not None else None,
        ),
    )


def _made_room_at(now: float, steps: Steps, remembered: Memory) -> float | None:
    """When room was made that nobody has taken yet."""
    if steps.made_room:
        return now
    return remembered.made_room_at if steps.room_awaited else None


def _target(deployment: ModelDeployment, pods: Sequence[Pod], grant: capacity.Grant) -> int:
    """How many pods there may be. In a rollout that is short of GPUs, the surge pod is the one that asks."""
    rolling = any(p.revision != deployment.revision and not p.leaving and not p.terminal for p in pods)
    return grant.replicas if rolling and grant.shortage is not None else grant.start_up_to


def _obstacle(snapshot: Snapshot, deployment: ModelDeployment) -> Obstacle | None:
    """What stands in the way of this spec; what stood in the way of an earlier one does not count."""
    known = snapshot.obstacles.get(deployment.key)
    return known if known is not None and known.generation == deployment.generation else None


def _decided(
    snapshot: Snapshot,
    deployment: ModelDeployment,
    wanted: Want,
    grant: capacity.Grant,
    steps: Steps,
    obstacle: Obstacle | None,
) -> Decided:
    return Decided(
        deployment=deployment,
        now=snapshot.now,
        pods=wanted.pods,
        desired=wanted.desired,
        previous=wanted.previous,
        grant=grant,
        steps=steps,
        recommendation=wanted.recommendation,
        demand=wanted.demand,
        faces=wanted.faces,
        bounds=wanted.bounds,
        metrics_failure=snapshot.metrics.failure,
        metrics_pending=snapshot.metrics.pending,
        obstacle=obstacle,
        standing=wanted.memory.standing,
        forecast=wanted.memory.outlook.status if wanted.memory.outlook is not None else None,
        startup=wanted.memory.startups.summary if wanted.memory.startups is not None else (),
        fleet_size=len(snapshot.deployments),
    )


def _objects(snapshot: Snapshot, deployment: ModelDeployment) -> tuple[Action, ...]:
    """The objects beside the pods, where they differ from what was applied last."""
    wanted, known = deployment.service, snapshot.services.get(deployment.key)
    if wanted is None or (known is not None and _in_step(wanted, known)):
        return ()
    return (Apply(wanted),)


def _in_step(wanted: Manifest, known: OwnedObject) -> bool:
    applied = wanted["metadata"]["annotations"][meta.ANNOTATION_APPLIED_HASH]
    return bool(known.applied_hash == applied) and dict(known.selector) == wanted["spec"]["selector"]


def _earliest(*moments: float | None) -> float | None:
    return min((m for m in moments if m is not None), default=None)


# --- What cannot be acted on ---------------------------------------------------------------------


def _rejected(snapshot: Snapshot, deployment: ModelDeployment) -> Plan:
    return _only_status(deployment, status.rejected(deployment, deployment.errors, snapshot.now))


def broken(snapshot: Snapshot, deployment: ModelDeployment, error: Exception) -> Plan:
    """The plan when deciding itself failed: say so, touch nothing."""
    message = f"{type(error).__name__}: {error}. This is a bug in Stoker; its log has the details."
    published = status.failed(deployment, Reason.INTERNAL_ERROR, message, snapshot.now)
    return replace(_only_status(deployment, published), error=error)


def _only_status(deployment: ModelDeployment, published: ModelDeploymentStatus) -> Plan:
    changed = published != deployment.status
    events = status.transitions(deployment.status, published) if changed else ()
    return Plan(deployment.key, deployment.uid, status=published if changed else None, events=events)
