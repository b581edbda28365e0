"""Pods in virtual time: created, loading, serving, draining, deleted.

Rules of this module:

* The same for every policy, so that decisions alone are compared: who leaves (not yet serving first, the
  youngest of them first, then the least in flight), draining replicas are taken back before new ones start,
  nobody is cut.
* The n-th pod that a run creates has the n-th start-up delay, whoever creates it and when: same luck for all.
* A pod costs from creation to deletion: loading and draining are paid for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from testbed.replica import Replica, ReplicaModel

DRAIN_TAIL_SECONDS = 15.0
"""From a drained replica's last token to the end of its pod: proxies are given time to learn that the
endpoint is gone, and the engine to end."""


@dataclass(frozen=True, slots=True)
class StartUp:
    """How long a pod takes from creation to serving, seconds; normal, never below a third of the mean."""

    mean: float
    deviation: float = 0.0

    def draw(self, seed: int, ordinal: int) -> float:
        """The delay of the pod that was created as the ``ordinal``-th of its run."""
        luck = random.Random(f"{seed}/start-up/{ordinal}").gauss(self.mean, self.deviation)
        return max(self.mean / 3, luck)


@dataclass(slots=True, eq=False)
class SimulatedPod:
    """One replica of a run; times in seconds."""

    ordinal: int
    created: float
    ready_at: float
    scrape_phase: float
    replica: Replica
    in_flight: int = 0
    ready: bool = False
    drain_since: float | None = None
    deleted: float | None = None
    wake: int | None = None
    """When its engine is looked at next (ns): other entries in the event queue are void."""
    loaded_in: float = 0.0
    """How long it took from creation to serving; of one that served when the run began, before that."""

    @property
    def name(self) -> str:
        """Name of the pod, unique within a run."""
        return f"replica-{self.ordinal}"

    @property
    def draining(self) -> bool:
        """Whether it is out of routing, to finish what it has."""
        return self.drain_since is not None


@dataclass(slots=True)
class Changes:
    """What a new target changes; whoever runs the simulation books the events."""

    created: list[SimulatedPod] = field(default_factory=list)
    drained: list[SimulatedPod] = field(default_factory=list)
    deleted: list[SimulatedPod] = field(default_factory=list)


class Fleet:
    """The pods of a run, and who of them is routed to."""

    def __init__(self, model: ReplicaModel, start_up: StartUp, seed: int) -> None:
        self._model = model
        self._start_up = start_up
        self._seed = seed
        self.all: list[SimulatedPod] = []
        """Every pod there ever was, for the bill."""
        self.pods: list[SimulatedPod] = []
        """Those that exist, draining ones included, in order of creation."""
        self.routed: list[SimulatedPod] = []

    @property
    def live(self) -> int:
        """Pods that are not on their way out."""
        return sum(not pod.draining for pod in self.pods)

    def create(self, now: float, *, ready: bool = False) -> SimulatedPod:
        """A new pod; one that is ``ready`` has loaded before the run began."""
        ordinal = len(self.all)
        loaded_in = self._start_up.draw(self._seed, ordinal)
        delay = 0.0 if ready else loaded_in
        phase = random.Random(f"{self._seed}/phase/{ordinal}").random()
        pod = SimulatedPod(ordinal, now, now + delay, phase, Replica(self._model), loaded_in=loaded_in)
        self.all.append(pod)
        self.pods.append(pod)
        return pod

    def start_serving(self, pod: SimulatedPod) -> None:
        """The pod has loaded."""
        pod.ready = True
        self.routed.append(pod)

    def delete(self, pod: SimulatedPod, now: float) -> None:
        """The pod is gone."""
        pod.deleted = now
        self.pods.remove(pod)
        if pod in self.routed:
            self.routed.remove(pod)

    def scale(self, target: int, now: float) -> Changes:
        """Go towards ``target`` pods."""
        surplus = self.live - target
        changes = Changes()
        for pod in self._victims()[:surplus] if surplus > 0 else ():
            if pod.ready:
                pod.drain_since = now
                self.routed.remove(pod)
                changes.drained.append(pod)
            else:
                self.delete(pod, now)
                changes.deleted.append(pod)
        for _ in range(-surplus):
            if (back := self._latest_draining()) is not None:
                back.drain_since = None
                self.routed.append(back)
            else:
                changes.created.append(self.create(now))
        return changes

    def _victims(self) -> list[SimulatedPod]:
        stay = [pod for pod in self.pods if not pod.draining]
        return sorted(stay, key=lambda p: (p.ready, p.in_flight if p.ready else 0, -p.ordinal))

    def _latest_draining(self) -> SimulatedPod | None:
        draining = [p for p in self.pods if p.draining]
        return max(draining, key=lambda p: (p.drain_since or 0.0, p.ordinal), default=None)

    def pod_seconds(self, since: float, until: float) -> float:
        """Pods times seconds within [since, until]."""
        return sum(
            max(0.0, min(until if p.deleted is None else p.deleted, until) - max(p.created, since))
            for p in self.all
        )
