"""The operator's decisions about one ModelDeployment, one instant after the other, in virtual time.

Rules of this module:

* Nothing is decided here: `stoker.core.reconcile.want` does, and what it wants remembered it is given again.
* Whoever has the time and the replicas (a record of the past, a simulation) hands them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stoker.core.history import History
from stoker.core.observed import (
    ContainerStatus,
    Memory,
    ModelDeployment,
    Pod,
    PodCondition,
    Snapshot,
)
from stoker.core.readings import Key, Metrics
from stoker.core.reconcile import Want, want


@dataclass(slots=True)
class Decider:
    """The operator, as far as it decides the replica count of one ModelDeployment.

    Args:
        deployment: as the operator parses it, with a spec that it can act on.
    """

    deployment: ModelDeployment
    memory: Memory = field(default_factory=Memory)

    def decide(
        self, now: float, pods: Sequence[Pod], metrics: Metrics, history: History | None = None
    ) -> Want:
        """One tick. The result is the next tick's ``status.desiredReplicas``.

        Args:
            now: Unix s.
            pods: the ModelDeployment's own.
            metrics: what Prometheus said about them.
            history: the demand of the days before; None when there is none.
        """
        deployment, spec = self.deployment, self.deployment.spec
        assert spec is not None  # noqa: S101 - the caller's contract
        snapshot = Snapshot(
            now=now,
            deployments={deployment.key: deployment},
            pods={deployment.key: tuple(pods)},
            metrics=metrics,
            memory={deployment.key: self.memory},
            history={deployment.key: history} if history is not None else {},
            why_no_history="Prometheus has none",
        )
        wanted = want(snapshot, deployment, spec)
        status = deployment.status.model_copy(update={"desired_replicas": wanted.desired})
        self.deployment = replace(deployment, status=status)
        self.memory = wanted.memory
        return wanted


def serving_pod(key: Key, of: ModelDeployment, *, created: float, ready: float) -> Pod:
    """The record of a replica that serves.

    Args:
        key: of its pod.
        of: its owner; the replica is of the owner's present revision, on its first accelerator.
        created: Unix s.
        ready: since when it serves, Unix s.
    """
    assert of.spec is not None  # noqa: S101 - the caller's contract
    return Pod(
        key=key,
        uid=f"{key.name}@{created:.0f}",
        owner=of.key.name,
        owner_uid=of.uid,
        revision=of.revision,
        ordinal=0,
        accelerator=of.spec.accelerators[0].name,
        serving=True,
        created_at=created,
        phase="Running",
        node="recorded",
        conditions=(
            PodCondition("PodScheduled", "True", since=created),
            PodCondition("Ready", "True", since=ready),
        ),
        containers=(
            ContainerStatus("engine", ready=True, started=True, state="running", started_at=created),
        ),
    )
