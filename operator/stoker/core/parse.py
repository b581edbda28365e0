"""From the API server's JSON to records: parsed once, never an exception.

Rules of this module:

* The API server has validated the object, but an older or newer schema may have stored it: what cannot be
  parsed becomes errors that name the field, and the fleet stays as it is.
* What derives from the spec alone (revision, metric names, Service) is computed here, once per generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from stoker.api import meta, validation
from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec, ModelDeploymentStatus
from stoker.core import resources
from stoker.core.compact import compact, text
from stoker.core.engines import engine_for
from stoker.core.observed import (
    ContainerStatus,
    ModelDeployment,
    OwnedObject,
    Pod,
    PodCondition,
)
from stoker.core.readings import Key


def deployment_from(obj: Mapping[str, Any], known: ModelDeployment | None = None) -> ModelDeployment:
    """The record of a ModelDeployment.

    Args:
        obj: As the API server sent it.
        known: The record so far: its parsed spec is used again while the generation is the same.
    """
    metadata = obj["metadata"]
    status = _status(obj.get("status") or {})
    generation, uid = metadata.get("generation", 0), metadata["uid"]
    deleting = bool(metadata.get("deletionTimestamp"))
    if known is not None and (known.uid, known.generation) == (uid, generation):
        return replace(known, status=status, deleting=deleting)
    key = Key(metadata.get("namespace", ""), metadata["name"])
    spec, errors = _spec(obj.get("spec") or {})
    record = ModelDeployment(
        key=key,
        uid=uid,
        generation=generation,
        created_at=timestamp(metadata.get("creationTimestamp")) or 0.0,
        deleting=deleting,
        spec=spec,
        errors=errors,
        status=status,
    )
    if spec is None or errors:
        return record
    try:
        return replace(
            record,
            revision=resources.revision(key.name, spec),
            metrics=engine_for(spec).metrics,
            service=resources.service(record),
        )
    except ValueError as error:  # what a rule of the API server forbids today, an older one may have stored
        return replace(record, errors=(FieldError("spec", str(error)),))


def _spec(raw: Mapping[str, Any]) -> tuple[ModelDeploymentSpec | None, tuple[FieldError, ...]]:
    spec, errors = validation.parse(raw)
    spec = compact(spec) if spec is not None else None
    return spec, errors if spec is None else (*errors, *engine_for(spec).refused())


def _status(raw: Mapping[str, Any]) -> ModelDeploymentStatus:
    """The published status; one that cannot be read (a newer release wrote it) counts as none."""
    try:
        return compact(ModelDeploymentStatus.model_validate(raw))
    except ValidationError:
        return ModelDeploymentStatus()


# --- Pods and applied objects --------------------------------------------------------------------


@lru_cache(maxsize=4096)
def timestamp(written: str | None) -> float | None:
    """RFC 3339 to Unix seconds; None for an absent or unreadable time."""
    if not written:
        return None
    try:
        return datetime.fromisoformat(written).timestamp()
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
        key=Key(text(metadata.get("namespace")), text(metadata.get("name"))),
        uid=metadata.get("uid", ""),
        owner=text(owner),
        owner_uid=_controller_uid(metadata),
        revision=text(labels.get(meta.LABEL_REVISION)),
        ordinal=_whole(labels.get(meta.LABEL_ORDINAL), -1),
        accelerator=text(labels.get(meta.LABEL_ACCELERATOR)),
        serving=labels.get(meta.LABEL_SERVING) == "true",
        created_at=timestamp(metadata.get("creationTimestamp")) or 0.0,
        attempt=_whole(annotations.get(meta.ANNOTATION_ATTEMPT), 0),
        drain_started_at=timestamp(annotations.get(meta.ANNOTATION_DRAIN_STARTED)),
        drain_reason=annotations.get(meta.ANNOTATION_DRAIN_REASON, ""),
        deleting_at=timestamp(metadata.get("deletionTimestamp")),
        phase=text(status.get("phase")) or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        node=text((obj.get("spec") or {}).get("nodeName")),
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
    return next((text(r.get("uid")) for r in references if r.get("controller")), "")


def _port(spec: Mapping[str, Any]) -> int:
    ports = (p for c in spec.get("containers") or () for p in c.get("ports") or ())
    return next((p.get("containerPort", 0) for p in ports), 0)


def _whole(written: str | None, default: int) -> int:
    try:
        return int(written or "")
    except ValueError:
        return default


def _condition(raw: Mapping[str, Any]) -> PodCondition:
    return _kept_condition(
        raw.get("type", ""),
        raw.get("status", "Unknown"),
        raw.get("reason") or "",
        raw.get("message") or "",
        raw.get("lastTransitionTime"),
    )


@lru_cache(maxsize=4096)
def _kept_condition(kind: str, status: str, reason: str, message: str, since: str | None) -> PodCondition:
    """Kept, because most events of a pod repeat most of its conditions."""
    return PodCondition(text(kind), text(status), text(reason), message, timestamp(since))


def _containers(raw: Sequence[Mapping[str, Any]] | None) -> tuple[ContainerStatus, ...]:
    return tuple(_container(c) for c in raw or ())


def _container(raw: Mapping[str, Any]) -> ContainerStatus:
    state, detail = next(iter((raw.get("state") or {"waiting": {}}).items()))
    _, last = next(iter((raw.get("lastState") or {"": {}}).items()))
    detail, last = detail or {}, last or {}
    return ContainerStatus(
        name=text(raw.get("name")),
        ready=bool(raw.get("ready")),
        started=bool(raw.get("started")),
        restarts=raw.get("restartCount") or 0,
        state=text(state),
        reason=detail.get("reason") or "",
        message=detail.get("message") or "",
        exit_code=detail.get("exitCode"),
        last_reason=last.get("reason") or "",
        last_message=last.get("message") or "",
        last_exit_code=last.get("exitCode"),
        started_at=timestamp(detail.get("startedAt")) if state == "running" else None,
    )
