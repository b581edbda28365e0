"""Which replicas to start, drain, take back, delete and replace.

Rules of this module:

* The position is re-derived from the pods each time; there is no other state. What must survive a
  restart (revision, drain start, attempt) is written on the pods.
* A replica that may have requests leaves by draining: out of routing, idle by its own word (or the
  drain time is up), then deleted. One that never started has none and is deleted at once.
* Draining replicas are taken back before new ones are started.
* A rollout replaces one replica at a time: it surges by one; only when the surge pod cannot be
  scheduled does an old replica make room for it. The old revision serves until the new one does.
* A replica that failed is replaced with back-off; until then it holds its place, so that a crash
  loop never costs more than its own GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter

from stoker.api.meta import pod_name
from stoker.core import resources
from stoker.core.observed import ModelDeployment, Pod
from stoker.core.plan import Action, Apply, CreatePod, DeletePod, DrainPod, Event, Manifest, RestorePod
from stoker.core.readings import EngineLoad, Fresh, Metrics, Signal

ROUTING_GRACE = 5.0
"""Seconds that routers are given to see that a replica has left, before its idleness counts."""

IDLE_POLLS = 2
"""How many times in a row an engine must say that it has no requests."""

DRAIN_POLL_SECONDS = 1.0
"""How often a draining engine is asked."""

BACKOFF_SECONDS = 10.0
BACKOFF_LIMIT_SECONDS = 300.0
"""A failed replica is replaced after 10 s, doubling per attempt up to 5 min: the kubelet's own back-off."""

RECOVERED_SECONDS = 600.0
"""A replica that lived this long starts over with the first back-off, as the kubelet's does after 10 min."""

MAKE_ROOM_SECONDS = 10.0
"""How long a surge pod may be unschedulable before an old replica is drained to make room for it."""

ROOM_TAKEN_SECONDS = 30.0
"""How long the scheduler is given to use the room: its back-off is 10 s at the most (kubernetes
pkg/scheduler/backend/queue/scheduling_queue.go, DefaultPodMaxBackoffDuration)."""

MAKES_ROOM = "rollout, makes room"

_LACKING = "Insufficient "
"""What the scheduler says of a node whose resources are taken (kubernetes pkg/scheduler/framework/plugins/
noderesources/fit.go)."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do with the replicas of one ModelDeployment now."""

    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_at: float | None = None
    """When time alone changes the answer."""
    rolling: int = 0
    """Replicas of other revisions that still live."""
    stuck_since: float | None = None
    """During a rollout: since when its newest replica has not come up."""
    made_room: bool = False
    """Whether an old replica now makes room for the rollout."""
    room_awaited: bool = False
    """Whether a replica of the revision still waits for a node."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the steps depend on beside the pods."""

    deployment: ModelDeployment
    revision: str
    target: int
    now: float
    drain_timeout: float
    metrics: Metrics
    loads: Mapping[str, EngineLoad] = field(default_factory=dict)
    made_room_at: float | None = None
    """When an old replica last made room for the rollout."""


@dataclass(frozen=True, slots=True)
class _Replicas:
    """The deployment's own pods, each in one drawer."""

    current: tuple[Pod, ...]
    old: tuple[Pod, ...]
    draining: tuple[Pod, ...]
    waiting: tuple[Pod, ...]
    """Failed, in back-off."""
    retriable: tuple[Pod, ...]
    """Failed, back-off over."""

    @property
    def places(self) -> int:
        """Replicas that count as supply, now or soon."""
        return len(self.current) + len(self.old) + len(self.waiting) + len(self.retriable)


_NONE = Steps()


def plan_replicas(context: Context, pods: Sequence[Pod]) -> Steps:
    """The next actions towards ``target`` replicas of ``revision``.

    Args:
        context: Deployment, target and readings.
        pods: All pods with the deployment's label, in any order; those of a former namesake are left alone.
    """
    mine = sorted([p for p in pods if p.owner_uid == context.deployment.uid], key=attrgetter("key"))
    if len(mine) == context.target and all(p.routed and p.revision == context.revision for p in mine):
        return _NONE  # by far the commonest case: those that are wanted serve
    names = _Names(context, pods)
    replicas = _sorted_out(context, mine)
    balance = _balance(context, replicas, names)
    taken_back = {a.uid for a in balance if isinstance(a, RestorePod)}
    drained, drain_events = _finish_drains(context, [p for p in replicas.draining if p.uid not in taken_back])
    actions = [*drained, *balance]
    touched = {a.uid for a in actions if not isinstance(a, CreatePod | Apply)}
    repairs = _repair_routing(p for p in mine if p.uid not in touched)
    return Steps(
        actions=(*actions, *repairs),
        events=tuple(drain_events),
        requeue_at=_requeue_at(context, replicas),
        rolling=len(replicas.old) + sum(p.revision != context.revision for p in replicas.draining),
        stuck_since=_stuck_since(replicas),
        made_room=any(_makes_room(a) for a in balance),
        room_awaited=any(not p.node for p in replicas.current),
    )


