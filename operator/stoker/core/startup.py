"""Time to ready: how long the latest replicas took from creation to serving, by accelerator.

Rules of this module:

* Each pod is measured once, when it first serves: a pod that loses readiness and finds it again has not
  started again, and a container that restarted has started twice.
* Waiting for a GPU is no start-up. The scheduler places a pod for which there is room at once, and looks at
  one that it refused at the latest after its longest back-off; a pod that took longer has waited for room,
  and its start counts from the moment it had a place.
* The moments come from two clocks, the API server's and the node's: what would be negative is 0.
* What is published is enough to go on from: after a restart the percentiles stand for the starts behind them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stoker.api.status import StartupPart, StartupStatus
from stoker.core.observed import Pod, Starts, StartUps

KEEP = 30
"""Starts per accelerator that are remembered: the percentiles follow a new image or disk within so many."""

PLACED_SECONDS = 10.0
"""A pod that took longer to be placed has waited for room: the longest back-off of kube-scheduler
(``podMaxBackoffSeconds``, KubeSchedulerConfiguration v1)."""

DEFAULT_SECONDS = 240.0
"""Time to ready before any start was measured: what autoscaling studies reckon with from a node to a serving
engine (inference-sim/inference-sim, normal with mean 240 s and deviation 30 s)."""


@dataclass(frozen=True, slots=True)
class Start:
    """One replica's start, seconds. None: this part cannot be told, or was no part of the start."""

    whole: float
    """To serving: from creation, or from the moment it had a place if it waited for one."""
    scheduling: float | None
    """From creation to a place on a node."""
    image_pull: float | None
    """From there until the engine's container ran: images, volumes, init containers."""
    load: float | None
    """From there to serving."""


def measured(pod: Pod) -> Start | None:
    """The start of a pod that serves; None when it does not, or when a container of it had to restart."""
    ready = pod.ready_since
    if ready is None or any(c.restarts for c in (*pod.containers, *pod.init_containers)):
        return None
    placed, ran = _placed_at(pod), _ran_at(pod)
    scheduling = _between(pod.created_at, placed)
    waited = scheduling is not None and scheduling > PLACED_SECONDS
    begun = placed if waited and placed is not None else pod.created_at
    return Start(
        whole=max(0.0, ready - begun),
        scheduling=None if waited else scheduling,
        image_pull=_between(placed, ran),
        load=_between(ran, ready),
    )


def _placed_at(pod: Pod) -> float | None:
    scheduled = pod.condition("PodScheduled")
    return scheduled.since if scheduled is not None and scheduled.status == "True" else None


def _ran_at(pod: Pod) -> float | None:
    """When the engine's container began to run; of several the last."""
    return max((c.started_at for c in pod.engines if c.started_at is not None), default=None)


def _between(since: float | None, until: float | None) -> float | None:
    return None if since is None or until is None else max(0.0, until - since)


# --- Memory --------------------------------------------------------------------------------------


def remember(known: StartUps | None, published: Sequence[StartupStatus], pods: Sequence[Pod]) -> StartUps:
    """Fold in the replicas that have begun to serve since the last look.

    Args:
        known: What was remembered; None after a restart. Then the published percentiles stand for what was
            measured before, the replicas that serve already among it.
        published: ``status.startup``.
        pods: The ModelDeployment's own.
    """
    if known is None:
        known = _recalled(published, pods)
    counted = frozenset([p.uid for p in pods if p.ready or p.uid in known.counted])
    if counted == known.counted:
        return _as_published(known, published)
    fresh = [p for p in pods if p.uid in counted and p.uid not in known.counted]
    starts = _folded(known.by_accelerator, fresh) if fresh else known.by_accelerator
    return StartUps(starts, counted, _summary(starts) if fresh else known.summary)


def _as_published(known: StartUps, published: Sequence[StartupStatus]) -> StartUps:
    """The same with the published records in place of equal ones, which a tick then sees at a glance."""
    if known.summary is published or known.summary != published:
        return known
    return StartUps(known.by_accelerator, known.counted, tuple(published))


def _recalled(published: Sequence[StartupStatus], pods: Sequence[Pod]) -> StartUps:
    """What is published, as if measured; where nothing is, those that serve are still to be looked at."""
    known = {p.accelerator: _stand_in(p) for p in published if p.samples}
    counted = frozenset(p.uid for p in pods if p.ready and p.accelerator in known)
    return StartUps(known, counted, tuple(published))


def _folded(known: Mapping[str, Starts], pods: Iterable[Pod]) -> dict[str, Starts]:
    found = dict(known)
    for pod in sorted(pods, key=lambda p: (p.ready_since or 0.0, p.uid)):
        start = measured(pod)
        if start is not None:
            found[pod.accelerator] = _appended(found.get(pod.accelerator, Starts()), start)
    return found


def _appended(starts: Starts, start: Start) -> Starts:
    return Starts(
        whole=_latest(starts.whole, start.whole),
        scheduling=_latest(starts.scheduling, start.scheduling),
        image_pull=_latest(starts.image_pull, start.image_pull),
        load=_latest(starts.load, start.load),
    )


def _latest(values: tuple[float, ...], value: float | None) -> tuple[float, ...]:
    return values if value is None else (*values, value)[-KEEP:]


def _stand_in(status: StartupStatus) -> Starts:
    """Starts with the published percentiles."""
    number = min(KEEP, status.samples)
    return Starts(
        whole=_spread(status.p50_seconds, status.p90_seconds, number),
        scheduling=_part_spread(status.scheduling, number),
        image_pull=_part_spread(status.image_pull, number),
        load=_part_spread(status.load, number),
    )


def _part_spread(part: StartupPart | None, number: int) -> tuple[float, ...]:
    return () if part is None else _spread(part.p50_seconds, part.p90_seconds, number)


def _spread(p50: float, p90: float, number: int) -> tuple[float, ...]:
    """Values with these percentiles, by nearest rank; in turn, so that newer starts displace both alike."""
    return tuple(p90 if n % 2 else p50 for n in range(number))


# --- Answers -------------------------------------------------------------------------------------


def _summary(by_accelerator: Mapping[str, Starts]) -> tuple[StartupStatus, ...]:
    """``status.startup``."""
    return tuple(
        StartupStatus(
            accelerator=name,
            p50_seconds=percentile(starts.whole, 0.5),
            p90_seconds=percentile(starts.whole, 0.9),
            samples=len(starts.whole),
            scheduling=_part(starts.scheduling),
            image_pull=_part(starts.image_pull),
            load=_part(starts.load),
        )
        for name, starts in sorted(by_accelerator.items())
        if starts.whole
    )


def _part(values: Sequence[float]) -> StartupPart | None:
    if not values:
        return None
    return StartupPart(p50_seconds=percentile(values, 0.5), p90_seconds=percentile(values, 0.9))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed (nearest rank), to a tenth of a second."""
    return round(sorted(values)[math.ceil(share * len(values)) - 1], 1)


def time_to_ready(startups: StartUps | None, accelerator: str) -> float:
    """p90 of the time to ready on this accelerator, s; DEFAULT_SECONDS before any start was measured."""
    starts = startups.by_accelerator.get(accelerator) if startups is not None else None
    return percentile(starts.whole, 0.9) if starts is not None and starts.whole else DEFAULT_SECONDS
