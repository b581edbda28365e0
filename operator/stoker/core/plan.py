"""The actions a decision may ask for. Data only: the controller executes them, tests read them.

Rules of this module:

* Actions of a plan are executed in order; any prefix of a plan leaves a state from which the next
  reconcile converges.
* Every action on an existing object names its uid, so that a stale view can never hit a namesake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.core.observed import Memory
from stoker.core.readings import Key

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create a replica's pod. Its name is deterministic: AlreadyExists means that it was done before."""

    manifest: Manifest
    reason: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete one pod, this very one (uid)."""

    pod: Key
    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class DrainPod:
    """Take a pod out of routing and remember on the pod itself when and why."""

    pod: Key
    uid: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class RestorePod:
    """Take a draining pod back into routing."""

    pod: Key
    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a whole object (it carries the applied-hash annotation)."""

    manifest: Manifest


Action = CreatePod | DeletePod | DrainPod | RestorePod | Apply


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the ModelDeployment."""

    type: str
    """Normal | Warning"""
    reason: str
    message: str
    action: str = "Reconcile"
    """What was being done, a verb in CamelCase (events.k8s.io/v1 ``action``)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for one ModelDeployment."""

    key: Key
    uid: str
    actions: tuple[Action, ...] = ()
    status: ModelDeploymentStatus | None = None
    """The status to publish; None when the published one is right already."""
    events: tuple[Event, ...] = ()
    memory: Memory = field(default_factory=Memory)
    requeue_at: float | None = None
    """Unix seconds: the earliest moment at which time alone changes the decision."""
    error: Exception | None = None
    """What went wrong in deciding: a bug, to be logged, counted and tried again with back-off."""