# --- Sorting -------------------------------------------------------------------------------------


def _sorted_out(context: Context, mine: Iterable[Pod]) -> _Replicas:
    current: list[Pod] = []
    old: list[Pod] = []
    draining: list[Pod] = []
    waiting: list[Pod] = []
    retriable: list[Pod] = []
    for pod in mine:
        if pod.deleting:
            continue
        if pod.draining:  # also one that failed meanwhile: it was to go, so nobody replaces it
            draining.append(pod)
        elif pod.terminal:
            (waiting if context.now < retry_at(pod) else retriable).append(pod)
        elif pod.revision == context.revision:
            current.append(pod)
        else:
            old.append(pod)
    return _Replicas(tuple(current), tuple(old), tuple(draining), tuple(waiting), tuple(retriable))


def retry_at(pod: Pod) -> float:
    """When a failed pod may be replaced, Unix s."""
    return failed_at(pod) + min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2.0 ** min(_attempt(pod), 10))


def failed_at(pod: Pod) -> float:
    """When a terminal pod last changed, as far as its conditions tell."""
    return max((c.since for c in pod.conditions if c.since is not None), default=pod.created_at)


def _attempt(pod: Pod) -> int:
    return 0 if failed_at(pod) - pod.created_at >= RECOVERED_SECONDS else pod.attempt


class _Names:
    """Ordinals: the lowest whose name no pod holds, whoever owns it and whatever its labels say by now."""

    def __init__(self, context: Context, pods: Iterable[Pod]) -> None:
        self._context = context
        self._taken = {p.key.name for p in pods}
        self._ordinals = count()
        self._template: Manifest | None = None

    def create(self, reason: str, attempt: int = 0) -> CreatePod:
        context, name = self._context, self._context.deployment.key.name
        ordinal = next(n for n in self._ordinals if pod_name(name, context.revision, n) not in self._taken)
        if self._template is None:
            self._template = resources.template(context.deployment)
        manifest = resources.pod(context.deployment, context.revision, ordinal, attempt, self._template)
        return CreatePod(manifest, reason)


# --- Balance -------------------------------------------------------------------------------------


def _balance(context: Context, replicas: _Replicas, names: _Names) -> list[Action]:
    surge = 1 if replicas.old and context.target > 0 else 0
    deficit = context.target - replicas.places
    surplus = replicas.places - context.target - surge
    if surplus > 0:
        return [_leave(p, context, "scale-in") for p in _victims(context, replicas)[:surplus]]
    actions = _retry(replicas, names)
    if deficit > 0:
        return actions + _add(context, replicas, names, deficit, "scale-out")
    if replicas.old:
        return actions + _roll(context, replicas, names)
    return actions


def _retry(replicas: _Replicas, names: _Names) -> list[Action]:
    """Replace failed replicas whose back-off is over: create first, so that no crash in between loses one."""
    actions: list[Action] = []
    for pod in replicas.retriable:
        actions.append(names.create(f"replaces {pod.key.name}, which failed", _attempt(pod) + 1))
        actions.append(DeletePod(pod.key, pod.uid, "failed; replaced"))
    return actions


def _add(context: Context, replicas: _Replicas, names: _Names, lacking: int, reason: str) -> list[Action]:
    """Take draining replicas back (the latest first), then start new ones."""
    candidates = [
        p for p in replicas.draining if p.revision == context.revision and p.ready and not p.terminal
    ]
    candidates.sort(key=lambda p: (-(p.drain_started_at or 0.0), p.key))
    back: list[Action] = [RestorePod(p.key, p.uid, f"{reason}: needed again") for p in candidates[:lacking]]
    return back + [names.create(reason) for _ in range(lacking - len(back))]


def _roll(context: Context, replicas: _Replicas, names: _Names) -> list[Action]:
    """One step of a rollout: surge, or let an old replica go, one at a time."""
    arrived = all(p.routed for p in replicas.current) and not (replicas.waiting or replicas.retriable)
    if replicas.places <= context.target:
        return _add(context, replicas, names, 1, "rollout") if arrived else []
    if any(p.revision != context.revision for p in replicas.draining):
        return []
    if arrived or _no_room(context, replicas.current):
        reason = "rollout" if arrived else MAKES_ROOM
        return [_leave(_least_useful(context, replicas.old)[0], context, reason)]
    return []


def _no_room(context: Context, current: Iterable[Pod]) -> bool:
    """Whether the surge pod has lacked resources long enough to be believed.

    A pod that no node would take even when empty (a selector, a taint) gains nothing by a replica's end. Room
    that was just made is waited for: the GPU is free when the pod is gone, and the scheduler has back-offs.
    """
    if context.made_room_at is not None and context.now - context.made_room_at < ROOM_TAKEN_SECONDS:
        return False
    since = [_unschedulable_since(p) for p in current]
    return any(s is not None and context.now - s >= MAKE_ROOM_SECONDS for s in since)


