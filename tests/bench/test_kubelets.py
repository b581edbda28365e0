from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.controller.kubelets import Kubelets
from stoker.core.parse import pod_from
from testbed.access import Access


@pytest.fixture
def kubelets(tmp_path: Path):
    access = Access(
        directory=tmp_path,
        url="https://127.0.0.1:1",
        ca=tmp_path,
        kubeconfig=tmp_path,
        admin_token="",
        pod_cidr="127.16.0.0/16",
        kubectl_path=tmp_path,
    )
    return Kubelets(access, "a=b")


def scheduled(name):
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {
            "namespace": "team-0",
            "name": name,
            "uid": name,
            "labels": {"stoker.dev/model-deployment": "llm", "stoker.dev/serving": "true"},
        },
        "spec": {"nodeName": "gpu-0000", "containers": [{"name": "engine", "image": "vllm"}]},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp}],
        },
    }


def test_a_pod_that_was_started_serves(kubelets):
    pod = scheduled("llm-0")
    request = kubelets._running(pod)
    assert request.path == "/api/v1/namespaces/team-0/pods/llm-0/status"
    record = pod_from(pod | {"status": request.body["status"]})
    assert record is not None
    assert record.routed
    assert record.started
    assert record.condition("PodScheduled") is not None


def test_each_pod_has_an_address_of_its_own(kubelets):
    addresses = {kubelets._running(scheduled(f"llm-{n}")).body["status"]["podIP"] for n in range(300)}
    assert len(addresses) == 300
