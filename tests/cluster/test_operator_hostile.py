"""Input that is wrong, and neighbours that are in the way: told in status, and nothing else suffers."""

import json

import pytest

from testbed.access import PlaneError
from testbed.engines import EngineFleet
from tests.cluster.operator_lab import ANNOTATION, Json, Lab, manifest, names, uids

FOREIGN = {"name": "other", "image": "registry.example/other:1"}


def foreign_pod(name: str, labels: dict[str, str] | None = None) -> Json:
    """Somebody else's pod."""
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [FOREIGN]}}


def test_an_argument_that_stoker_sets_is_refused_by_name(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1, engine={"args": ["--port=9000", "--served-model-name", "x"]}))
    message = lab.until_verdict("Accepted", "False/ReservedArgument")
    assert "--port" in message
    assert "spec.engine.args" in message
    assert "set spec.engine.port" in message
    assert "--served-model-name" in message
    assert lab.verdict("Ready") == "False/ReservedArgument"
    assert not lab.pods()
    assert not lab.items("services")
    lab.apply(manifest(replicas=1, engine={"args": ["--max-model-len=8192"]}))
    lab.until_verdict("Ready", "True/Serving")


def test_a_spec_that_becomes_invalid_leaves_what_serves_alone(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=2))
    before = uids(lab.until_serving(2))
    lab.apply(manifest(replicas=4, engine={"args": ["--port=9000"]}))
    lab.until_verdict("Accepted", "False/ReservedArgument")
    lab.stays("the same two", lambda: uids(lab.pods(live=False)) == before, 3)
    lab.apply(manifest(replicas=2))
    lab.until_verdict("Ready", "True/Serving")
    assert uids(lab.serving()) == before


@pytest.mark.parametrize(
    "name", ["Großes-Modell", "llm_one", "a" * 49, "-llm", "llm..x", "x/../y", "llm\n"], ids=repr
)
def test_a_name_that_no_replica_could_have_is_refused_by_the_api(lab: Lab, name: str):
    with pytest.raises(PlaneError) as refused:
        lab.apply(manifest(name))
    assert "name" in str(refused.value)


def test_the_longest_name_serves(lab: Lab):
    lab.start()
    name = "m" * 48
    lab.apply(manifest(name, replicas=1))
    lab.until_serving(1, name)
    assert len(names(lab.pods(name))[0]) <= 63


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (
            {"containers": [{"name": "engine", "resources": {"limits": {"memory": "a lot"}}}]},
            "spec.containers[0].resources.limits[memory] is 'a lot'",
        ),
        ({"priorityClassName": "no-such-class"}, "no-such-class"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"noSuchField": True}, "noSuchField"),
        ({"tolerations": "all of them"}, "tolerations"),
    ],
    ids=["quantity", "priority class", "enumeration", "unknown field", "type"],
)
def test_a_template_that_the_api_refuses_is_told_with_its_field(lab: Lab, template: Json, field: str):
    lab.start()
    broken = manifest(replicas=1, template={"spec": template})
    lab.apply(broken)
    reason = "ApplyForbidden" if "priorityClassName" in template else "ApplyRejected"
    message = lab.until_verdict("Available", f"False/{reason}")
    assert field in message
    assert lab.verdict("Ready") == f"False/{reason}"
    assert lab.verdict("Progressing") == f"False/{reason}"
    lab.apply(manifest(replicas=1))
    lab.until_verdict("Ready", "True/Serving")


def test_a_quota_bounds_the_fleet_and_is_named(lab: Lab):
    lab.start()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "2"}},
    }
    lab.apply(quota)
    lab.until("the quota counts", lambda: lab.items("resourcequotas")[0].get("status", {}).get("hard"))
    lab.apply(manifest(replicas=4))
    message = lab.until_verdict("CapacityGranted", "False/QuotaExceeded")
    assert "requests.nvidia.com/gpu" in message
    assert "gpus" in message
    lab.until_serving(2)
    lab.until_verdict("Ready", "False/QuotaExceeded")
    lab.stays("no more than two", lambda: len(lab.pods(live=False)) == 2, 2)
    quota["spec"] = {"hard": {"requests.nvidia.com/gpu": "8"}}
    lab.apply(quota)
    lab.until_serving(4, seconds=150)
    lab.until_verdict("CapacityGranted", "True/Granted")


