"""What was observed: trimmed, frozen records of objects and readings, and the Snapshot made of them.

Rules of this module:

* A record carries only what a decision reads; it is cheap to keep tens of thousands of them.
* Zero, stale and missing are three different things. A number that Prometheus gave is a ``Reading``:
  ``Fresh``, ``Stale`` or ``Missing``, never a bare float that defaults to 0.
* Times are Unix seconds (float, UTC). The snapshot's ``now`` is the only clock the core knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from stoker.api import meta
from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec, ModelDeploymentStatus

if TYPE_CHECKING:
    from stoker.core.engines import MetricNames


ENGINE_CONTAINER = "engine"
"""Name of the engine's container in a replica's pod."""


class Key(NamedTuple):
    """A namespaced name: of a ModelDeployment or of a pod."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# --- Readings ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fresh:
    """A value that can be acted on, and the time (Unix s) it was measured."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Stale:
    """A value too old, or of a window not yet whole: it never shrinks a fleet."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, and why not, in words for a status message."""

    why: str


Reading = Fresh | Stale | Missing


class Signal(StrEnum):
    """What Stoker asks of every engine; the values are the names shown in status."""

    GENERATED_TOKENS = "generatedTokens"
    """Generated tokens per second."""
    PROMPT_TOKENS = "promptTokens"
    """Prompt tokens per second that were really computed (cached ones excluded where the engine says)."""
    REQUESTS = "requests"
    """Finished requests per second."""
    RUNNING = "running"
    """Requests in the batch now."""
    WAITING = "waiting"
    """Requests queued in the engine now."""


@dataclass(frozen=True, slots=True)
class PodMetrics:
    """One pod's readings. A signal that is absent from ``readings`` was not asked for."""

    readings: Mapping[Signal, Reading]
    first_token_buckets: tuple[tuple[float, float], ...] = ()
    """Time to first token: (upper bound in s, cumulative observations per second), ascending."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything Prometheus said in one tick, by pod."""

    at: float
    pods: Mapping[Key, PodMetrics] = field(default_factory=dict)
    failure: str | None = None
    """Why Prometheus could not be asked at all; None when it answered."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What a draining engine itself said over HTTP."""

    in_flight: Reading
    """Requests running and waiting."""
    idle_polls: int = 0
    """How many polls in a row said zero."""


