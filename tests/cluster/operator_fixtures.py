"""Fixtures of the tests that watch the operator at work: `lab`, `engines`, `load`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.access import Access
from testbed.engine_pods import EngineOptions
from testbed.engines import EngineFleet
from tests.cluster.operator_access import grant
from tests.cluster.operator_lab import Lab
from tests.cluster.operator_load import HeldRequests

OPTIONS = EngineOptions(model="qwen3-32b-8xh100", tick=0.1)
"""The engine with the largest cache, so that held requests fit; looked at rarely, to save the cores for others."""


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
