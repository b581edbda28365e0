"""The chart's roles: enough for everything that the operator's clients do, and nothing beyond it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from stoker.api import meta
from stoker.clients.errors import Forbidden
from stoker.clients.kube import Kube
from stoker.controller.sweep import WATCHED
from stoker.handlers import Watcher
from testbed.access import Access
from testbed.components import PlaneOptions
from testbed.operator_access import RELEASE, grant
from testbed.plane import Plane
from tests.cluster.crds import wait_until_established
from tests.cluster.operator_access import operator_kubeconfig

__all__ = ["operator_kubeconfig"]

Right = tuple[str, str]
"""(resource, verb)"""

KUBERNETES_VERBS = {
    # Server-side apply of what does not exist yet is checked as a create, too.
    ("apply", "services"): ("patch", "create"),
    ("apply", "modeldeployments/status"): ("patch",),
    ("merge", "pods"): ("patch",),
    ("merge", "events"): ("patch",),
}
"""(client's verb, resource): the verbs that the API server asks for."""
WATCHED_RIGHTS = {
    (meta.PLURAL if kind == meta.KIND else f"{kind.lower()}s", verb)
    for _, kind, _ in WATCHED
    for verb in ("list", "watch")
}
UNSEEN_RIGHTS = {("modeldeployments/finalizers", "update")}
"""Asked for by an admission plug-in, never by a request: `test_…_where_owner_references_are_enforced`."""


def model_deployment(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": meta.API_VERSION,
        "kind": meta.KIND,
        "metadata": {"name": "llama", "namespace": namespace},
        "spec": {"model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}, "replicas": 0},
    }


def owned(
    api_version: str, kind: str, owner: dict[str, Any], spec: dict[str, Any], ordinal: int = 0
) -> dict[str, Any]:
    name, namespace, uid = (owner["metadata"][key] for key in ("name", "namespace", "uid"))
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": f"{name}-{ordinal}",
            "namespace": namespace,
            "labels": {meta.LABEL_MODEL_DEPLOYMENT: name},
            "ownerReferences": [meta.owner_reference(name, uid)],
        },
        "spec": spec,
    }


def pod(owner: dict[str, Any], ordinal: int = 0) -> dict[str, Any]:
    # No scheduler takes it: only the writes matter here.
    containers = [{"name": "engine", "image": "example.com/engine:1"}]
    return owned("v1", "Pod", owner, {"schedulerName": "nobody", "containers": containers}, ordinal)


def event(owner: dict[str, Any]) -> dict[str, Any]:
    metadata = owner["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.1", "namespace": metadata["namespace"]},
        "regarding": {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "stoker.dev/operator",
        "reportingInstance": "stoker-0",
        "action": "Test",
        "reason": "Test",
        "type": "Normal",
    }


@pytest.fixture
def owner(plane: Access, namespace: str) -> dict[str, Any]:
    """A ModelDeployment of a user's."""
    created = plane.kubectl("create", "-o=json", "-f", "-", input=json.dumps(model_deployment(namespace)))
    return json.loads(created)


@asynccontextmanager
async def watched(kubeconfig: Path, *namespaces: str) -> AsyncIterator[asyncio.Queue[tuple[str, str]]]:
    """The operator's watches; the queue gets (kind, namespace) of every event."""
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def deliver(kind: str, _: str | None, obj: Any) -> None:
        seen.put_nowait((kind, obj["metadata"]["namespace"]))

    watcher = Watcher(deliver, lambda _: None, kubeconfig=kubeconfig, namespaces=namespaces)
    watching = asyncio.create_task(watcher.run())
    try:
        yield seen
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def write_everything(kube: Kube, owner: dict[str, Any]) -> None:
    """One of each write of the operator's: `controller/executor.py` and the Events."""
    name, namespace, uid = (owner["metadata"][key] for key in ("name", "namespace", "uid"))
    await kube.create(pod(owner, 0))  # stays, for the watches to see
    created = await kube.create(pod(owner, 1))
    where = ("v1", "Pod", namespace, created["metadata"]["name"], created["metadata"]["uid"])
    await kube.merge_metadata(*where, {meta.LABEL_SERVING: "false"}, {meta.ANNOTATION_ATTEMPT: "1"})
    await kube.delete(*where)
    service = owned("v1", "Service", owner, {"ports": [{"port": 80}]})
    await kube.apply(service, meta.FIELD_MANAGER)
    status = {"replicas": 0, "selector": meta.selector(name)}
    await kube.apply_status(
        meta.API_VERSION, meta.KIND, namespace, name, uid, status, meta.FIELD_MANAGER_STATUS
    )
    recorded = await kube.create(event(owner))
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}
    await kube.merge("events.k8s.io/v1", "Event", namespace, recorded["metadata"]["name"], series)


