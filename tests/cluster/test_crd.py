"""The CRD on a real API server: good objects are taken as they are, bad ones refused with advice."""

import json
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest
import yaml

from stoker.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus
from testbed.access import Access, PlaneError
from tests.cluster.crd_cases import SAMPLES, Case, Json, cases

SIX_LINES = """\
apiVersion: stoker.dev/v1alpha1
kind: ModelDeployment
metadata: {name: llama-3-8b}
spec:
  model: {uri: hf://meta-llama/Llama-3.1-8B-Instruct}
  scaling: {maxReplicas: 8}
"""
FIXED = """\
apiVersion: stoker.dev/v1alpha1
kind: ModelDeployment
metadata: {name: fixed}
spec:
  model: {uri: hf://meta-llama/Llama-3.1-8B-Instruct}
  replicas: 2
"""
CASES = cases()


@pytest.fixture(scope="module")
def api(plane: Access) -> Iterator[httpx.Client]:
    with plane.client() as client:
        client.base_url = f"{plane.url}/apis/stoker.dev/v1alpha1/namespaces/default/"
        yield client


@pytest.fixture(scope="module")
def stored(api: httpx.Client) -> Iterator[Json]:
    """A good object that is there, for what only an existing object can show."""
    sample = SAMPLES["vllm"] | {"metadata": {"name": f"stored-{uuid.uuid4().hex[:8]}"}}
    yield api.post("modeldeployments", json=sample).raise_for_status().json()
    api.delete(f"modeldeployments/{sample['metadata']['name']}")


def write(kubectl: Callable[..., str], namespace: str, text: str, *flags: str) -> str:
    return kubectl("apply", "-n", namespace, "-f", "-", *flags, input=text)


def read(kubectl: Callable[..., str], namespace: str, name: str, *flags: str) -> Json:
    return json.loads(kubectl("get", "modeldeployment", name, "-n", namespace, "-o", "json", *flags))


class TestGoodObjects:
    @pytest.mark.parametrize("name", sorted(SAMPLES))
    def test_a_sample_is_taken_and_means_the_same_to_server_and_operator(self, api, name):
        answer = api.post("modeldeployments?dryRun=All", json=SAMPLES[name])
        assert answer.is_success, answer.text
        taken, sent = answer.json()["spec"], SAMPLES[name]["spec"]
        assert ModelDeploymentSpec.model_validate(taken) == ModelDeploymentSpec.model_validate(sent)

    @pytest.mark.parametrize("text", [SIX_LINES, FIXED])
    def test_the_defaults_of_the_server_are_those_of_the_operator(self, api, text):
        sent = yaml.safe_load(text)
        taken = api.post("modeldeployments?dryRun=All", json=sent).raise_for_status().json()["spec"]
        assert ModelDeploymentSpec.model_validate(taken) == ModelDeploymentSpec.model_validate(sent["spec"])
        assert taken["drain"] == {"timeout": "10m"}

    def test_six_lines_are_enough(self, kubectl, namespace):
        assert SIX_LINES.count("\n") == 6
        write(kubectl, namespace, SIX_LINES)
        spec = read(kubectl, namespace, "llama-3-8b")["spec"]
        assert spec["scaling"]["windows"] == {"up": "0s", "down": "3m", "toZero": "1h"}
        assert spec["scaling"]["targets"] == {"utilization": 0.8, "timePerOutputToken": "50ms"}
        assert spec["accelerators"] == [{"name": "gpu", "resource": "nvidia.com/gpu", "count": 1}]
        assert "replicas" not in spec

    @pytest.mark.parametrize("flags", [[], ["--server-side"]])
    def test_applying_twice_changes_nothing(self, kubectl, namespace, flags):
        write(kubectl, namespace, SIX_LINES, *flags)
        first = read(kubectl, namespace, "llama-3-8b")
        said = write(kubectl, namespace, SIX_LINES, *flags)
        assert "unchanged" in said or flags
        second = read(kubectl, namespace, "llama-3-8b")
        assert second["metadata"]["generation"] == 1
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    def test_other_fields_of_a_pod_pass_through_with_their_nulls(self, api):
        pod_spec = {"schedulerName": None, "containers": [{"name": "engine", "stdin": True}]}
        sample = yaml.safe_load(SIX_LINES)
        sample["spec"]["template"] = {"spec": pod_spec}
        taken = api.post("modeldeployments?dryRun=All", json=sample).raise_for_status().json()
        assert taken["spec"]["template"]["spec"] == pod_spec

    def test_two_managers_share_lists_that_are_merged_by_name(self, kubectl, namespace):
        def env(name: str) -> str:
            more = {"engine": {"env": [{"name": name, "value": "1"}]}}
            mine = yaml.safe_load(SIX_LINES)
            mine["spec"] |= more
            return json.dumps(mine)

        write(kubectl, namespace, env("A"), "--server-side", "--field-manager=a")
        write(kubectl, namespace, env("B"), "--server-side", "--field-manager=b")
        assert [e["name"] for e in read(kubectl, namespace, "llama-3-8b")["spec"]["engine"]["env"]] == [
            "A",
            "B",
        ]


