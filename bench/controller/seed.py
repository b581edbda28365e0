"""A large fleet in a minute: copies of a small one, written to where the API server keeps its objects.

Through the API server, 10,000 ModelDeployments with their pods take some 100,000 requests, an hour on two
busy cores, and what is measured of them afterwards is the same. So the operator makes the first few; their
objects are read, and copied under other names into etcd.

Rules of this module:

- A copy differs from its original in names, uids, addresses and what derives from the name (revision, hash of
  the Service) alone; the operator finds nothing to correct in it.
- Values are JSON. The API server itself writes core objects as protobuf, and reads both.
"""

import base64
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

import httpx

from bench.controller import bulk, fleet
from stoker.api import meta
from stoker.core.parse import deployment_from
from stoker.core.plan import Manifest
from testbed.access import Access, PlaneError

ORIGINALS = fleet.NAMESPACES
"""One per namespace: made by the operator, and the first of the fleet."""
_BATCH = 64
"""etcd takes up to 128 operations and 1.5 MiB in one transaction."""
_FIRST_SERVICE = IPv4Address("10.0.64.1")
"""Inside of the plane's range of Services, beyond the addresses that the originals have."""
_TIMEOUT = 60.0


def copies(plane: Access, size: int) -> Iterator[tuple[str, bulk.Object]]:
    """Yield (etcd key, object) of everything that the originals are to be copied to.

    Args:
        plane: with the originals, complete and Ready.
        size: of the whole fleet.
    """
    models = {_name(obj): obj for obj in bulk.objects(plane, fleet.COLLECTION)}
    services = {_name(obj): obj for obj in bulk.objects(plane, "/api/v1/services", fleet.MANAGED)}
    pods: dict[str, list[bulk.Object]] = {}
    for pod in bulk.objects(plane, "/api/v1/pods", fleet.MANAGED):
        pods.setdefault(pod["metadata"]["labels"][meta.LABEL_MODEL_DEPLOYMENT], []).append(pod)
    originals = [name for _, name in fleet.keys(ORIGINALS)]
    addresses = itertools.count()
    for number, (_, name) in enumerate(fleet.keys(size)[ORIGINALS:], start=ORIGINALS):
        original = originals[number % ORIGINALS]
        address = str(_FIRST_SERVICE + next(addresses))
        yield from _copy(models[original], services[original], pods[original], name, address)


def _copy(
    model: bulk.Object, service: bulk.Object, pods: list[bulk.Object], name: str, address: str
) -> Iterator[tuple[str, bulk.Object]]:
    original = _name(model)
    model = _renamed(model, {original: name, model["metadata"]["uid"]: str(uuid.uuid4())})
    uid, deployment = model["metadata"]["uid"], deployment_from(model)
    if deployment.service is None:
        raise PlaneError(f"{name}: its spec cannot be acted on: {deployment.errors}")
    owner = service["metadata"]["ownerReferences"][0]["uid"]
    revision = pods[0]["metadata"]["labels"][meta.LABEL_REVISION]
    changes = {original: name, owner: uid, revision: deployment.revision}
    yield _stored("stoker.dev/modeldeployments", _renamed(model, changes))
    yield _stored("services/specs", _service(service, changes, address, deployment.service))
    for pod in pods:
        fresh = {pod["metadata"]["uid"]: str(uuid.uuid4())}
        yield _stored("pods", _renamed({"apiVersion": "v1", "kind": "Pod", **pod}, changes | fresh))


def _service(service: bulk.Object, changes: dict[str, str], address: str, wanted: Manifest) -> bulk.Object:
    annotation = meta.ANNOTATION_APPLIED_HASH
    changes = changes | {
        service["metadata"]["uid"]: str(uuid.uuid4()),
        service["metadata"]["annotations"][annotation]: wanted["metadata"]["annotations"][annotation],
        service["spec"]["clusterIP"]: address,
    }
    return _renamed({"apiVersion": "v1", "kind": "Service", **service}, changes)


def _renamed(obj: bulk.Object, changes: dict[str, str]) -> bulk.Object:
    """The object with each of these texts replaced wherever it occurs: names are parts of longer names."""
    text = json.dumps(obj)
    for old, new in changes.items():
        text = text.replace(old, new)
    made: bulk.Object = json.loads(text)
    made["metadata"].pop("resourceVersion", None)  # etcd's own revision becomes it
    return made


def _stored(collection: str, obj: bulk.Object) -> tuple[str, bulk.Object]:
    metadata = obj["metadata"]
    return f"/registry/{collection}/{metadata['namespace']}/{metadata['name']}", obj


def _name(obj: bulk.Object) -> str:
    return str(obj["metadata"]["name"])


def put(etcd: str, objects: Iterable[tuple[str, bulk.Object]]) -> int:
    """Write objects into etcd by its JSON gateway; return how many.

    Args:
        etcd: its address, `http://…`.
        objects: (key, object) pairs.

    Raises:
        PlaneError: etcd refused them.
    """
    written = 0
    with httpx.Client(base_url=etcd, timeout=_TIMEOUT) as client:
        for batch in _batches(objects):
            puts = [{"requestPut": {"key": _encoded(k), "value": _encoded(json.dumps(o))}} for k, o in batch]
            answer = client.post("/v3/kv/txn", json={"success": puts})
            if not answer.is_success:
                raise PlaneError(f"etcd: {answer.text}")
            written += len(puts)
    return written


def _batches(objects: Iterable[tuple[str, bulk.Object]]) -> Iterator[list[tuple[str, bulk.Object]]]:
    remaining = iter(objects)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
