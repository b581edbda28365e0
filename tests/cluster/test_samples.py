"""`manifests/samples/`: the API server takes each of them as it is, and the operator can act on it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker.api import meta
from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core import resources
from stoker.core.engines import engine_for
from stoker.core.observed import ModelDeployment
from stoker.core.readings import Key

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))


def model_deployments(sample: Path) -> list[dict[str, Any]]:
    return [obj for obj in yaml.safe_load_all(sample.read_text()) if obj["kind"] == meta.KIND]


def read(kubectl, namespace: str, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", "modeldeployment", name, "-n", namespace, "-o", "json"))


def test_there_are_samples():
    assert len(SAMPLES) >= 7


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_applied_twice_and_changes_nothing_the_second_time(kubectl, namespace, sample):
    kubectl("apply", "-n", namespace, "-f", str(sample))
    (wanted,) = model_deployments(sample)
    first = read(kubectl, namespace, wanted["metadata"]["name"])
    kubectl("apply", "-n", namespace, "-f", str(sample))
    second = read(kubectl, namespace, wanted["metadata"]["name"])
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["generation"] == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_stoker_accepts_a_sample_and_its_pod_can_be_made(kubectl, namespace, sample):
    kubectl("apply", "-n", namespace, "-f", str(sample))
    (wanted,) = model_deployments(sample)
    stored = read(kubectl, namespace, wanted["metadata"]["name"])
    spec = ModelDeploymentSpec.model_validate(stored["spec"])
    assert spec == ModelDeploymentSpec.model_validate(wanted["spec"])
    assert engine_for(spec).refused() == ()
    owner = ModelDeployment(
        key=Key(namespace, stored["metadata"]["name"]),
        uid=stored["metadata"]["uid"],
        generation=1,
        created_at=0.0,
        deleting=False,
        spec=spec,
    )
    for manifest in (
        resources.pod(owner, resources.revision(owner.key.name, spec), 0, 0),
        resources.service(owner),
    ):
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(manifest))