def _makes_room(action: Action) -> bool:
    return isinstance(action, DrainPod | DeletePod) and action.reason.startswith(MAKES_ROOM)


def _unschedulable_since(pod: Pod) -> float | None:
    condition = pod.condition("PodScheduled")
    if condition is None or condition.status != "False" or condition.reason != "Unschedulable":
        return None
    return (condition.since or pod.created_at) if _LACKING in condition.message else None


# --- Leaving -------------------------------------------------------------------------------------


def _victims(context: Context, replicas: _Replicas) -> list[Pod]:
    """Who leaves first: failed, not started (youngest first), not serving, old revision, least in flight."""
    live = [*replicas.old, *replicas.current]
    return [*replicas.retriable, *replicas.waiting, *_least_useful(context, live)]


def _least_useful(context: Context, pods: Iterable[Pod]) -> list[Pod]:
    def usefulness(pod: Pod) -> tuple[bool, bool, bool, float, float, str]:
        if not pod.started:
            return (False, bool(pod.node), False, 0.0, -pod.created_at, pod.key.name)
        current = pod.revision == context.revision
        return (True, pod.routed, current, in_flight(context.metrics, pod), -pod.created_at, pod.key.name)

    return sorted(pods, key=usefulness)


def in_flight(metrics: Metrics, pod: Pod) -> float:
    """Requests running and waiting by the last scrape; infinite when unknown, since unknown is not idle."""
    known = metrics.pods.get(pod.key)
    if known is None:
        return float("inf")
    readings = [known.readings.get(s) for s in (Signal.RUNNING, Signal.WAITING)]
    if not isinstance(readings[0], Fresh):
        return float("inf")
    return sum(r.value for r in readings if isinstance(r, Fresh))


def _leave(pod: Pod, context: Context, reason: str) -> Action:
    if pod.terminal or not pod.started:
        return DeletePod(pod.key, pod.uid, f"{reason}: it never served")
    return DrainPod(pod.key, pod.uid, context.now, reason)


def _finish_drains(context: Context, draining: Iterable[Pod]) -> tuple[list[Action], list[Event]]:
    actions: list[Action] = []
    events: list[Event] = []
    for pod in draining:
        load = context.loads.get(pod.uid)
        if _idle(context, pod, load):
            actions.append(DeletePod(pod.key, pod.uid, "drained"))
        elif context.now >= _drain_deadline(context, pod):
            actions.append(DeletePod(pod.key, pod.uid, "drain timeout"))
            events.append(_deadline_event(context, pod, load))
    return actions, events


def _idle(context: Context, pod: Pod, load: EngineLoad | None) -> bool:
    if pod.terminal or not any(c.state == "running" for c in pod.engines):
        return True  # no engine process: nothing can be running in it
    if load is None or load.idle_polls < IDLE_POLLS or not isinstance(load.in_flight, Fresh):
        return False
    return load.in_flight.at >= (pod.drain_started_at or context.now) + ROUTING_GRACE


def _drain_deadline(context: Context, pod: Pod) -> float:
    return (pod.drain_started_at or context.now) + context.drain_timeout


def _deadline_event(context: Context, pod: Pod, load: EngineLoad | None) -> Event:
    known = load.in_flight if load is not None else None
    count = f"{known.value:.0f}" if isinstance(known, Fresh) else "an unknown number of"
    message = (
        f"{pod.key.name} is deleted with {count} requests in flight: drain.timeout "
        f"({context.drain_timeout:.0f} s) is up. Raise spec.drain.timeout if requests take longer."
    )
    return Event("Warning", "DrainDeadlineExceeded", message, "Drain")


def _repair_routing(pods: Iterable[Pod]) -> list[Action]:
    """The serving label must say what the drain annotation says, whoever changed one of them."""
    repairs: list[Action] = []
    for pod in pods:
        if pod.deleting or pod.terminal or pod.serving != pod.draining:
            continue
        if pod.drain_started_at is None:
            repairs.append(RestorePod(pod.key, pod.uid, "the serving label was changed by somebody else"))
        else:
            repairs.append(DrainPod(pod.key, pod.uid, pod.drain_started_at, pod.drain_reason))
    return repairs


# --- Time ----------------------------------------------------------------------------------------


def _requeue_at(context: Context, replicas: _Replicas) -> float | None:
    """The earliest moment at which one of the rules above answers differently without any event."""
    moments = [retry_at(p) for p in replicas.waiting]
    if replicas.draining:
        moments.append(context.now + DRAIN_POLL_SECONDS)
    if replicas.old:
        moments += [
            s + MAKE_ROOM_SECONDS for p in replicas.current if (s := _unschedulable_since(p)) is not None
        ]
        if context.made_room_at is not None:
            moments.append(context.made_room_at + ROOM_TAKEN_SECONDS)
    future = [m for m in moments if m > context.now]
    return min(future, default=None)


def _stuck_since(replicas: _Replicas) -> float | None:
    if not replicas.old:
        return None
    return min((p.created_at for p in replicas.current if not p.routed), default=None)
