"""Run an operator as its chart installs it: under the ServiceAccount and the roles of `charts/stoker`.

A test that runs the operator takes the fixture `operator_kubeconfig`; what needs more than the test's own
namespace calls `testbed.operator_access.grant` itself.
"""

from pathlib import Path

import pytest

from testbed.access import Access
from testbed.operator_access import grant


@pytest.fixture
def operator_kubeconfig(plane: Access, namespace: str) -> Path:
    """A kubeconfig with the operator's rights in the test's namespace, and in no other."""
    return grant(plane, namespace, [namespace])
