"""What a simulated GPU node looks like to a scheduler and to an operator."""

import pytest

from testbed import nodes
from testbed.nodes import A100, H100, L4, Gpu, gpu_node


def test_a_node_is_handed_to_kwok_with_its_gpus():
    node = gpu_node("gpu-0001")
    assert node["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert node["status"]["capacity"] == node["status"]["allocatable"]
    assert {"type": "Hostname", "address": "gpu-0001"} in node["status"]["addresses"]


def test_labels_are_those_of_gpu_feature_discovery():
    labels = gpu_node("n", A100, gpus=4)["metadata"]["labels"]
    discovered = {key.removeprefix("nvidia.com/"): value for key, value in labels.items() if "nvidia" in key}
    assert discovered == {
        "gpu.present": "true",
        "gpu.product": "NVIDIA-A100-SXM4-80GB",
        "gpu.count": "4",
        "gpu.memory": "81920",
        "gpu.family": "ampere",
        "gpu.compute.major": "8",
        "gpu.compute.minor": "0",
        "gpu.machine": "simulated",
        "gpu.replicas": "1",
        "gpu.sharing-strategy": "none",
        "mig.capable": "true",
        "mig.strategy": "single",
        "cuda.driver-version.major": "13",
    }


@pytest.mark.parametrize(("gpu", "capable"), [(H100, "true"), (A100, "true"), (L4, "false")])
def test_only_data_centre_chips_can_be_partitioned(gpu: Gpu, capable: str):
    assert gpu_node("n", gpu)["metadata"]["labels"]["nvidia.com/mig.capable"] == capable


def test_a_node_without_gpus_says_nothing_of_nvidia():
    node = gpu_node("cpu", gpus=0)
    assert "nvidia.com/gpu" not in node["status"]["capacity"]
    assert not [key for key in node["metadata"]["labels"] if key.startswith("nvidia.com/")]


def test_labels_of_ones_own_come_on_top():
    labels = gpu_node("n", labels={"topology.kubernetes.io/zone": "a", "nvidia.com/gpu.count": "9"})
    assert labels["metadata"]["labels"]["topology.kubernetes.io/zone"] == "a"
    assert labels["metadata"]["labels"]["nvidia.com/gpu.count"] == "9"


@pytest.mark.parametrize("gpu", [value for value in vars(nodes).values() if isinstance(value, Gpu)], ids=str)
def test_products_are_valid_label_values(gpu: Gpu):
    assert " " not in gpu.product
    assert len(gpu.product) <= 63


def test_a_node_reports_itself_healthy():
    conditions = {item["type"]: item["status"] for item in gpu_node("n")["status"]["conditions"]}
    assert conditions.pop("Ready") == "True"
    assert set(conditions.values()) == {"False"}
