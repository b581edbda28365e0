"""The Kubernetes client against a real API server: what no fake can promise."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from stoker.clients.errors import AlreadyExists, Conflict, Forbidden, NotFound, Rejected, Replaced
from stoker.clients.kube import Kube
from stoker.core.plan import Event
from stoker.core.readings import Key
from stoker.telemetry.events import Recorder
from testbed.access import Access

CR = ("stoker.dev/v1alpha1", "ModelDeployment")
MANAGER = "test-client"


def pod(namespace, name="a", **metadata):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {
            # Nothing runs it: these tests are about the API alone.
            "schedulerName": "nobody",
            "containers": [{"name": "main", "image": "example.com/none:1"}],
        },
    }


def service(namespace, name="a", port=80, **metadata):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


def deployment(namespace, name="llama", **metadata):
    return {
        "apiVersion": CR[0],
        "kind": CR[1],
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}, "replicas": 1},
    }


@pytest.fixture
async def kube(plane: Access) -> AsyncIterator[Kube]:
    async with Kube(plane.kubeconfig) as client:
        yield client


async def recreate(kube, manifest, uid):
    """Delete the object and put a namesake in its place; returns the new uid."""
    metadata = manifest["metadata"]
    where = (manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])
    assert await kube.delete(*where, uid, grace_seconds=0)
    while True:
        try:
            return (await kube.create(manifest))["metadata"]["uid"]
        except AlreadyExists:
            await asyncio.sleep(0.05)


# --- Create, delete ------------------------------------------------------------------------------


async def test_a_second_create_of_a_name_is_already_exists(kube, namespace):
    await kube.create(pod(namespace))
    with pytest.raises(AlreadyExists):
        await kube.create(pod(namespace))


async def test_an_unknown_field_is_refused_by_name(kube, namespace):
    manifest = pod(namespace)
    manifest["spec"]["nodeSelektor"] = {}
    with pytest.raises(Rejected, match=r"spec\.nodeSelektor"):
        await kube.create(manifest)


async def test_an_invalid_object_is_refused_with_its_fields(kube, namespace):
    manifest = pod(namespace)
    manifest["spec"]["containers"][0]["name"] = "Not A Name"
    with pytest.raises(Rejected) as caught:
        await kube.create(manifest)
    assert [cause.field for cause in caught.value.causes] == ["spec.containers[0].name"]


async def test_a_namespace_that_is_not_there(kube):
    with pytest.raises(NotFound, match="namespaces"):
        await kube.create(pod(f"no-{uuid.uuid4().hex[:8]}"))


async def test_a_deletion_spares_a_namesake(kube, namespace):
    old = (await kube.create(pod(namespace)))["metadata"]["uid"]
    new = await recreate(kube, pod(namespace), old)
    assert not await kube.delete("v1", "Pod", namespace, "a", old)
    assert (await kube.get("v1", "Pod", namespace, "a"))["metadata"]["uid"] == new


async def test_a_second_deletion_is_success(kube, namespace):
    uid = (await kube.create(pod(namespace)))["metadata"]["uid"]
    assert await kube.delete("v1", "Pod", namespace, "a", uid, grace_seconds=0)
    assert not await kube.delete("v1", "Pod", namespace, "a", uid, grace_seconds=0)


async def test_a_quota_is_recognised(kube, plane, namespace):
    plane.kubectl("create", "quota", "few", "--hard=pods=0", "-n", namespace)
    # Until the quota controller has counted, the refusal is another one (or, for a moment, there is none).
    async with asyncio.timeout(30):
        refusal = ""
        while not refusal:
            refusal = await refusal_of(kube, pod(namespace, f"p-{uuid.uuid4().hex[:8]}"))
    assert "few" in refusal


async def refusal_of(kube, manifest):
    try:
        made = (await kube.create(manifest))["metadata"]
    except Forbidden as error:
        return str(error) if error.quota_exceeded else ""
    await kube.delete("v1", "Pod", made["namespace"], made["name"], made["uid"], grace_seconds=0)
    return ""


async def test_a_namespace_that_is_being_deleted_is_recognised(kube, plane, namespace):
    await kube.create(pod(namespace, finalizers=["test.stoker.dev/hold"]))
    plane.kubectl("delete", "namespace", namespace, "--wait=false")
    try:
        with pytest.raises(Forbidden) as caught:
            await kube.create(pod(namespace, "b"))
        assert caught.value.namespace_terminating
        assert "role" not in str(caught.value)
    finally:
        await kube.merge("v1", "Pod", namespace, "a", {"metadata": {"finalizers": None}})


# --- Apply ---------------------------------------------------------------------------------------


async def test_apply_creates_then_changes_and_drops_what_is_no_longer_said(kube, namespace):
    first = await kube.apply(service(namespace, labels={"a": "1", "b": "1"}), MANAGER)
    second = await kube.apply(service(namespace, port=81, labels={"a": "1"}), MANAGER)
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert second["metadata"]["labels"] == {"a": "1"}
    assert [p["port"] for p in second["spec"]["ports"]] == [81]


async def test_the_same_apply_again_writes_nothing(kube, namespace):
    first = await kube.apply(service(namespace), MANAGER)
    second = await kube.apply(service(namespace), MANAGER)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_another_managers_field_is_a_conflict_unless_forced(kube, namespace):
    await kube.apply(service(namespace, labels={"a": "theirs"}), "them")
    with pytest.raises(Conflict, match="them"):
        await kube.apply(service(namespace, labels={"a": "ours"}), MANAGER, force=False)
    forced = await kube.apply(service(namespace, labels={"a": "ours"}), MANAGER)
    assert forced["metadata"]["labels"] == {"a": "ours"}


async def test_apply_with_a_uid_creates_no_second_object(kube, namespace):
    with pytest.raises(Replaced):
        await kube.apply(service(namespace, uid=str(uuid.uuid4())), MANAGER)
    with pytest.raises(NotFound):
        await kube.get("v1", "Service", namespace, "a")


async def test_apply_with_a_uid_spares_a_namesake(kube, namespace):
    old = (await kube.create(service(namespace)))["metadata"]["uid"]
    await recreate(kube, service(namespace), old)
    with pytest.raises(Replaced):
        await kube.apply(service(namespace, port=81, uid=old), MANAGER)
    assert (await kube.get("v1", "Service", namespace, "a"))["spec"]["ports"][0]["port"] == 80


# --- Status --------------------------------------------------------------------------------------


async def test_status_is_applied_and_leaves_the_spec_alone(kube, namespace):
    made = await kube.create(deployment(namespace))
    uid, generation = made["metadata"]["uid"], made["metadata"]["generation"]
    changed = await kube.apply_status(*CR, namespace, "llama", uid, {"replicas": 3}, "test-status")
    assert changed["status"]["replicas"] == 3
    assert changed["spec"] == made["spec"]
    assert changed["metadata"]["generation"] == generation
    writers = {m["manager"] for m in changed["metadata"]["managedFields"] if m.get("subresource") == "status"}
    assert writers == {"test-status"}


async def test_the_same_status_again_writes_nothing(kube, namespace):
    uid = (await kube.create(deployment(namespace)))["metadata"]["uid"]
    first, second = [
        await kube.apply_status(*CR, namespace, "llama", uid, {"replicas": 3}, "test-status")
        for _ in range(2)
    ]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_status_that_is_no_longer_said_goes(kube, namespace):
    uid = (await kube.create(deployment(namespace)))["metadata"]["uid"]
    for status in ({"replicas": 3, "desiredReplicas": 4}, {"replicas": 2}):
        changed = await kube.apply_status(*CR, namespace, "llama", uid, status, "test-status")
    assert "desiredReplicas" not in changed["status"]


async def test_a_wrong_status_names_its_field(kube, namespace):
    uid = (await kube.create(deployment(namespace)))["metadata"]["uid"]
    with pytest.raises(Rejected) as caught:
        await kube.apply_status(*CR, namespace, "llama", uid, {"replicas": "many"}, "test-status")
    assert "status.replicas" in [cause.field for cause in caught.value.causes]


async def test_status_of_what_is_gone_creates_nothing(kube, namespace):
    with pytest.raises(NotFound):
        await kube.apply_status(*CR, namespace, "llama", str(uuid.uuid4()), {"replicas": 3}, "test-status")
    assert [item async for item in kube.list(*CR, namespace)] == []


async def test_status_of_a_namesake_is_left_alone(kube, namespace):
    old = (await kube.create(deployment(namespace)))["metadata"]["uid"]
    await recreate(kube, deployment(namespace), old)
    with pytest.raises(Replaced):
        await kube.apply_status(*CR, namespace, "llama", old, {"replicas": 3}, "test-status")
    assert (await kube.get(*CR, namespace, "llama")).get("status", {}).get("replicas") != 3


# --- Metadata ------------------------------------------------------------------------------------


async def test_labels_are_set_and_removed_and_others_stay(kube, namespace):
    made = await kube.create(pod(namespace, labels={"serving": "true", "keep": "1"}))
    uid = made["metadata"]["uid"]
    changed = await kube.merge_metadata(
        "v1", "Pod", namespace, "a", uid, {"serving": None, "new": "x"}, {"drain": "now"}
    )
    assert changed["metadata"]["labels"] == {"keep": "1", "new": "x"}
    assert changed["metadata"]["annotations"]["drain"] == "now"


async def test_the_metadata_of_a_namesake_is_left_alone(kube, namespace):
    old = (await kube.create(pod(namespace)))["metadata"]["uid"]
    await recreate(kube, pod(namespace), old)
    with pytest.raises(Replaced):
        await kube.merge_metadata("v1", "Pod", namespace, "a", old, {"x": "1"}, {})
    assert "x" not in (await kube.get("v1", "Pod", namespace, "a"))["metadata"].get("labels", {})


async def test_the_metadata_of_what_is_gone(kube, namespace):
    with pytest.raises(NotFound):
        await kube.merge_metadata("v1", "Pod", namespace, "a", str(uuid.uuid4()), {"x": "1"}, {})


# --- Lists ---------------------------------------------------------------------------------------


async def test_pages_and_selectors(kube, namespace):
    await asyncio.gather(
        *(kube.create(service(namespace, f"s{i}", labels={"half": str(i % 2)})) for i in range(10))
    )
    found = [s["metadata"]["name"] async for s in kube.list("v1", "Service", namespace, limit=3)]
    assert sorted(found) == [f"s{i}" for i in range(10)]
    odd = kube.list("v1", "Service", namespace, label_selector="half=1", limit=2)
    assert sorted([s["metadata"]["name"] async for s in odd]) == ["s1", "s3", "s5", "s7", "s9"]


async def test_metadata_alone(kube, namespace):
    await kube.create(service(namespace, labels={"x": "1"}))
    (found,) = [s async for s in kube.list("v1", "Service", namespace, metadata_only=True)]
    assert "spec" not in found
    assert (found["kind"], found["metadata"]["labels"]) == ("Service", {"x": "1"})


async def test_nodes_are_listed_without_a_namespace(kube):
    nodes = [node async for node in kube.list("v1", "Node", limit=7)]
    assert len({node["metadata"]["uid"] for node in nodes}) == len(nodes) > 7


# --- Rights --------------------------------------------------------------------------------------


async def test_a_missing_role_is_named(plane, namespace, tmp_path):
    token = plane.kubectl("create", "token", "default", "-n", namespace).strip()
    file = tmp_path / "kubeconfig"
    file.write_text(plane.kubeconfig.read_text())
    plane.kubectl("config", "set-credentials", "weak", f"--token={token}", "--kubeconfig", str(file))
    plane.kubectl("config", "set-context", "--current", "--user=weak", "--kubeconfig", str(file))
    async with Kube(file) as kube:
        with pytest.raises(Forbidden, match=rf"list pods in namespace {namespace}.*allow the verb 'list'"):
            _ = [item async for item in kube.list("v1", "Pod", namespace)]


async def test_a_token_that_nobody_issued(plane, namespace, tmp_path):
    file = tmp_path / "kubeconfig"
    file.write_text(plane.kubeconfig.read_text())
    plane.kubectl("config", "set-credentials", "nobody", "--token=wrong", "--kubeconfig", str(file))
    plane.kubectl("config", "set-context", "--current", "--user=nobody", "--kubeconfig", str(file))
    async with Kube(file) as kube:
        with pytest.raises(Forbidden, match="check its token or kubeconfig"):
            await kube.get("v1", "Pod", namespace, "a")


# --- Events --------------------------------------------------------------------------------------


@pytest.fixture
async def said(kube, plane, namespace):
    """A recorder with a ModelDeployment to speak about; ``said.now`` is its clock."""
    uid = (await kube.create(deployment(namespace)))["metadata"]["uid"]
    bench = SimpleNamespace(now=time.time(), counted=[])
    recorder = Recorder(kube, clock=lambda: bench.now, on_event=bench.counted.append)
    bench.flush = recorder.flush
    bench.say = lambda text: recorder.record(Key(namespace, "llama"), uid, Event("Normal", "ScaledUp", text))
    bench.describe = lambda: plane.kubectl("describe", "modeldeployment", "llama", "-n", namespace)
    bench.uid = uid
    return bench


async def test_kubectl_describe_shows_an_event(said):
    said.say("from 3 to 4 replicas: 412 tokens/s")
    await said.flush()
    assert said.counted == ["sent"]
    (line,) = [line for line in said.describe().splitlines() if "ScaledUp" in line]
    assert "from 3 to 4 replicas: 412 tokens/s" in line
    assert "stoker.dev/operator" in line


async def test_the_api_server_takes_a_series(said, kube, namespace):
    for _ in range(3):
        said.say("waiting for a GPU since 1.5 s")
        await said.flush()
        said.now += 31
    said.say("waiting for a GPU since 99.5 s")
    await said.flush()
    (event,) = [e async for e in kube.list("events.k8s.io/v1", "Event", namespace) if "regarding" in e]
    assert event["regarding"]["uid"] == said.uid
    assert event["series"]["count"] == 4
    assert said.counted == ["sent", "aggregated", "aggregated", "aggregated"]


async def test_the_longest_note_is_taken(said):
    said.say("é" * 5000)
    await said.flush()
    assert said.counted == ["sent"]


async def test_an_event_that_expired_starts_anew(said, kube, namespace):
    said.say("again")
    await said.flush()
    (event,) = [e async for e in kube.list("events.k8s.io/v1", "Event", namespace)]
    metadata = event["metadata"]
    await kube.delete("events.k8s.io/v1", "Event", namespace, metadata["name"], metadata["uid"])
    for _ in range(2):
        said.now += 31
        said.say("again")
        await said.flush()
    (event,) = [e async for e in kube.list("events.k8s.io/v1", "Event", namespace)]
    assert event["metadata"]["uid"] != metadata["uid"]
