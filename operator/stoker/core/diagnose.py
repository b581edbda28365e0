"""Why a replica does not serve, in one reason and one sentence; and where in its life it is.

The checks themselves are in `checks.py`. A message says what is wrong, on which pod and node, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import ReplicaPhase
from stoker.core.causes import Cause
from stoker.core.checks import CHECKS, DEPARTURES, Case
from stoker.core.observed import Pod
from stoker.core.readings import Key

MAX_MESSAGE: Final = 600
"""Characters; a condition has room for 1024 and says a little more around it."""
MAX_REMEDY: Final = 200
"""Characters of it for what to do."""

_RANK: Final = (
    # What only the user can put right, and what no waiting cures.
    Reason.CONFIG_MISSING,
    Reason.IMAGE_PULL_FAILED,
    Reason.OUT_OF_MEMORY,
    Reason.CRASH_LOOP,
    Reason.NEVER_READY,
    Reason.REPLICA_FAILED,
    # What the cluster lacks.
    Reason.NO_SUCH_NODE,
    Reason.UNSCHEDULABLE,
    Reason.INSUFFICIENT_GPUS,
    # What Stoker is putting right.
    Reason.NODE_LOST,
    Reason.EVICTED,
)
_BROKEN: Final = frozenset(
    {Reason.OUT_OF_MEMORY, Reason.CRASH_LOOP, Reason.NEVER_READY, Reason.REPLICA_FAILED, Reason.NODE_LOST}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why one pod does not serve."""

    reason: Reason
    message: str
    pod: Key


def diagnose_pod(pod: Pod, now: float) -> Finding | None:
    """Why a pod does not serve; None when it does, when it is still on its way, or leaves as it should.

    Args:
        pod: the pod as observed.
        now: Unix seconds.
    """
    if pod.ready and not pod.deleting:
        return None
    case = Case(pod, now)
    for check in DEPARTURES if pod.deleting else CHECKS:
        if (cause := check(case)) is not None:
            return Finding(cause.reason, _sentence(pod, cause), pod.key)
    return None


def diagnose(pods: Iterable[Pod], now: float) -> Finding | None:
    """The most actionable finding over the pods of a ModelDeployment, in whatever order they come.

    Args:
        pods: the pods as observed.
        now: Unix seconds.

    Returns:
        Of several equally actionable ones that of the first pod by name; None when nothing is wrong.
    """
    findings = (finding for pod in pods if (finding := diagnose_pod(pod, now)) is not None)
    return min(findings, key=lambda f: (_RANK.index(f.reason), f.pod), default=None)


def phase(pod: Pod, now: float) -> ReplicaPhase:
    """Where a replica is in its life, as `status.replicaStates` shows it."""
    if pod.deleting:
        return ReplicaPhase.STOPPING
    if pod.terminal:
        return ReplicaPhase.FAILED
    if pod.routed:
        return ReplicaPhase.SERVING
    if pod.draining or pod.ready:  # ready and out of routing: by Stoker's hand or by somebody else's
        return ReplicaPhase.DRAINING
    finding = diagnose_pod(pod, now)
    if finding is not None and finding.reason in _BROKEN:
        return ReplicaPhase.FAILED
    return ReplicaPhase.PENDING if pod.phase == "Pending" else ReplicaPhase.LOADING


def _sentence(pod: Pod, cause: Cause) -> str:
    where = f"{pod.key.name} on {pod.node}" if pod.node else pod.key.name
    end = f". {cause.do[:1].upper()}{cause.do[1:MAX_REMEDY]}."
    return f"{where}: {cause.what}"[: MAX_MESSAGE - len(end)] + end
