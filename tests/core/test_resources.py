"""Manifests: what a pod is made of, when its revision changes, what a template may and may not change."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from stoker.api import meta
from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core import resources
from stoker.core.observed import ModelDeployment
from stoker.core.parse import owned_from, pod_from
from stoker.core.readings import Key

BASE: dict[str, Any] = {"model": {"uri": "hf://org/name"}}


def spec(**fields: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.model_validate(BASE | fields)


def deployment(**fields: Any) -> ModelDeployment:
    return ModelDeployment(
        key=Key("models", "demo"),
        uid="uid-1",
        generation=1,
        created_at=0.0,
        deleting=False,
        spec=spec(**fields),
    )


def pod(**fields: Any) -> dict[str, Any]:
    return resources.pod(deployment(**fields), "0123abcd", 3, 2)


def revision(**fields: Any) -> str:
    return resources.revision("demo", spec(**fields))


def engine(manifest: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in manifest["spec"]["containers"] if c["name"] == "engine")


def volume(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    name = next(m["name"] for m in engine(manifest)["volumeMounts"] if m["mountPath"] == path)
    return next(v for v in manifest["spec"]["volumes"] if v["name"] == name)


class TestRevision:
    @pytest.mark.parametrize(
        "fields",
        [
            {"replicas": 3},
            {"scaling": {"maxReplicas": 4}},
            {"drain": {"timeout": "1h"}},
            {"accelerators": [{"tokensPerSecond": 100}]},
            {"accelerators": [{"name": "gpu"}, {"name": "second", "count": 8}]},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_what_does_not_change_the_pod_does_not_change_it(self, fields: dict[str, Any]) -> None:
        assert revision(**fields) == revision()

    @pytest.mark.parametrize(
        "fields",
        [
            {"model": {"uri": "hf://org/other"}},
            {"model": {"uri": "hf://org/name", "name": "other"}},
            {"model": {"uri": "hf://org/name", "secretName": "hub"}},
            {"engine": {"image": "registry.example.com/vllm:1"}},
            {"engine": {"args": ["--enforce-eager"]}},
            {"engine": {"env": [{"name": "A", "value": "1"}]}},
            {"engine": {"port": 9000}},
            {"accelerators": [{"count": 2}]},
            {"accelerators": [{"nodeSelector": {"a": "b"}}]},
            {"accelerators": [{"name": "h100"}]},
            {"storage": {"sharedMemory": "1Gi"}},
            {"storage": {"cache": {"claimName": "weights"}}},
            {"template": {"metadata": {"labels": {"team": "search"}}}},
            {"template": {"spec": {"priorityClassName": "high"}}},
        ],
        ids=str,
    )
    def test_what_changes_the_pod_changes_it(self, fields: dict[str, Any]) -> None:
        assert revision(**fields) != revision()

    def test_the_order_of_labels_is_no_change(self) -> None:
        one = revision(accelerators=[{"nodeSelector": {"a": "1", "b": "2"}}])
        assert one == revision(accelerators=[{"nodeSelector": {"b": "2", "a": "1"}}])

    def test_it_fits_a_label_and_a_pod_name(self) -> None:
        assert re.fullmatch(r"[0-9a-f]{8}", revision())
        name = "m" * meta.MAX_NAME_LENGTH
        assert len(meta.pod_name(name, revision(), 10_000)) <= 63

    def test_it_is_that_of_the_object_not_of_its_replicas(self) -> None:
        first, second = (resources.pod(deployment(), revision(), o, a) for o, a in ((0, 0), (7, 3)))
        assert first["spec"] == second["spec"]


class TestPod:
    def test_it_reads_back_as_the_replica_it_was_made_for(self) -> None:
        record = pod_from(pod(accelerators=[{"name": "h100"}]))
        assert record is not None
        assert record.key == Key("models", "demo-0123abcd-3")
        assert (record.owner, record.owner_uid) == ("demo", "uid-1")
        assert (record.revision, record.ordinal, record.attempt) == ("0123abcd", 3, 2)
        assert (record.accelerator, record.serving, record.draining) == ("h100", True, False)

    def test_the_api_server_gets_plain_json(self) -> None:
        assert json.loads(json.dumps(pod())) == pod()

    def test_prometheus_finds_it(self) -> None:
        annotations = pod(engine={"port": 9000})["metadata"]["annotations"]
        assert {k: v for k, v in annotations.items() if k.startswith("prometheus.io/")} == {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": "9000",
            "prometheus.io/path": "/metrics",
        }

    def test_gpus_are_requested_as_they_are_limited(self) -> None:
        made = engine(pod(accelerators=[{"resource": "amd.com/gpu", "count": 4}]))["resources"]
        assert made == {"requests": {"amd.com/gpu": "4"}, "limits": {"amd.com/gpu": "4"}}

    @pytest.mark.parametrize(
        ("resource", "taint"),
        [
            ("nvidia.com/gpu", "nvidia.com/gpu"),
            ("nvidia.com/mig-1g.10gb", "nvidia.com/gpu"),
            ("nvidia.com/gpu.shared", "nvidia.com/gpu"),
            ("google.com/tpu", "google.com/tpu"),
        ],
    )
    def test_the_taint_of_gpu_nodes_is_tolerated(self, resource: str, taint: str) -> None:
        made = pod(accelerators=[{"resource": resource}])["spec"]["tolerations"]
        assert made == [{"key": taint, "operator": "Exists", "effect": "NoSchedule"}]

    def test_tolerations_of_the_user_are_added_and_never_doubled(self) -> None:
        own = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        more = {
            "key": "spot",
            "operator": "Equal",
            "value": "true",
            "effect": "NoExecute",
            "tolerationSeconds": 60,
        }
        assert pod(accelerators=[{"tolerations": [more, own]}])["spec"]["tolerations"] == [more, own]
        assert pod(accelerators=[{"tolerations": [more]}])["spec"]["tolerations"] == [own, more]

    def test_no_service_injects_variables_that_vllm_refuses(self) -> None:
        assert pod()["spec"]["enableServiceLinks"] is False

    def test_it_gets_no_credentials_of_the_cluster(self) -> None:
        assert pod()["spec"]["automountServiceAccountToken"] is False

    def test_it_is_as_restricted_as_an_image_that_runs_as_root_can_be(self) -> None:
        made = pod()
        assert made["spec"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
        assert engine(made)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_a_deadline_is_longer_than_everything_that_happens_in_it(self) -> None:
        assert pod()["spec"]["terminationGracePeriodSeconds"] == 640

    def test_shared_memory_is_memory_of_the_given_size(self) -> None:
        made = volume(pod(storage={"sharedMemory": "2Gi"}), "/dev/shm")
        assert made["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}

    @pytest.mark.parametrize(
        ("cache", "source"),
        [
            ({}, {"emptyDir": {}}),
            ({"sizeLimit": "100Gi"}, {"emptyDir": {"sizeLimit": "100Gi"}}),
            ({"claimName": "weights"}, {"persistentVolumeClaim": {"claimName": "weights"}}),
        ],
        ids=str,
    )
    def test_the_cache_is_a_directory_or_a_claim(self, cache: dict[str, Any], source: dict[str, Any]) -> None:
        assert volume(pod(storage={"cache": cache}), "/cache") == {"name": "cache", **source}

    def test_temporary_files_have_a_place(self) -> None:
        assert volume(pod(), "/tmp")["emptyDir"] == {}

    @pytest.mark.parametrize("uri", ["pvc://weights/llama", "oci://registry.example.com/llama:1"])
    def test_weights_are_mounted_read_only(self, uri: str) -> None:
        mounts = engine(pod(model={"uri": uri}))["volumeMounts"]
        assert [m.get("readOnly") for m in mounts if m["mountPath"].startswith("/models/")] == [True]

    def test_every_mount_has_its_volume(self) -> None:
        made = pod(model={"uri": "pvc://weights/llama"})
        assert {m["name"] for m in engine(made)["volumeMounts"]} == {
            v["name"] for v in made["spec"]["volumes"]
        }

    def test_without_a_spec_there_is_no_pod(self) -> None:
        with pytest.raises(ValueError, match="models/demo: its spec could not be parsed"):
            resources.pod(replace(deployment(), spec=None), "0123abcd", 0, 0)


class TestTemplate:
    def test_it_reaches_the_pod(self) -> None:
        made = pod(
            template={
                "metadata": {"labels": {"team": "search"}, "annotations": {"note": "x"}},
                "spec": {
                    "priorityClassName": "high",
                    "containers": [{"name": "engine", "imagePullPolicy": "Always"}, {"name": "sidecar"}],
                },
            }
        )
        assert made["metadata"]["labels"]["team"] == "search"
        assert made["metadata"]["annotations"]["note"] == "x"
        assert made["spec"]["priorityClassName"] == "high"
        assert engine(made)["imagePullPolicy"] == "Always"
        assert engine(made)["command"] == ["vllm", "serve"]
        assert [c["name"] for c in made["spec"]["containers"]] == ["engine", "sidecar"]

    def test_scraping_can_be_switched_off(self) -> None:
        made = pod(template={"metadata": {"annotations": {"prometheus.io/scrape": "false"}}})
        assert made["metadata"]["annotations"]["prometheus.io/scrape"] == "false"

    def test_what_stoker_recognises_its_pods_by_stays(self) -> None:
        # The schema refuses this; a stored object of another release might still say it.
        hostile = dict.fromkeys(pod()["metadata"]["labels"], "hijacked")
        given = spec().template.metadata.model_copy(
            update={"labels": hostile, "annotations": {meta.ANNOTATION_DRAIN_STARTED: "1970-01-01T00:00:00Z"}}
        )
        base = spec()
        hijacked = base.model_copy(update={"template": base.template.model_copy(update={"metadata": given})})
        made = resources.pod(replace(deployment(), spec=hijacked), "0123abcd", 3, 2)
        assert made["metadata"] == pod()["metadata"]


class TestService:
    def test_it_routes_to_replicas_in_service_only(self) -> None:
        made = resources.service(deployment())
        selector = made["spec"]["selector"]
        assert selector == {meta.LABEL_MODEL_DEPLOYMENT: "demo", meta.LABEL_SERVING: "true"}
        assert selector.items() <= pod()["metadata"]["labels"].items()

    def test_its_port_leads_to_the_engines_by_name(self) -> None:
        (port,) = resources.service(deployment(engine={"port": 9000}))["spec"]["ports"]
        assert port["targetPort"] in {p["name"] for p in engine(pod())["ports"]}

    def test_it_reads_back_as_not_drifted(self) -> None:
        made = resources.service(deployment())
        found = owned_from(made)
        assert found is not None
        owner, record = found
        assert (owner, record.key) == ("demo", Key("models", "demo"))
        assert record.applied_hash == resources.applied_hash(made)

    def test_it_goes_when_its_owner_goes(self) -> None:
        (owner,) = resources.service(deployment())["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("uid-1", True)

    def test_without_a_spec_there_is_no_service(self) -> None:
        with pytest.raises(ValueError, match="could not be parsed"):
            resources.service(replace(deployment(), spec=None))


class TestAppliedHash:
    def test_it_does_not_count_itself(self) -> None:
        made = resources.service(deployment())
        bare = made | {"metadata": {k: v for k, v in made["metadata"].items() if k != "annotations"}}
        assert resources.applied_hash(bare) == resources.applied_hash(made)

    def test_any_other_annotation_counts(self) -> None:
        made = resources.service(deployment())
        noted = made | {"metadata": made["metadata"] | {"annotations": {"a": "b"}}}
        assert resources.applied_hash(noted) != resources.applied_hash(made)

    def test_any_change_counts(self) -> None:
        made = resources.service(deployment())
        assert resources.applied_hash(made | {"spec": {}}) != resources.applied_hash(made)
