"""Installing Stoker for real: with Helm, and with plain kubectl.

Tests on the run's shared plane leave its CRD alone (`crds.install: false`) and use a release of their own;
those that are about the CRD have a plane of their own.
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from testbed.access import Access, PlaneError
from testbed.nodes import create_nodes
from testbed.operator_access import CHART, helm
from testbed.plane import Plane
from tests.cluster.crds import wait_until_established

Json = dict[str, Any]
Kubectl = Callable[..., str]

CRD = "modeldeployments.stoker.dev"
KINDS = "serviceaccounts,roles,rolebindings,services,deployments,pods"
CLUSTER_KINDS = "clusterroles,clusterrolebindings"
MODEL_DEPLOYMENT = """\
apiVersion: stoker.dev/v1alpha1
kind: ModelDeployment
metadata: {name: llama}
spec: {model: {uri: hf://meta-llama/Llama-3.1-8B-Instruct}, replicas: 0}
"""

SWITCHES: dict[str, Json] = {
    "defaults": {},
    "namespaced": {"watchNamespaces": ["default", "kube-system"]},
    "monitors": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
    "monitors of some namespaces": {
        "watchNamespaces": ["default"],
        "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "kps"}},
    },
    "bearer token": {"prometheus": {"url": "https://prom", "bearerToken": {"secretName": "token"}}},
    "password": {
        "prometheus": {
            "url": "https://prom/prefix",
            "basicAuth": {"username": "stoker", "secretName": "prom"},
            "ca": {"configMapName": "ca"},
            "headers": {"X-Scope-OrgID": "team a"},
        }
    },
    "somebody else's account and roles": {
        "serviceAccount": {"create": False, "name": "default"},
        "rbac": {"create": False},
    },
    "a pod with everything": {
        "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "podLabels": {"team": "ml"},
        "podAnnotations": {"note": "a"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "service": {"port": 80, "annotations": {"note": "a"}},
        "serviceAccount": {"annotations": {"note": "a"}},
    },
}


@pytest.fixture
def release() -> str:
    """A name that no other test uses."""
    return f"r{uuid.uuid4().hex[:8]}"


@pytest.fixture
def values(tmp_path: Path) -> Callable[[Json], Path]:
    """Write a file of values."""

    def write(content: Json) -> Path:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture(scope="session")
def monitor_crds(plane: Access, repository: Path, run_directory: Path) -> None:
    """The plane knows PodMonitors and ServiceMonitors."""
    file = repository / "tests" / "fixtures" / "prometheus-operator-crds.yaml"
    with FileLock(run_directory / "monitor-crds.lock"):
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file))
    kinds = ("podmonitors", "servicemonitors")
    wait_until_established(plane, *(f"{kind}.monitoring.coreos.com" for kind in kinds))


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A plane with a node and without Stoker's CRD."""
    with Plane.start(tmp_path_factory.mktemp("plane") / "plane") as plane:
        create_nodes(plane, 1)
        yield plane


@pytest.fixture
def empty_plane(own_plane: Plane) -> Iterator[Plane]:
    """The same; what is installed cluster-wide goes after the test."""
    yield own_plane
    own_plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    own_plane.kubectl("delete", CLUSTER_KINDS, "-l", "app.kubernetes.io/part-of=stoker")


def belonging_to(kubectl: Kubectl, release: str, namespace: str) -> list[str]:
    """Everything of a release that still exists, with or without a namespace."""
    chosen = ["-l", f"app.kubernetes.io/instance={release}", "-o", "name"]
    return [
        *kubectl("get", KINDS, "-n", namespace, *chosen).split(),
        *kubectl("get", CLUSTER_KINDS, *chosen).split(),
    ]


def all_gone(kubectl: Kubectl, release: str, namespace: str) -> bool:
    """Whether nothing of a release is left; Helm does not wait for the pods of what it deletes."""
    deadline = time.monotonic() + 60
    while belonging_to(kubectl, release, namespace) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not belonging_to(kubectl, release, namespace)


# --- On the shared plane -----------------------------------------------------------------------------


@pytest.mark.parametrize("watch_own_namespace", [True, False])
def test_helm_installs_upgrades_and_leaves_nothing_behind(
    plane, kubectl, namespace, release, values, watch_own_namespace
):
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    watch = [namespace] if watch_own_namespace else []
    file = values({"crds": {"install": False}, "watchNamespaces": watch})
    said = helm(
        *("install", release, str(CHART), f"--namespace={namespace}", f"--values={file}"),
        *("--wait", "--timeout=120s"),
        kubeconfig=plane.kubeconfig,
    )
    assert "NOTHING IS SCALED YET: set prometheus.url" in said
    assert len([o for o in belonging_to(kubectl, release, namespace) if o.startswith("clusterrole")]) == (
        0 if watch_own_namespace else 2
    )
    # --wait has seen the pod ready, so the restricted standard, which the namespace enforces, let it in.
    (pod,) = json.loads(kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
    assert pod["spec"]["serviceAccountName"] == f"{release}-stoker"

    helm(
        *("upgrade", release, str(CHART), f"--namespace={namespace}", "--reuse-values"),
        *("--set=log.level=debug", "--wait", "--timeout=120s"),
        kubeconfig=plane.kubeconfig,
    )
    env = kubectl("get", "deployment", f"{release}-stoker", "-n", namespace, "-o", "jsonpath={..env}")
    assert {"name": "STOKER_LOG_LEVEL", "value": "debug"} in json.loads(env)

    helm("uninstall", release, f"--namespace={namespace}", "--wait", kubeconfig=plane.kubeconfig)
    assert all_gone(kubectl, release, namespace)
    assert kubectl("get", "crd", CRD, "-o", "name")


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_api_server_takes_the_chart_with_every_switch(
    kubectl, namespace, release, values, monitor_crds, switch
):
    file = values({"crds": {"install": False}} | SWITCHES[switch])
    rendered = helm("template", release, str(CHART), f"--namespace={namespace}", f"--values={file}")
    said = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)
    count = len([obj for obj in yaml.safe_load_all(rendered) if obj])
    assert said.count("created (server dry run)") == count


def test_the_operators_pod_would_not_be_let_in_with_less(kubectl, namespace, release, values):
    """The standard is enforced on this plane, so that the other tests mean something."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    file = values({"crds": {"install": False}})
    rendered = yaml.safe_load_all(
        helm("template", release, str(CHART), f"--namespace={namespace}", f"--values={file}")
    )
    (deployment,) = (obj for obj in rendered if obj and obj["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": namespace}}
    pod["spec"] = template["spec"] | {"serviceAccountName": "default"}
    kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(pod))
    del pod["spec"]["securityContext"]["runAsNonRoot"]
    with pytest.raises(PlaneError, match="runAsNonRoot"):
        kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(pod))


# --- On a plane of their own -------------------------------------------------------------------------


def crd_description(kubectl: Kubectl) -> str:
    schema = ".spec.versions[0].schema.openAPIV3Schema.description"
    return kubectl("get", "crd", CRD, "-o", f"jsonpath={{{schema}}}")


def test_an_upgrade_brings_the_new_schema_and_an_uninstall_keeps_the_models(empty_plane, tmp_path):
    kubectl, kubeconfig = empty_plane.kubectl, empty_plane.kubeconfig
    older = shutil.copytree(CHART, tmp_path / "older")
    copy = older / "files" / "stoker.dev_modeldeployments.yaml"
    crd = yaml.safe_load(copy.read_text())
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "An older schema."
    copy.write_text(yaml.safe_dump(crd, sort_keys=False))

    where = ("--namespace=helm", "--wait", "--timeout=120s")
    helm("install", "stoker", str(older), *where, "--create-namespace", kubeconfig=kubeconfig)
    assert crd_description(kubectl) == "An older schema."
    wait_until_established(empty_plane, CRD)
    kubectl("apply", "-f", "-", input=MODEL_DEPLOYMENT)
    uid = kubectl("get", "mdep", "llama", "-o", "jsonpath={.metadata.uid}")

    helm("upgrade", "stoker", str(CHART), *where, kubeconfig=kubeconfig)
    assert crd_description(kubectl) not in {"", "An older schema."}

    helm("uninstall", "stoker", "--namespace=helm", "--wait", kubeconfig=kubeconfig)
    assert all_gone(kubectl, "stoker", "helm")
    assert kubectl("get", "mdep", "llama", "-o", "jsonpath={.metadata.uid}") == uid

    helm("install", "stoker", str(CHART), *where, kubeconfig=kubeconfig)
    assert kubectl("get", "mdep", "llama", "-o", "jsonpath={.metadata.uid}") == uid


def test_plain_kubectl_installs_it_and_helm_can_take_over(empty_plane, repository):
    kubectl, kubeconfig = empty_plane.kubectl, empty_plane.kubeconfig
    install = str(repository / "manifests" / "install.yaml")
    kubectl("apply", "--server-side", "-f", install)
    kubectl("rollout", "status", "deployment/stoker", "-n", "stoker-system", "--timeout=120s")
    wait_until_established(empty_plane, CRD)
    kubectl("apply", "-f", "-", input=MODEL_DEPLOYMENT)
    before = kubectl("get", "-f", install, "-o", "jsonpath={.items[*].metadata.generation}")
    kubectl("apply", "--server-side", "-f", install)
    assert kubectl("get", "-f", install, "-o", "jsonpath={.items[*].metadata.generation}") == before

    helm(
        *("install", "stoker", str(CHART), "--namespace=stoker-system", "--wait", "--timeout=120s"),
        *("--take-ownership", "--force-conflicts"),
        kubeconfig=kubeconfig,
    )
    assert kubectl("get", "mdep", "llama", "-o", "name")
    helm("uninstall", "stoker", "--namespace=stoker-system", "--wait", kubeconfig=kubeconfig)
    assert all_gone(kubectl, "stoker", "stoker-system")