def test_a_foreign_pod_with_a_replicas_name_is_told_and_left_alone(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1))
    (name,) = names(lab.until_serving(1))
    lab.kubectl("delete", "modeldeployment", "llm", "--wait=true")
    lab.until("nothing left", lambda: not lab.items("pods"))
    lab.apply(foreign_pod(name))
    lab.apply(manifest(replicas=1))
    message = lab.until_verdict("Ready", "False/ApplyRejected")
    assert f"{name} is not Stoker's" in message
    assert "delete or rename it" in message
    (pod,) = lab.items("pods")
    assert pod["spec"]["containers"][0]["name"] == "other"
    lab.delete(f"pods/{name}", force=True)
    lab.until_serving(1, seconds=150)


def test_foreign_pods_with_stokers_labels_are_neither_counted_nor_touched(lab: Lab, engines: EngineFleet):
    lab.start()
    labels = {"stoker.dev/model-deployment": "llm", "app.kubernetes.io/managed-by": "stoker"}
    lab.apply(foreign_pod("stranger", labels))
    lab.apply(foreign_pod("orphan", {"stoker.dev/model-deployment": "nobody"}))
    lab.apply(manifest(replicas=2))
    mine = lab.until_serving(2)
    assert lab.status()["replicas"] == 2
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=1")
    lab.until_serving(1)
    lab.until("two strangers and one replica", lambda: len(lab.items("pods")) == 3)
    lab.kubectl("delete", "modeldeployment", "llm")
    lab.until("the strangers alone", lambda: names(lab.items("pods")) == ["orphan", "stranger"])
    assert "stranger" not in names(mine)
    assert not any("deletionTimestamp" in pod["metadata"] for pod in lab.items("pods"))


def test_one_recreated_while_its_old_pods_terminate_gets_pods_of_its_own(lab: Lab):
    lab.start()
    slow = {f"{ANNOTATION}/stop-seconds": "15"}
    lab.apply(manifest(replicas=2, annotations=slow))
    old = uids(lab.until_serving(2))
    lab.kubectl("delete", "modeldeployment", "llm", "--wait=true")
    again = lab.apply(manifest(replicas=2, annotations=slow))["metadata"]["uid"]
    lab.until("two new ones", lambda: len(uids(lab.pods()) - old) == 2)
    assert old & uids(lab.pods(live=False)), "their names were free already"
    lab.until("the old ones gone", lambda: not old & uids(lab.pods(live=False)))
    pods = lab.until_serving(2)
    assert {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods} == {again}
    lab.until_verdict("Ready", "True/Serving")
    lab.stays("two", lambda: len(lab.pods(live=False)) == 2, 2)


def test_a_broken_object_does_not_hold_up_its_neighbours(lab: Lab):
    lab.start()
    quantity = {"containers": [{"name": "engine", "resources": {"limits": {"cpu": "many"}}}]}
    for number in range(3):
        lab.apply(manifest(f"bad-{number}", replicas=2, template={"spec": quantity}))
    lab.apply(manifest("good", replicas=2))
    lab.until_serving(2, "good")
    for number in range(3):
        lab.until_verdict("Ready", "False/ApplyRejected", f"bad-{number}")


def test_status_that_somebody_else_wrote_is_put_right(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1))
    lab.until_serving(1)
    nonsense = {"status": {"readyReplicas": 77, "desiredReplicas": 50, "conditions": []}}
    lab.client.patch(
        f"/apis/stoker.dev/v1alpha1/namespaces/{lab.namespace}/modeldeployments/llm/status",
        content=json.dumps(nonsense),
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
    lab.until_verdict("Ready", "True/Serving")
    lab.until("right again", lambda: lab.status()["readyReplicas"] == lab.status()["desiredReplicas"] == 1)
    assert len(lab.pods(live=False)) == 1
