"""What a policy sees, and what it is: the seam between the simulation and everything that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.replay.fleet import SimulatedPod
from bench.replay.prometheus import Prometheus


@dataclass(slots=True)
class Gateway:
    """Counters of the gateway in front of the fleet, from the beginning of the run."""

    requests: int = 0
    """Arrived."""
    prompt_tokens: int = 0
    """Of those that arrived."""
    finished: int = 0
    """Answered to the end."""
    output_tokens: int = 0
    """Of those that are finished: nobody knows an answer's length before."""
    queued: int = 0
    """Held now: for want of any replica, or because all are saturated, where it holds requests then."""


@dataclass(frozen=True, slots=True)
class View:
    """One moment, as the cluster shows it."""

    now: float
    """Seconds of the simulation."""
    replicas: int
    """What the workload's ``spec.replicas`` says: the last decision."""
    pods: Sequence[SimulatedPod]
    """Those that exist, draining ones included."""
    prometheus: Prometheus
    gateway: Gateway

    @property
    def status_replicas(self) -> int:
        """``status.replicas``: pods that are not on their way out, ready or not."""
        return sum(not pod.draining for pod in self.pods)

    @property
    def ready(self) -> int:
        """``status.readyReplicas``."""
        return sum(pod.ready and not pod.draining for pod in self.pods)


class Policy(Protocol):
    """Something that decides a replica count."""

    @property
    def interval(self) -> float:
        """Seconds between decisions."""

    def decide(self, view: View) -> int:
        """How many replicas there should be; ``view.replicas`` to change nothing."""
