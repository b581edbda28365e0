"""A copied fleet is one in which the operator finds nothing to correct, and nothing to write."""

import json
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.controller import bulk, fleet, seed
from bench.controller.kubelets import _conditions, _container
from stoker.controller.store import Store
from stoker.core import resources
from stoker.core.observed import Snapshot
from stoker.core.parse import deployment_from
from stoker.core.readings import Metrics
from stoker.core.reconcile import reconcile
from testbed.access import PlaneError
from tests.factories import NOW

STAMP = "2027-01-15T06:00:00Z"
SIZE = seed.ORIGINALS + 7


def stored(obj, uid):
    made = json.loads(json.dumps(obj))
    made["metadata"] |= {"uid": uid, "resourceVersion": "5", "generation": 1, "creationTimestamp": STAMP}
    return made


def decide(objects):
    store = Store(lambda: NOW)
    for kind, obj in objects:
        store.put(kind, {"kind": kind, **obj, "metadata": {"resourceVersion": "9", **obj["metadata"]}})
    snapshot = Snapshot(
        now=NOW,
        deployments=store.deployments,
        pods=store.pods_by_deployment,
        services=store.services,
        metrics=Metrics(at=NOW),
    )
    return reconcile(snapshot)


@pytest.fixture
def originals(monkeypatch):
    """A small fleet as the API server has it, with the statuses that the operator gave it."""
    kept = {"ModelDeployment": [], "Service": [], "Pod": []}
    for number, (namespace, name) in enumerate(fleet.keys(seed.ORIGINALS)):
        model = stored(fleet.manifest(namespace, name), f"uid-of-model-{number}")
        deployment = deployment_from(model)
        service = stored(resources.service(deployment), f"uid-of-service-{number}")
        service["spec"]["clusterIP"] = f"10.0.0.{number + 10}"
        kept["ModelDeployment"].append(model)
        kept["Service"].append(service)
        for ordinal in range(fleet.REPLICAS):
            pod = stored(
                resources.pod(deployment, deployment.revision, ordinal, 0), f"uid-{number}-{ordinal}"
            )
            pod["spec"]["nodeName"] = "gpu-0000"
            containers = [_container(c, STAMP) for c in pod["spec"]["containers"]]
            pod["status"] = {
                "phase": "Running",
                "conditions": _conditions(STAMP),
                "containerStatuses": containers,
            }
            kept["Pod"].append(pod)
    plans = decide([(kind, obj) for kind, objs in kept.items() for obj in objs])
    for model in kept["ModelDeployment"]:
        status = next(p.status for k, p in plans.items() if k.name == model["metadata"]["name"])
        model["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    by_path = {
        fleet.COLLECTION: "ModelDeployment",
        "/api/v1/services": "Service",
        "/api/v1/pods": "Pod",
    }
    monkeypatch.setattr(bulk, "objects", lambda _, path, *rest: iter(kept[by_path[path]]))
    return kept


def test_nothing_is_left_to_do_for_a_copy(originals):
    kinds = {"stoker.dev": "ModelDeployment", "services": "Service", "pods": "Pod"}
    copies = [(kinds[key.split("/")[2]], obj) for key, obj in seed.copies(None, SIZE)]
    plans = decide(copies)
    assert set(plans) == set(fleet.keys(SIZE)[seed.ORIGINALS :])
    for plan in plans.values():
        assert (plan.actions, plan.status, plan.events) == ((), None, ())


def test_every_copy_is_another_object(originals):
    found = list(seed.copies(None, SIZE))
    assert len(found) == 7 * (fleet.REPLICAS + 2)
    assert len({key for key, _ in found}) == len(found)
    assert len({obj["metadata"]["uid"] for _, obj in found}) == len(found)
    known = {obj["metadata"]["uid"] for objs in originals.values() for obj in objs}
    text = json.dumps(found)
    assert not any(f'"{uid}"' in text for uid in known)
    addresses = {obj["spec"]["clusterIP"] for key, obj in found if "/services/" in key}
    assert len(addresses) == 7


@pytest.fixture
def etcd():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            self.send_response(400 if refuse else 200)
            self.end_headers()
            self.wfile.write(b"full")

        def log_message(self, *_):
            pass

    asked, refuse = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked, refuse
    server.shutdown()
    server.server_close()
    thread.join()


def test_objects_are_put_in_batches(etcd):
    url, asked, _ = etcd
    count = seed._BATCH + 1
    assert seed.put(url, ((f"/registry/{n}", {"n": n}) for n in range(count))) == count
    assert [(path, len(body["success"])) for path, body in asked] == [
        ("/v3/kv/txn", seed._BATCH),
        ("/v3/kv/txn", 1),
    ]
    last = asked[1][1]["success"][0]["requestPut"]
    assert b64decode(last["key"]) == f"/registry/{count - 1}".encode()
    assert json.loads(b64decode(last["value"])) == {"n": count - 1}


def test_what_etcd_says_is_told(etcd):
    url, _, refuse = etcd
    refuse.append(True)
    with pytest.raises(PlaneError, match="etcd: full"):
        seed.put(url, [("/registry/x", {})])
