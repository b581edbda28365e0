"""What the GPUs allow of what the traffic asks for, across the whole fleet.

Rules of this module:

* It is decided once per tick for all ModelDeployments, from the whole snapshot.
* A shortage is observed, not guessed: the scheduler has said of a replica's pod that it fits nowhere.
  From then on one replica waits and keeps asking; others that wait are withdrawn, and the moment the one
  is placed the next follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stoker.api.conditions import Reason
from stoker.core.diagnose import diagnose_pod
from stoker.core.observed import Pod
from stoker.core.readings import Key

SCHEDULING_GRACE = 5.0
"""Seconds that a pod may be unschedulable before it counts: the scheduler retries at once when a pod goes."""


@dataclass(frozen=True, slots=True)
class Grant:
    """How many replicas a ModelDeployment may have."""

    replicas: int
    """What the GPUs carry of the wanted replicas: the number shown in status."""
    start_up_to: int
    """How many pods may exist, the one that asks the scheduler included."""
    shortage: Shortage | None = None


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why fewer replicas than wanted are granted."""

    reason: Reason
    message: str


def allocate(wanted: Mapping[Key, int], pods: Mapping[Key, Sequence[Pod]], now: float) -> dict[Key, Grant]:
    """Grants for the whole fleet.

    Args:
        wanted: Replicas each ModelDeployment asks for.
        pods: Their pods.
        now: Unix s.
    """
    return {key: _grant(count, pods.get(key, ()), now) for key, count in sorted(wanted.items())}


def _grant(wanted: int, pods: Sequence[Pod], now: float) -> Grant:
    alive = [p for p in pods if not p.leaving and not p.terminal]
    refused = [p for p in alive if _refused(p, now)]
    if not refused:
        return Grant(wanted, wanted)
    placed = sum(bool(p.node) for p in alive)
    granted = min(wanted, placed)
    if granted == wanted:  # only the surge pod of a rollout waits
        return Grant(wanted, wanted)
    hopeful = len(alive) - len(refused)  # placed, or not judged by the scheduler yet
    return Grant(granted, min(wanted, hopeful + 1), _shortage(wanted, granted, refused, now))


def _refused(pod: Pod, now: float) -> bool:
    condition = pod.condition("PodScheduled")
    if condition is None or condition.status != "False" or condition.reason != "Unschedulable":
        return False
    return now - (condition.since or pod.created_at) >= SCHEDULING_GRACE


def _shortage(wanted: int, granted: int, refused: Sequence[Pod], now: float) -> Shortage:
    first = min(refused, key=lambda p: p.key)
    finding = diagnose_pod(first, now)
    reason = finding.reason if finding is not None else Reason.INSUFFICIENT_GPUS
    why = finding.message if finding is not None else f"{first.key.name} fits on no node"
    return Shortage(reason, f"{granted} of {wanted} replicas have a place. {why}")


def review_at(pods: Sequence[Pod], now: float) -> float | None:
    """When a pod that the scheduler has just refused starts to count, Unix s; None if there is none."""
    waiting = [p.condition("PodScheduled") for p in pods if not p.node and not p.leaving]
    moments = [
        c.since + SCHEDULING_GRACE for c in waiting if c is not None and c.status == "False" and c.since
    ]
    return min((m for m in moments if m > now), default=None)
