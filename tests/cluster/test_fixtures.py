"""The fixtures themselves: what every other test in this folder takes for granted."""

import json
from collections.abc import Callable

from testbed.access import Access


def test_the_shared_plane_has_gpu_nodes_and_the_projects_crds(plane: Access, repository):
    nodes = json.loads(plane.kubectl("get", "nodes", "-o", "json"))["items"]
    gpus = [node["status"]["allocatable"].get("nvidia.com/gpu") for node in nodes]
    assert gpus.count("8") == 40
    assert set(gpus) <= {"8", None}, "other tests add nodes, with resources of their own"
    if any((repository / "crds").glob("*.yaml")):
        assert "modeldeployments" in plane.kubectl("api-resources", "--api-group=stoker.dev")


def test_a_pod_runs_in_a_fresh_namespace(
    kubectl: Callable[..., str], namespace: str, create_pod: Callable[..., str]
):
    create_pod("engine", {"testbed.stoker.dev/load-seconds": "0"})
    kubectl("wait", "--for=condition=Ready", "pod/engine", "-n", namespace, "--timeout=30s")