async def read_everything(kube: Kube, owner: dict[str, Any], namespace: str | None) -> None:
    """The sweep's reads."""
    for api_version, kind, selector in WATCHED:
        async for found in kube.list(
            api_version, kind, namespace, label_selector=selector, metadata_only=True
        ):
            if found["metadata"]["namespace"] == owner["metadata"]["namespace"]:
                await kube.get(api_version, kind, owner["metadata"]["namespace"], found["metadata"]["name"])


def granted(plane: Access, role: str, *where: str) -> Iterator[Right]:
    """The rights of a Role or ClusterRole."""
    for rule in json.loads(plane.kubectl("get", role, *where, "-o", "json"))["rules"]:
        assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        yield from ((resource, verb) for resource in rule["resources"] for verb in rule["verbs"])


async def test_the_roles_are_what_the_operator_uses_and_nothing_else(
    plane, namespace, owner, operator_kubeconfig
):
    used: set[Right] = set()

    def note(verb: str, resource: str, code: str, _: float) -> None:
        assert code.startswith("2"), f"{verb} {resource}: {code}"
        used.update((resource, needed) for needed in KUBERNETES_VERBS.get((verb, resource), (verb,)))

    async with (
        watched(operator_kubeconfig, namespace) as seen,
        Kube(operator_kubeconfig, on_request=note) as kube,
    ):
        await write_everything(kube, owner)
        await read_everything(kube, owner, namespace)
        kinds = {kind for _, kind, _ in WATCHED}
        async with asyncio.timeout(60):
            while kinds:
                kind, _ = await seen.get()
                kinds.discard(kind)
    rights = set(granted(plane, f"role/{RELEASE}", "-n", namespace))
    assert rights == used | WATCHED_RIGHTS | UNSEEN_RIGHTS


async def test_a_namespaced_operator_reaches_no_other_namespace(operator_kubeconfig):
    async with Kube(operator_kubeconfig) as kube:
        for api_version, kind, _ in WATCHED:
            with pytest.raises(Forbidden):
                await anext(kube.list(api_version, kind, "default"))
            with pytest.raises(Forbidden):
                await anext(kube.list(api_version, kind))


async def test_without_namespaces_one_cluster_role_serves_all(plane, namespace, owner):
    kubeconfig = grant(plane, namespace)
    async with watched(kubeconfig) as seen, Kube(kubeconfig) as kube:
        await write_everything(kube, owner)
        await read_everything(kube, owner, None)
        async with asyncio.timeout(60):
            while await seen.get() != (meta.KIND, namespace):
                pass
    assert plane.kubectl("get", "clusterrole", f"{namespace}:{RELEASE}", "-o", "name")


async def test_pods_can_be_owned_where_owner_references_are_enforced(tmp_path, repository):
    """As on OpenShift: without `modeldeployments/finalizers` no pod with blockOwnerDeletion can be made."""
    enforcing = PlaneOptions(
        apiserver_flags=("--enable-admission-plugins=OwnerReferencesPermissionEnforcement",)
    )
    with Plane.start(tmp_path / "plane", options=enforcing) as plane:
        plane.kubectl("create", "-f", str(repository / "crds"))
        wait_until_established(plane, meta.CRD_NAME)
        mine = json.loads(
            plane.kubectl("create", "-o=json", "-f", "-", input=json.dumps(model_deployment("default")))
        )
        async with Kube(grant(plane, "default", ["default"])) as kube:
            assert await kube.create(pod(mine))