# --- Objects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container's status as the kubelet published it."""

    name: str
    ready: bool = False
    started: bool = False
    restarts: int = 0
    state: str = "waiting"
    """waiting | running | terminated"""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    last_reason: str = ""
    last_message: str = ""
    last_exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class PodCondition:
    """One condition of a pod."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A replica's pod, trimmed to what decisions read."""

    key: Key
    uid: str
    owner: str
    """Name of the ModelDeployment, from the label."""
    owner_uid: str
    """uid of the controlling owner reference; empty when nobody owns the pod."""
    revision: str
    ordinal: int
    accelerator: str
    serving: bool
    """The serving label: whether the Service may route to it. Readiness is another matter."""
    created_at: float
    attempt: int = 0
    drain_started_at: float | None = None
    drain_reason: str = ""
    deleting_at: float | None = None
    """deletionTimestamp: when the grace period ends."""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    node: str = ""
    ip: str = ""
    port: int = 0
    """The engine's port, from the pod itself: the spec may have changed since; 0 when it names none."""
    conditions: tuple[PodCondition, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()
    init_containers: tuple[ContainerStatus, ...] = ()

    def condition(self, kind: str) -> PodCondition | None:
        """The pod's condition of this type, None when the kubelet or scheduler has not set it."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def ready(self) -> bool:
        """Whether the kubelet says the pod may receive traffic."""
        condition = self.condition("Ready")
        return condition is not None and condition.status == "True"

    @property
    def ready_since(self) -> float | None:
        """When the pod became ready; None while it is not."""
        condition = self.condition("Ready")
        return condition.since if condition is not None and condition.status == "True" else None

    @property
    def draining(self) -> bool:
        """Whether Stoker took it out of routing to let its requests finish."""
        return self.drain_started_at is not None

    @property
    def deleting(self) -> bool:
        """Whether the API server has accepted its deletion."""
        return self.deleting_at is not None

    @property
    def terminal(self) -> bool:
        """Whether it will never run again (Failed, or Succeeded: an engine has no reason to succeed)."""
        return self.phase in {"Failed", "Succeeded"}

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out, by Stoker's hand or another's."""
        return self.draining or self.deleting

    @property
    def engines(self) -> tuple[ContainerStatus, ...]:
        """The engine's container; every container of a pod that has none of that name."""
        return tuple(c for c in self.containers if c.name == ENGINE_CONTAINER) or self.containers

    @property
    def started(self) -> bool:
        """Whether the engine has passed its start-up probe: before that it cannot have requests.

        A sidecar that a template adds starts long before and says nothing.
        """
        return self.ready or any(c.started for c in self.engines)

    @property
    def routed(self) -> bool:
        """Whether the Service sends it requests: labelled, ready and not being deleted."""
        return self.serving and self.ready and not self.leaving and not self.terminal


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """An applied object (Service) as far as drift is concerned."""

    kind: str
    key: Key
    uid: str
    applied_hash: str
    """The applied-hash annotation; differs from the desired one when Stoker should apply again."""
    selector: Mapping[str, str] = field(default_factory=dict)
    """A Service's selector as it stands: the one field whose drift would misroute requests."""


@dataclass(frozen=True, slots=True)
class ModelDeployment:
    """A ModelDeployment as the API server holds it, parsed."""

    key: Key
    uid: str
    generation: int
    created_at: float
    deleting: bool
    spec: ModelDeploymentSpec | None
    """None when the stored spec cannot be parsed; then ``errors`` says why."""
    errors: tuple[FieldError, ...] = ()
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    revision: str = ""
    """Hash of the pod template that the spec asks for. This and the next two derive from the spec; they are
    kept because they change with its generation alone and are read at every tick."""
    metrics: MetricNames | None = None
    service: Mapping[str, Any] | None = None
    """The Service that should exist."""


# --- The snapshot --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the signals asked for over a stretch of time: the memory behind the scaling windows."""

    since: float
    until: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What one ModelDeployment's decisions remember between ticks. Losing it is safe: Stoker waits longer."""

    evidence: tuple[Proposal, ...] = ()
    """What complete signals proposed, in contiguous stretches, oldest first: the ground for going down."""
    asked: tuple[Proposal, ...] = ()
    """What the signals proposed at least, complete or not: the ground for going up."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The API server refused a write: what Stoker wants to create or apply waits until ``retry_at``."""

    reason: Reason
    message: str
    generation: int
    """Of the spec whose objects were refused: a new spec is tried at once."""
    retry_at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one tick decides on. Nothing outside it may influence a decision."""

    now: float
    deployments: Mapping[Key, ModelDeployment]
    pods: Mapping[Key, tuple[Pod, ...]] = field(default_factory=dict)
    """By ModelDeployment, not by pod."""
    services: Mapping[Key, OwnedObject] = field(default_factory=dict)
    """By ModelDeployment."""
    metrics: Metrics = field(default_factory=lambda: Metrics(at=0.0, failure="not asked yet"))
    loads: Mapping[str, EngineLoad] = field(default_factory=dict)
    """By pod uid; only pods that drain are asked."""
    memory: Mapping[Key, Memory] = field(default_factory=dict)
    obstacles: Mapping[Key, Obstacle] = field(default_factory=dict)


# --- From the API server's JSON to records -------------------------------------------------------


def timestamp(text: str | None) -> float | None:
    """RFC 3339 to Unix seconds; None for an absent or unreadable time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def pod_from(obj: Mapping[str, Any]) -> Pod | None:
    """A Pod record from a v1/Pod; None when the pod does not carry Stoker's labels."""
    metadata = obj.get("metadata") or {}
    labels = metadata.get("labels") or {}
    owner = labels.get(meta.LABEL_MODEL_DEPLOYMENT)
    if not owner:
        return None
    annotations = metadata.get("annotations") or {}
    status = obj.get("status") or {}
    return Pod(
        key=Key(metadata.get("namespace", ""), metadata.get("name", "")),
        uid=metadata.get("uid", ""),
        owner=owner,
        owner_uid=_controller_uid(metadata),
        revision=labels.get(meta.LABEL_REVISION, ""),
        ordinal=_whole(labels.get(meta.LABEL_ORDINAL), -1),
        accelerator=labels.get(meta.LABEL_ACCELERATOR, ""),
        serving=labels.get(meta.LABEL_SERVING) == "true",
        created_at=timestamp(metadata.get("creationTimestamp")) or 0.0,
        attempt=_whole(annotations.get(meta.ANNOTATION_ATTEMPT), 0),
        drain_started_at=timestamp(annotations.get(meta.ANNOTATION_DRAIN_STARTED)),
        drain_reason=annotations.get(meta.ANNOTATION_DRAIN_REASON, ""),
        deleting_at=timestamp(metadata.get("deletionTimestamp")),
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        node=(obj.get("spec") or {}).get("nodeName") or "",
        ip=status.get("podIP") or "",
        port=_port(obj.get("spec") or {}),
        conditions=tuple(_condition(c) for c in status.get("conditions") or ()),
        containers=_containers(status.get("containerStatuses")),
        init_containers=_containers(status.get("initContainerStatuses")),
    )


def owned_from(obj: Mapping[str, Any]) -> tuple[str, OwnedObject] | None:
    """(owner's name, record) of an applied object; None when it does not carry Stoker's label."""
    metadata = obj.get("metadata") or {}
    owner = (metadata.get("labels") or {}).get(meta.LABEL_MODEL_DEPLOYMENT)
    if not owner:
        return None
    annotations = metadata.get("annotations") or {}
    key = Key(metadata.get("namespace", ""), metadata.get("name", ""))
    return owner, OwnedObject(
        kind=obj.get("kind", ""),
        key=key,
        uid=metadata.get("uid", ""),
        applied_hash=annotations.get(meta.ANNOTATION_APPLIED_HASH, ""),
        selector=(obj.get("spec") or {}).get("selector") or {},
    )


def _controller_uid(metadata: Mapping[str, Any]) -> str:
    references = metadata.get("ownerReferences") or ()
    return next((r.get("uid", "") for r in references if r.get("controller")), "")


def _port(spec: Mapping[str, Any]) -> int:
    ports = (p for c in spec.get("containers") or () for p in c.get("ports") or ())
    return next((p.get("containerPort", 0) for p in ports), 0)


def _whole(text: str | None, default: int) -> int:
    try:
        return int(text or "")
    except ValueError:
        return default


def _condition(raw: Mapping[str, Any]) -> PodCondition:
    return PodCondition(
        type=raw.get("type", ""),
        status=raw.get("status", "Unknown"),
        reason=raw.get("reason") or "",
        message=raw.get("message") or "",
        since=timestamp(raw.get("lastTransitionTime")),
    )


def _containers(raw: Sequence[Mapping[str, Any]] | None) -> tuple[ContainerStatus, ...]:
    return tuple(_container(c) for c in raw or ())


def _container(raw: Mapping[str, Any]) -> ContainerStatus:
    state, detail = next(iter((raw.get("state") or {"waiting": {}}).items()))
    _, last = next(iter((raw.get("lastState") or {"": {}}).items()))
    detail, last = detail or {}, last or {}
    return ContainerStatus(
        name=raw.get("name", ""),
        ready=bool(raw.get("ready")),
        started=bool(raw.get("started")),
        restarts=raw.get("restartCount") or 0,
        state=state,
        reason=detail.get("reason") or "",
        message=detail.get("message") or "",
        exit_code=detail.get("exitCode"),
        last_reason=last.get("reason") or "",
        last_message=last.get("message") or "",
        last_exit_code=last.get("exitCode"),
    )
