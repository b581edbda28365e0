"""Run an operator as its chart installs it: under the ServiceAccount and the roles of `charts/stoker`.

A test that runs the operator takes the fixture `operator_kubeconfig`; what needs more than the test's own
namespace calls `grant` itself.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from testbed.access import Access
from testbed.binaries import ensure

CHART = Path(__file__).parents[2] / "charts" / "stoker"
RELEASE = "stoker"
"""Name of the release, and of its ServiceAccount; cluster-scoped objects have the namespace in theirs."""
ACCESS_TEMPLATES = ("serviceaccount.yaml", "rbac.yaml")


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """Run the testbed's helm and return what it prints.

    Raises:
        AssertionError: helm failed; the message is what it said.
    """
    where = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    command = [str(ensure("helm")), *arguments, *where]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"helm {' '.join(arguments)}: {result.stderr.strip()}"
    return result.stdout


def access_manifests(namespace: str, watch: Sequence[str]) -> str:
    """Return the chart's ServiceAccount in `namespace`, and roles in the namespaces `watch` (none: all)."""
    shown = [f"--show-only=templates/{template}" for template in ACCESS_TEMPLATES]
    watched = f"--set-json=watchNamespaces={json.dumps(list(watch))}"
    return helm("template", RELEASE, str(CHART), f"--namespace={namespace}", watched, *shown)


def grant(plane: Access, namespace: str, watch: Sequence[str] = ()) -> Path:
    """Make the operator's ServiceAccount in `namespace`; return a kubeconfig with its token, good for a day.

    Args:
        plane: the control plane.
        namespace: an existing namespace, as the release's.
        watch: the namespaces to work in, which exist; none means all, by a ClusterRole that outlives the
            namespace but is good for its ServiceAccount alone.

    Raises:
        testbed.access.PlaneError: the API server refused something.
    """
    plane.kubectl("apply", "-f", "-", input=access_manifests(namespace, watch))
    return plane.service_account_kubeconfig(namespace, RELEASE)


@pytest.fixture
def operator_kubeconfig(plane: Access, namespace: str) -> Path:
    """A kubeconfig with the operator's rights in the test's namespace, and in no other."""
    return grant(plane, namespace, [namespace])
