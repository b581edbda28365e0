"""What was observed: trimmed, frozen records of objects, and the Snapshot made of them and of readings.

Rules of this module:

* A record carries only what a decision reads; it is cheap to keep tens of thousands of them.
* Times are Unix seconds (float, UTC). The snapshot's ``now`` is the only clock the core knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec, ModelDeploymentStatus, StartupStatus
from stoker.core.belief import Learned
from stoker.core.history import History
from stoker.core.outlook import Outlook
from stoker.core.readings import EngineLoad, Key, MetricNames, Metrics
from stoker.core.traffic import Traffic

if TYPE_CHECKING:  # learning reads pods
    from stoker.core.learning import Standing

ENGINE_CONTAINER = "engine"
"""Name of the engine's container in a replica's pod."""


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
    started_at: float | None = None
    """When it began to run; None while it does not."""


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
    """A replica's pod, trimmed to what decisions read.

    What follows from it is asked a dozen times per tick, so it is found out once, when the pod has changed.
    """

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

    ready: bool = field(init=False, repr=False, compare=False)
    """Whether the kubelet says the pod may receive traffic."""
    ready_since: float | None = field(init=False, repr=False, compare=False)
    """When the pod became ready; None while it is not."""
    leaving: bool = field(init=False, repr=False, compare=False)
    """Whether it is on its way out, by Stoker's hand or another's."""
    terminal: bool = field(init=False, repr=False, compare=False)
    """Whether it will never run again (Failed, or Succeeded: an engine has no reason to succeed)."""
    routed: bool = field(init=False, repr=False, compare=False)
    """Whether the Service sends it requests: labelled, ready and not being deleted."""

    def __post_init__(self) -> None:
        """Find out what follows from the fields."""
        condition = self.condition("Ready")
        ready = condition is not None and condition.status == "True"
        leaving, terminal = self.draining or self.deleting, self.phase in {"Failed", "Succeeded"}
        derived = {
            "ready": ready,
            "ready_since": condition.since if condition is not None and ready else None,
            "leaving": leaving,
            "terminal": terminal,
            "routed": self.serving and ready and not leaving and not terminal,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # frozen, but not finished yet

    def condition(self, kind: str) -> PodCondition | None:
        """The pod's condition of this type, None when the kubelet or scheduler has not set it."""
        for condition in self.conditions:  # asked several times per pod and tick: a generator costs thrice
            if condition.type == kind:
                return condition
        return None

    @property
    def draining(self) -> bool:
        """Whether Stoker took it out of routing to let its requests finish."""
        return self.drain_started_at is not None

    @property
    def deleting(self) -> bool:
        """Whether the API server has accepted its deletion."""
        return self.deleting_at is not None

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


class Proposal(NamedTuple):
    """What the signals asked for over a stretch of time: the memory behind the scaling windows."""

    since: float
    until: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Starts:
    """The latest starts on one type of accelerator, seconds, the newest last; parts that are known."""

    whole: tuple[float, ...] = ()
    scheduling: tuple[float, ...] = ()
    image_pull: tuple[float, ...] = ()
    load: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class StartUps:
    """Starts that were measured, and whose."""

    by_accelerator: Mapping[str, Starts] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    """uids of the pods that exist and were looked at when they first served."""
    summary: tuple[StartupStatus, ...] = ()
    """The starts as status shows them: made anew only when there is a new start."""


class Memory(NamedTuple):
    """What one ModelDeployment's decisions remember between ticks. Losing it is safe: Stoker waits longer."""

    evidence: tuple[Proposal, ...] = ()
    """What complete signals proposed, in contiguous stretches, oldest first: the ground for going down."""
    asked: tuple[Proposal, ...] = ()
    """What the signals proposed at least, complete or not: the ground for going up."""
    traffic: Traffic = Traffic()
    """What the traffic has been like lately."""
    made_room_at: float | None = None
    """When an old replica last left to make room for a new revision, Unix s."""
    startups: StartUps | None = None
    """None before the first look: what is published stands in for it."""
    outlook: Outlook | None = None
    """The course of the demand, for its forecast."""
    learned: Learned | None = None
    """What the replicas have taught about their capacity; None likewise."""
    standing: Standing | None = None
    """What follows from it; None while the number of replicas is fixed."""


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
    history: Mapping[Key, History] = field(default_factory=dict)
    """The demand of the last two weeks."""
    why_no_history: str = "it was not asked for yet"
    """For those that are not in ``history``."""