class TestBadObjects:
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_is_refused_with_the_field_and_what_to_write(self, api, stored, case: Case):
        manifest = case.manifest
        if case.path[0] == "status":
            manifest["metadata"] = stored["metadata"]
            name = stored["metadata"]["name"]
            answer = api.put(f"modeldeployments/{name}/status?dryRun=All", json=manifest)
        else:
            answer = api.post("modeldeployments?dryRun=All", json=manifest)
        assert answer.status_code == 422, answer.text
        causes = [(cause.get("field"), cause["message"]) for cause in answer.json()["details"]["causes"]]
        assert any(field == case.field and case.text in message for field, message in causes), causes

    def test_kubectl_shows_field_and_advice(self, kubectl, namespace):
        text = SIX_LINES.replace("maxReplicas: 8", "minReplicas: 3, maxReplicas: 2")
        with pytest.raises(PlaneError) as error:
            write(kubectl, namespace, text)
        assert "spec.scaling.minReplicas" in str(error.value)
        assert "lower minReplicas or raise maxReplicas" in str(error.value)

    def test_a_field_that_does_not_exist_is_refused_by_name(self, kubectl, namespace):
        with pytest.raises(PlaneError, match=r'unknown field "spec\.scaling\.maxReplica"'):
            write(kubectl, namespace, SIX_LINES.replace("maxReplicas", "maxReplica"))


class TestScale:
    def test_kubectl_scale_sets_the_number(self, kubectl, namespace):
        write(kubectl, namespace, FIXED)
        kubectl("scale", "mdep", "fixed", "--replicas=5", "-n", namespace)
        assert read(kubectl, namespace, "fixed")["spec"]["replicas"] == 5

    def test_scale_shows_replicas_and_selector_from_status(self, kubectl, namespace, plane):
        write(kubectl, namespace, FIXED)
        status = ModelDeploymentStatus(replicas=2, selector="stoker.dev/model-deployment=fixed")
        path = f"/apis/stoker.dev/v1alpha1/namespaces/{namespace}/modeldeployments/fixed"
        patch_status(plane, path, status)
        with plane.client() as client:
            scale = client.get(f"{path}/scale").raise_for_status().json()
        assert scale["spec"] == {"replicas": 2}
        assert scale["status"] == {"replicas": 2, "selector": "stoker.dev/model-deployment=fixed"}

    def test_a_fleet_that_follows_the_traffic_is_not_scaled_by_hand(self, kubectl, namespace):
        write(kubectl, namespace, SIX_LINES)
        with pytest.raises(PlaneError, match="replicas and scaling exclude each other"):
            kubectl("scale", "mdep", "llama-3-8b", "--replicas=5", "-n", namespace)


