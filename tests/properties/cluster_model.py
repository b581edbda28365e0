"""A pure model of a cluster: it carries plans out, lets pods progress on finite GPUs, and keeps watch.

Time moves only in `advance`. While a plan is carried out, the rules that no plan may ever break are checked:
nobody is deleted with requests in flight before its drain time is up, nothing is created that exists, and the
fleet never exceeds its target by more than the one replica of a rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stoker.api.meta import ANNOTATION_ATTEMPT, LABEL_ORDINAL, LABEL_REVISION
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.core.lifecycle import IDLE_POLLS
from stoker.core.observed import (
    ContainerStatus,
    Memory,
    ModelDeployment,
    OwnedObject,
    Pod,
    PodCondition,
    Snapshot,
)
from stoker.core.parse import deployment_from
from stoker.core.plan import Action, Apply, CreatePod, DeletePod, DrainPod, Plan, RestorePod
from stoker.core.readings import EngineLoad, Fresh, Key, Metrics
from stoker.core.reconcile import reconcile
from tests.factories import FULL, KEY, NOW, UID, load, manifest

DRAIN_SECONDS = 120.0
LOAD_SECONDS = 20.0
LINGER_SECONDS = 8.0
"""How long a deleted pod takes to go, and holds its name and its GPU."""


@dataclass
class Replica:
    """A pod and what only its engine knows."""

    pod: Pod
    requests: int = 0
    stuck: bool = False
    """Its requests never end."""
    broken: bool = False
    """It will fail instead of becoming ready."""
    placed_at: float | None = None
    polls: int = 0


@dataclass
class Cluster:
    """One ModelDeployment, its pods, and the GPUs they share."""

    gpus: int = 8
    spec: dict[str, Any] = field(default_factory=lambda: {"replicas": 1})
    now: float = NOW
    images: int = 0
    """Which image the spec asks for: each is a revision."""
    bad_images: set[int] = field(default_factory=set)
    generation: int = 1
    replicas: dict[str, Replica] = field(default_factory=dict)
    service: OwnedObject | None = None
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    memory: Memory = field(default_factory=Memory)
    made: int = 0
    traffic: int = 0
    """Requests that routed replicas are given, each, whenever time moves."""
    metrics: Metrics | None = None
    """What Prometheus says; the truth unless given."""
    _parsed: ModelDeployment | None = None

    # --- What Stoker sees ------------------------------------------------------------------------

    def deployment(self) -> ModelDeployment:
        if self._parsed is None or self._parsed.generation != self.generation:
            image = {"image": f"engine:v{self.images}"}
            spec = {"engine": image, "drain": {"timeout": f"{DRAIN_SECONDS:.0f}s"}, **self.spec}
            self._parsed = deployment_from(manifest(generation=self.generation, **spec))
        return replace(self._parsed, status=self.status)

    def snapshot(self) -> Snapshot:
        pods = tuple(r.pod for r in self.replicas.values())
        return Snapshot(
            now=self.now,
            deployments={KEY: self.deployment()},
            pods={KEY: pods},
            services={KEY: self.service} if self.service is not None else {},
            metrics=self.metrics or self.truth(),
            loads={
                uid: EngineLoad(Fresh(float(r.requests), self.now), r.polls)
                for uid, r in self.replicas.items()
                if r.polls >= 0 and r.pod.draining
            },
            memory={KEY: self.memory},
        )

    def truth(self) -> Metrics:
        live = [r for r in self.replicas.values() if r.pod.started]
        return Metrics(self.now, {r.pod.key: load(float(r.requests), at=self.now) for r in live})

    def plan(self) -> Plan:
        return reconcile(self.snapshot())[KEY]

    # --- What Stoker does ------------------------------------------------------------------------

    def execute(self, plan: Plan, upto: int | None = None) -> None:
        """Carry out a plan, or only its first actions: then the operator died before status was published."""
        before = len(self.live())
        self.memory = plan.memory
        for action in plan.actions[:upto]:
            self._do(action)
        limit = self.target(plan) + (1 if self.old() else 0)
        assert len(self.live()) <= max(before, limit), f"{len(self.live())} replicas live, {limit} may"
        if upto is None and plan.status is not None:
            self.status = ModelDeploymentStatus.model_validate(
                plan.status.model_dump(mode="json", by_alias=True)
            )

    def target(self, plan: Plan) -> int:
        desired = plan.status.desired_replicas if plan.status is not None else self.status.desired_replicas
        assert desired is not None
        return desired

    def _do(self, action: Action) -> None:
        match action:
            case CreatePod():
                self._create(action)
            case Apply():
                annotations = action.manifest["metadata"]["annotations"]
                selector = action.manifest["spec"]["selector"]
                self.service = OwnedObject("Service", KEY, "uid-service", *annotations.values(), selector)
            case DeletePod():
                self._delete(action)
            case DrainPod():
                changed = {"serving": False, "drain_started_at": action.at, "drain_reason": action.reason}
                self._change(action.uid, **changed)
            case RestorePod():
                self._change(action.uid, serving=True, drain_started_at=None, drain_reason="")

    def _create(self, action: CreatePod) -> None:
        metadata = action.manifest["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        assert key not in {r.pod.key for r in self.replicas.values()}, f"{key} exists"
        self.made += 1
        pod = Pod(
            key=key,
            uid=f"uid-{self.made}",
            owner=KEY.name,
            owner_uid=UID,
            revision=metadata["labels"][LABEL_REVISION],
            ordinal=int(metadata["labels"][LABEL_ORDINAL]),
            accelerator="gpu",
            serving=True,
            created_at=self.now,
            attempt=int(metadata["annotations"][ANNOTATION_ATTEMPT]),
        )
        self.replicas[pod.uid] = Replica(pod, broken=self.images in self.bad_images)

    def _delete(self, action: DeletePod) -> None:
        replica = self.replicas[action.uid]
        pod = replica.pod
        assert not pod.deleting, f"{pod.key} is being deleted already"
        if replica.requests and pod.phase == "Running":
            assert pod.drain_started_at is not None, (
                f"{pod.key} is deleted with requests, and was not drained"
            )
            assert self.now >= pod.drain_started_at + DRAIN_SECONDS, f"{pod.key} is cut before its time"
        self._change(action.uid, deleting_at=self.now)

    def _change(self, uid: str, **fields: Any) -> None:
        pod = self.replicas[uid].pod
        assert not pod.deleting, f"{pod.key} is being deleted: {fields}"
        self.replicas[uid].pod = replace(pod, **fields)
        self.replicas[uid].polls = 0

    # --- What time does --------------------------------------------------------------------------

    def advance(self, seconds: float = 5.0) -> None:
        """Let time pass: pods go, come, load, fail, and requests arrive and end."""
        self.now += seconds
        for uid, replica in list(self.replicas.items()):
            if replica.pod.deleting_at is not None and self.now >= replica.pod.deleting_at + LINGER_SECONDS:
                del self.replicas[uid]
        for replica in sorted(self.replicas.values(), key=lambda r: r.pod.created_at):
            self._schedule(replica)
            self._progress(replica)

    def _schedule(self, replica: Replica) -> None:
        pod = replica.pod
        if pod.node or pod.deleting or pod.terminal:
            return
        taken = sum(bool(r.pod.node) and not r.pod.terminal for r in self.replicas.values())
        if taken < self.gpus:
            replica.placed_at = self.now
            scheduled = PodCondition("PodScheduled", "True", since=self.now)
            engine = ContainerStatus("engine", state="running")
            replica.pod = replace(
                pod,
                node="node",
                ip="10.0.0.1",
                phase="Running",
                conditions=(scheduled,),
                containers=(engine,),
            )
        elif not pod.conditions:
            refused = PodCondition("PodScheduled", "False", "Unschedulable", FULL, self.now)
            replica.pod = replace(pod, conditions=(refused,))

    def _progress(self, replica: Replica) -> None:
        pod = replica.pod
        if replica.placed_at is None or pod.terminal or pod.deleting:
            return
        if not pod.ready and self.now >= replica.placed_at + LOAD_SECONDS:
            if replica.broken:
                self.fail(pod.uid)
                return
            self._become_ready(replica)
        if replica.pod.routed:
            replica.requests = self.traffic
        elif not replica.stuck:
            replica.requests = max(0, replica.requests - 2)
        replica.polls = min(IDLE_POLLS, replica.polls + 1) if replica.requests == 0 else 0

    def _become_ready(self, replica: Replica) -> None:
        conditions = (*replica.pod.conditions, PodCondition("Ready", "True", since=self.now))
        engine = ContainerStatus("engine", ready=True, started=True, state="running")
        replica.pod = replace(replica.pod, conditions=conditions, containers=(engine,))

    def fail(self, uid: str) -> None:
        """A pod fails for good."""
        replica = self.replicas[uid]
        ended = ContainerStatus("engine", state="terminated", reason="Error", exit_code=1)
        conditions = (PodCondition("Ready", "False", "PodFailed", since=self.now),)
        replica.pod = replace(replica.pod, phase="Failed", conditions=conditions, containers=(ended,))
        replica.requests = 0

    def change(self, **spec: Any) -> None:
        """A new spec."""
        self.spec = spec
        self.generation += 1

    def roll(self, image: int) -> None:
        """A new revision."""
        self.images = image
        self.generation += 1

    # --- What is asked of it ---------------------------------------------------------------------

    def live(self) -> list[Pod]:
        """Pods that are neither on their way out nor dead."""
        return [r.pod for r in self.replicas.values() if not r.pod.leaving and not r.pod.terminal]

    def old(self) -> list[Pod]:
        """Live pods of other revisions."""
        revision = self.deployment().revision
        return [p for p in self.live() if p.revision != revision]

    def routed(self) -> list[Pod]:
        """Pods that users reach."""
        return [p for p in self.live() if p.routed]

    def tick(self, seconds: float = 5.0) -> None:
        """Decide, act, and let time pass."""
        self.execute(self.plan())
        self.advance(seconds)

    def settle(self, seconds: float = 3600.0) -> None:
        """Run until nothing is left to do."""
        deadline = self.now + seconds
        while self.now < deadline:
            plan = self.plan()
            moving = any(r.pod.leaving or not r.pod.ready for r in self.replicas.values())
            if not plan.actions and not moving:
                self.execute(plan)
                return
            self.execute(plan)
            self.advance()

    def names(self) -> Sequence[str]:
        """Names of the live pods."""
        return sorted(p.key.name for p in self.live())
