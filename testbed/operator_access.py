"""Run an operator as its chart installs it: under the ServiceAccount and the roles of `charts/stoker`."""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.access import Access, PlaneError
from testbed.binaries import ensure

CHART = Path(__file__).parents[1] / "charts" / "stoker"
CRDS = Path(__file__).parents[1] / "crds"
ESTABLISHED_SECONDS = 60.0
RELEASE = "stoker"
"""Name of the release, and of its ServiceAccount; cluster-scoped objects have the namespace in theirs."""
ACCESS_TEMPLATES = ("serviceaccount.yaml", "rbac.yaml")


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """Run the testbed's helm and return what it prints.

    Raises:
        PlaneError: helm failed; the message is what it said.
    """
    where = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    command = [str(ensure("helm")), *arguments, *where]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PlaneError(f"helm {' '.join(arguments)}: {result.stderr.strip()}")
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
        PlaneError: the API server refused something.
    """
    plane.kubectl("apply", "-f", "-", input=access_manifests(namespace, watch))
    return plane.service_account_kubeconfig(namespace, RELEASE)


def install_crds(plane: Access, directory: Path = CRDS) -> None:
    """Apply every CRD of the folder and wait until the API serves it.

    Raises:
        PlaneError: the API server refused one.
    """
    for file in sorted(directory.glob("*.yaml")):
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file))
    deadline = time.monotonic() + ESTABLISHED_SECONDS
    while True:
        try:
            # kubectl wait gives up at once on a CRD that has no conditions yet.
            plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=5s")
        except PlaneError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
