"""Fixtures of the tests that watch the operator at work: `lab`, `engines`, `load`, `own_node`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.access import Access
from testbed.engine_pods import EngineOptions
from testbed.engines import EngineFleet
from testbed.nodes import gpu_node, remove_nodes, wait_ready
from testbed.operator_access import grant
from tests.cluster.operator_lab import Json, Lab
from tests.cluster.operator_load import HeldRequests

OPTIONS = EngineOptions(model="qwen3-32b-8xh100", tick=0.1)
"""The engine with the largest cache, so that held requests fit; looked at rarely, to save the cores."""

LAB_RESOURCE = "example.com/accelerator"
"""What nodes of a test's own have."""


@pytest.fixture
def lab(plane: Access, namespace: str, tmp_path: Path) -> Iterator[Lab]:
    """The test's namespace with everything to watch an operator in it; start it with `lab.start()`.

    The operator has the rights that its chart gives it, and no others.
    """
    place = Lab(plane, namespace, tmp_path, grant(plane, namespace, [namespace]))
    yield place
    place.close()


@pytest.fixture
def engines(plane: Access, namespace: str, tmp_path: Path) -> Iterator[EngineFleet]:
    """A simulated engine behind every replica of the namespace."""
    with EngineFleet(plane.kubeconfig, OPTIONS, namespace=namespace, log=tmp_path / "engines.log") as fleet:
        yield fleet


@pytest.fixture
def load(engines: EngineFleet) -> Iterator[HeldRequests]:
    """Requests for those engines; at the end they are let go."""
    with HeldRequests() as requests:
        yield requests


@pytest.fixture
def own_node(lab: Lab) -> Iterator[Callable[[], Json]]:
    """Add a node for this test's pods alone; the answer is the accelerator that fits twice onto it.

    Its accelerators are a resource that no other test asks for. A taint would show in other tests' messages.
    """
    names: list[str] = []

    def add() -> Json:
        name = f"{lab.namespace}-{len(names)}"
        node = gpu_node(name, gpus=0, labels={"lab": lab.namespace})
        node["status"]["capacity"][LAB_RESOURCE] = node["status"]["allocatable"][LAB_RESOURCE] = "8"
        lab.client.post("/api/v1/nodes", json=node).raise_for_status()
        names.append(name)
        wait_ready(lab.plane, [name])
        return {"resource": LAB_RESOURCE, "count": 4, "nodeSelector": {"lab": lab.namespace}}

    yield add
    for pod in lab.pods(live=False):
        lab.delete(f"pods/{pod['metadata']['name']}", force=True)
    remove_nodes(lab.plane, names)