def patch_status(plane: Access, path: str, status: ModelDeploymentStatus) -> Json:
    """Write a status as the operator does, and return the object."""
    body = {"status": status.model_dump(mode="json", exclude_none=True)}
    headers = {"Content-Type": "application/merge-patch+json"}
    with plane.client() as client:
        answer = client.patch(f"{path}/status", content=json.dumps(body), headers=headers)
    assert answer.is_success, answer.text
    return answer.json()


class TestStatus:
    @pytest.fixture
    def path(self, kubectl: Callable[..., str], namespace: str) -> str:
        write(kubectl, namespace, SIX_LINES)
        return f"/apis/stoker.dev/v1alpha1/namespaces/{namespace}/modeldeployments/llama-3-8b"

    @pytest.fixture
    def status(self) -> ModelDeploymentStatus:
        return ModelDeploymentStatus.model_validate(SAMPLES["vllm"]["status"])

    def test_what_is_written_equals_what_is_read_back(self, plane, path, status):
        assert ModelDeploymentStatus.model_validate(patch_status(plane, path, status)["status"]) == status

    def test_writing_it_is_no_new_generation(self, plane, path, status):
        assert patch_status(plane, path, status)["metadata"]["generation"] == 1

    def test_writing_it_again_writes_nothing(self, plane, path, status):
        first = patch_status(plane, path, status)["metadata"]["resourceVersion"]
        assert patch_status(plane, path, status)["metadata"]["resourceVersion"] == first

    def test_an_apply_of_the_object_leaves_it_alone(self, kubectl, namespace, plane, path, status):
        patch_status(plane, path, status)
        write(kubectl, namespace, SIX_LINES.replace("spec:", "status: {ready: 9/9}\nspec:"))
        assert read(kubectl, namespace, "llama-3-8b")["status"]["ready"] == "1/2"

    def test_the_longest_message_fits_in_any_language(self, plane, path, status):
        condition = status.conditions[0].model_dump() | {"message": "语" * 5000}
        longest = ModelDeploymentStatus.model_validate({"conditions": [condition]})
        assert len(longest.conditions[0].message) == 1024
        patch_status(plane, path, longest)

    def test_kubectl_waits_for_ready(self, kubectl, namespace, plane, path, status):
        patch_status(plane, path, status)
        said = kubectl("wait", "--for=condition=Ready", "mdep/llama-3-8b", "-n", namespace, "--timeout=10s")
        assert "condition met" in said

    def test_kubectl_get_is_a_line_per_fleet(self, kubectl, namespace, plane, path, status):
        patch_status(plane, path, status)
        head, line = kubectl("get", "stoker", "-n", namespace).splitlines()
        assert head.split() == ["NAME", "MODEL", "ENGINE", "READY", "DESIRED", "TOKENS/S", "REASON", "AGE"]
        uri = "hf://meta-llama/Llama-3.1-8B-Instruct"
        assert line.split()[:-1] == ["llama-3-8b", uri, "vLLM", "1/2", "2", "900", "Serving"]
        head, line = kubectl("get", "mdep", "-n", namespace, "-o", "wide").splitlines()
        assert head.split()[-4:] == ["ACCELERATOR", "MIN", "MAX", "CAPACITY"]
        assert line.split()[-4:] == ["gpu", "1", "8", "2000"]


class TestExplain:
    def test_scaling_reads_well(self, kubectl, plane):
        text = " ".join(kubectl("explain", "modeldeployment.spec.scaling").split())
        assert "maxReplicas <integer> -required- Never more replicas than this. From 1 to 10000." in text
        assert "enum: Active, Shadow" in text
        assert "Default: 1. From 0 to 10000." in text

    def test_the_default_and_range_of_a_duration_are_shown(self, kubectl, plane):
        text = " ".join(kubectl("explain", "mdep.spec.scaling.windows.up").split())
        assert "Default: 0s. From 0s to 1h." in text
