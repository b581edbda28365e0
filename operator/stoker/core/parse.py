"""From a ModelDeployment's JSON to its record: parsed once per generation, never an exception.

Rules of this module:

* The API server has validated the object, but an older or newer schema may have stored it: what cannot be
  parsed becomes errors that name the field, and the fleet stays as it is.
* What derives from the spec alone (revision, metric names, Service) is computed here, once per generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from stoker.api import validation
from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec, ModelDeploymentStatus
from stoker.core import resources
from stoker.core.engines import engine_for
from stoker.core.observed import Key, ModelDeployment, timestamp


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
    return spec, errors if spec is None else (*errors, *engine_for(spec).refused())


def _status(raw: Mapping[str, Any]) -> ModelDeploymentStatus:
    """The published status; one that cannot be read (a newer release wrote it) counts as none."""
    try:
        return ModelDeploymentStatus.model_validate(raw)
    except ValidationError:
        return ModelDeploymentStatus()
