"""A control plane for the tests in this folder: one for the whole run, shared by its workers.

Tests that harm a plane (kill its API server, freeze its scheduler) start one of their own with `Plane.start`.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from testbed.access import Access
from testbed.operator_access import install_crds
from testbed.prometheus import Prometheus
from testbed.shared import shared_plane
from tests.cluster.operator_fixtures import engines, lab, load, own_node  # noqa: F401 - fixtures of this folder

NODES = 40
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below this folder as `cluster`, and let the slow ones of the run start first."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def plane(run_directory: Path) -> Iterator[Access]:
    """The run's control plane with 40 nodes of 8 GPUs and the project's CRDs."""
    with shared_plane(run_directory / "plane", NODES) as access:
        with FileLock(run_directory / "crds.lock"):
            install_crds(access)
        yield access


@pytest.fixture
def kubectl(plane: Access) -> Callable[..., str]:
    """Run kubectl on the run's plane: `kubectl("get", "pods", "-n", namespace)`."""
    return plane.kubectl


@pytest.fixture
def namespace(plane: Access) -> Iterator[str]:
    """A fresh namespace whose default ServiceAccount exists; its deletion is not waited for."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    path = f"/api/v1/namespaces/{name}"
    with plane.client() as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
        # Pods are refused until the controller manager has made it.
        deadline = time.monotonic() + 30
        while not client.get(f"{path}/serviceaccounts/default").is_success:
            assert time.monotonic() < deadline, f"namespace {name} got no default ServiceAccount"
            time.sleep(0.02)
    yield name
    with plane.client() as client:
        client.delete(path)


@pytest.fixture
def prometheus(tmp_path: Path, plane: Access, namespace: str) -> Iterator[Prometheus]:
    """A Prometheus of the test's own that scrapes the test's namespace every second."""
    with Prometheus.start(tmp_path / "prometheus", plane, namespaces=[namespace]) as server:
        yield server


@pytest.fixture
def create_pod(plane: Access, namespace: str) -> Callable[..., str]:
    """Create a GPU pod in the test's namespace: `create_pod("name", annotations={…}, gpus=1)`."""

    def create(name: str, annotations: dict[str, str] | None = None, gpus: int = 1) -> str:
        container = {
            "name": "engine",
            "image": "vllm/vllm-openai:v0.33.0",
            "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
        }
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
            "spec": {"containers": [container]},
        }
        plane.kubectl("apply", "-f", "-", input=json.dumps(manifest))
        return name

    return create
