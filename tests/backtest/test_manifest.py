"""From a file to what the operator acts on, or to what the API server would refuse."""

import json
from pathlib import Path

import pytest
import yaml

from stoker.backtest.errors import BacktestError
from stoker.backtest.manifest import load

SPEC = {"model": {"uri": "hf://org/name"}, "scaling": {"maxReplicas": 4}}


def written(tmp_path, *, metadata=None, status=None, **spec):
    obj = {
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "llama"} if metadata is None else metadata,
        "spec": {**SPEC, **spec},
    }
    file = tmp_path / "llama.yaml"
    file.write_text(yaml.safe_dump(obj | ({"status": status} if status else {})))
    return file


def refusal(file, namespace=None):
    with pytest.raises(BacktestError) as refused:
        load(file, namespace)
    return str(refused.value)


def test_six_lines_are_enough(tmp_path):
    record = load(written(tmp_path), None)
    assert record.key == ("default", "llama")
    assert record.spec is not None
    assert record.spec.scaling.max_replicas == 4
    assert record.metrics is not None


@pytest.mark.parametrize(
    ("given", "own", "where"),
    [(None, "models", "models"), ("other", "models", "other"), ("other", None, "other")],
)
def test_the_namespace_of_the_option_wins(tmp_path, given, own, where):
    metadata = {"name": "llama"} | ({"namespace": own} if own else {})
    assert load(written(tmp_path, metadata=metadata), given).key.namespace == where


def test_of_a_status_only_measurements_count(tmp_path):
    startup = [{"accelerator": "gpu", "p50Seconds": 100, "p90Seconds": 130, "samples": 9}]
    record = load(written(tmp_path, status={"desiredReplicas": 3, "startup": startup}), None)
    assert record.status.desired_replicas is None
    assert record.status.startup[0].p90_seconds == 130


def test_one_modeldeployment_among_other_objects(tmp_path):
    file = written(tmp_path)
    file.write_text(f"{file.read_text()}---\nkind: ConfigMap\napiVersion: v1\n---\n")
    assert load(file, None).key.name == "llama"
    file.write_text(json.dumps(yaml.safe_load(written(tmp_path).read_text())))
    assert load(file, None).key.name == "llama"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no object of stoker.dev/v1alpha1 ModelDeployment"),
        ("kind: ModelDeployment\n", "has no object of"),
        ("a: [", "is no YAML: while parsing"),
        ("just words", "has no object of"),
    ],
)
def test_a_file_with_something_else(tmp_path, text, why):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert why in refusal(file)


def test_from_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", written(tmp_path).open())
    assert load(Path("-"), None).key.name == "llama"


def test_two_are_too_many(tmp_path):
    file = written(tmp_path)
    file.write_text(f"{file.read_text()}---\n{file.read_text()}")
    assert "has 2 objects of" in refusal(file)


def test_a_file_that_cannot_be_read(tmp_path):
    assert "no.yaml cannot be read: No such file" in refusal(tmp_path / "no.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is no text" in refusal(tmp_path / "binary")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"scaling": {}}, "spec.scaling.maxReplicas: Field required"),
        ({"scaling": {"maxReplicas": "many"}}, "spec.scaling.maxReplicas"),
        ({"scaling": None}, "spec.scaling: is not set"),
        ({"scaling": {"maxReplicas": 4, "minReplicas": 5}}, "minReplicas is greater than maxReplicas"),
        ({"replicas": 2}, "replicas and scaling exclude each other"),
        ({"scaling": {"maxReplica": 4, "maxReplicas": 4}}, "spec.scaling.maxReplica: is no field"),
        ({"accelerators": [{"gpus": 2}]}, "spec.accelerators[0].gpus: is no field"),
        ({"engine": {"args": ["--port=1"]}}, "spec.engine.args[0]"),
        ({"template": {"spec": {"hostNetwork": True}}}, "spec.template.spec.hostNetwork"),
    ],
)
def test_what_the_api_server_would_refuse(tmp_path, spec, why):
    message = refusal(written(tmp_path, **spec))
    assert message.startswith(str(tmp_path / "llama.yaml"))
    assert why in message


def test_a_pod_template_may_have_any_field(tmp_path):
    load(written(tmp_path, template={"spec": {"priorityClassName": "high"}}), None)


@pytest.mark.parametrize("metadata", [{}, {"name": 7}, {"name": 'a"}'}, {"name": "a", "namespace": "A b"}])
def test_names_that_no_object_can_have(tmp_path, metadata):
    assert "write lower-case letters" in refusal(written(tmp_path, metadata=metadata))
