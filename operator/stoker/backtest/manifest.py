"""A ModelDeployment from a file: the spec as the operator parses it, or what is wrong with it.

Rules of this module:

* What the API server would refuse is refused here: the schema's types and bounds, names that it does not know
  (which ``kubectl apply`` refuses), and the CEL rules that a decision rests on. The whole of the CEL rules
  needs an API server: ``kubectl apply --dry-run=server``.
* Of a status in the file (``kubectl get -o yaml``) what was measured counts: start-up times and capacity.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from stoker.api import meta, schema
from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec, ModelDeploymentStatus
from stoker.backtest.errors import BacktestError
from stoker.core.observed import ModelDeployment
from stoker.core.parse import deployment_from

UID: Final = "00000000-0000-4000-8000-000000000000"
"""For a file that was never applied: replicas and their owner have to agree on one."""

STDIN: Final = Path("-")

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def load(file: Path, namespace: str | None) -> ModelDeployment:
    """The one ModelDeployment of a file.

    Args:
        file: YAML or JSON, of one or more objects; ``-`` reads it from standard input.
        namespace: where it runs; None takes the file's own, and ``default`` where it has none.

    Raises:
        BacktestError: names the file, the field and what to do.
    """
    obj = _only(file, _objects(file))
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    where = namespace or metadata.get("namespace") or "default"
    for what, name in (("metadata.name", metadata.get("name")), ("namespace", where)):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BacktestError(f"{file}: {what} {name!r}: write lower-case letters, digits and '-'")
    metadata = {"uid": UID, "generation": 1, **metadata, "namespace": where}
    record = deployment_from({**obj, "metadata": metadata})
    errors = [*_unknown(obj.get("spec")), *record.errors, *_contradictions(record.spec)]
    if errors:
        raise BacktestError("\n".join(f"{file}: {error}" for error in errors))
    status = record.status
    measured = ModelDeploymentStatus(capacity=status.capacity, startup=status.startup)
    return replace(record, status=measured, deleting=False)


def _objects(file: Path) -> list[Any]:
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
        return list(yaml.safe_load_all(text))
    except OSError as error:
        raise BacktestError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BacktestError(f"{file} is no text: {error}") from error
    except yaml.YAMLError as error:
        raise BacktestError(f"{file} is no YAML: {' '.join(str(error).split())}") from error


def _only(file: Path, objects: list[Any]) -> dict[str, Any]:
    found = [obj for obj in objects if isinstance(obj, dict) and obj.get("kind") == meta.KIND]
    found = [obj for obj in found if str(obj.get("apiVersion", "")).startswith(f"{meta.GROUP}/")]
    if len(found) != 1:
        what = f"{len(found)} objects" if found else "no object"
        raise BacktestError(f"{file} has {what} of {meta.API_VERSION} {meta.KIND}: give a file with one")
    return found[0]


def _unknown(spec: Any) -> Iterator[FieldError]:
    """Fields that the schema does not have: the operator would never see them."""
    yield from _strangers("spec", spec, schema.structural(ModelDeploymentSpec))


def _strangers(path: str, value: Any, known: Mapping[str, Any]) -> Iterator[FieldError]:
    if isinstance(value, list):
        for place, entry in enumerate(value):
            yield from _strangers(f"{path}[{place}]", entry, known.get("items", {}))
    properties = known.get("properties")
    if not isinstance(value, dict) or properties is None:
        return
    for name, inner in value.items():
        if name in properties:
            yield from _strangers(f"{path}.{name}", inner, properties[name])
        elif not known.get("x-kubernetes-preserve-unknown-fields"):
            yield FieldError(f"{path}.{name}", "is no field: correct its name, or remove it")


def _contradictions(spec: ModelDeploymentSpec | None) -> Iterator[FieldError]:
    """What the API server's CEL rules say of the fields that decide."""
    if spec is None:
        return
    if spec.scaling is None:
        yield FieldError("spec.scaling", "is not set: a fixed number of replicas decides nothing")
        return
    if spec.replicas is not None:
        yield FieldError("spec.replicas", spec.rules[0].message)
    if spec.scaling.min_replicas > spec.scaling.max_replicas:
        yield FieldError("spec.scaling.minReplicas", spec.scaling.rules[0].message)
