"""A seeded fleet is one in which the operator finds nothing to correct."""

from bench.controller import bulk, fleet, seed
from stoker.controller.store import Store
from stoker.core.observed import Snapshot
from stoker.core.plan import CreatePod
from stoker.core.readings import Metrics
from stoker.core.reconcile import reconcile
from tests.factories import NOW


def test_the_operator_would_have_made_the_same(monkeypatch):
    objects = []
    for number, (namespace, name) in enumerate(fleet.keys(3)):
        obj = fleet.manifest(namespace, name)
        obj["metadata"] |= {"uid": f"uid-{number}", "generation": 1, "resourceVersion": "1"}
        objects.append(obj)
    monkeypatch.setattr(bulk, "objects", lambda *_: iter(objects))
    store = Store(lambda: NOW)
    for obj in objects:
        store.put("ModelDeployment", obj)

    nodes = []
    for number, request in enumerate(seed.pods_and_services(None, ["n-0", "n-1"])):
        kind = {"pods": "Pod", "services": "Service"}[request.path.partition("?")[0].rpartition("/")[2]]
        made = {**request.body, "kind": kind}
        made["metadata"] = {**made["metadata"], "uid": f"made-{number}", "resourceVersion": "2"}
        assert f"/namespaces/{made['metadata']['namespace']}/" in request.path
        store.put(kind, made)
        nodes += [made["spec"]["nodeName"]] if kind == "Pod" else []

    assert nodes == ["n-0", "n-1"] * (3 * fleet.REPLICAS // 2)
    snapshot = Snapshot(
        now=NOW,
        deployments=store.deployments,
        pods=store.pods_by_deployment,
        services=store.services,
        metrics=Metrics(at=NOW),
    )
    plans = reconcile(snapshot)
    assert len(plans) == 3
    assert all(plan.actions == () for plan in plans.values())
    without = reconcile(
        Snapshot(now=NOW, deployments=store.deployments, services=store.services, metrics=Metrics(at=NOW))
    )
    assert all(isinstance(a, CreatePod) for plan in without.values() for a in plan.actions)
