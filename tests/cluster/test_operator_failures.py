"""Replicas that fail, vanish or find no place: replaced, waited for, and explained."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from testbed.engines import EngineFleet
from tests.cluster.operator_history import History
from tests.cluster.operator_lab import ANNOTATION, Json, Lab, is_ready, manifest, names, uids

BACKOFF_SECONDS = 10
"""Before the first replacement of a failed pod; it doubles each time."""


def failing(how: str) -> dict[str, str]:
    """Annotations that let a pod fail."""
    return {f"{ANNOTATION}/fail": how, f"{ANNOTATION}/back-off-seconds": "0.5"}


def recover(lab: Lab, pod: Json) -> None:
    """Let a failing pod be well from now on."""
    patch = {"metadata": {"annotations": {f"{ANNOTATION}/fail": None}}}
    lab.patch(f"pods/{pod['metadata']['name']}", patch)


def evict(lab: Lab, pod: Json) -> datetime:
    """End a pod as a kubelet does whose node runs out of disk; when that was."""
    now = datetime.now(UTC).replace(microsecond=0)
    condition = {"status": "False", "reason": "PodFailed", "lastTransitionTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    status = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: ephemeral-storage.",
        "conditions": [{"type": "Ready", **condition}, {"type": "ContainersReady", **condition}],
    }
    lab.patch(f"pods/{pod['metadata']['name']}/status", {"status": status}, kind="strategic-merge")
    return now


def created(pod: Json) -> datetime:
    """When a pod was made."""
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"])


def attempt(pod: Json) -> int:
    """How often in a row this replica was replaced because it failed."""
    return int(pod["metadata"]["annotations"]["stoker.dev/attempt"])


def test_a_pod_deleted_by_hand_is_replaced(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=3, annotations={f"{ANNOTATION}/stop-seconds": "15"}))
    pods = lab.until_serving(3)
    lab.delete(f"pods/{names(pods)[1]}")
    lab.until("another while it still stops", lambda: len(lab.pods(live=False)) == 4)
    lab.until("the pod gone", lambda: uids(pods[1:2]).isdisjoint(uids(lab.pods(live=False))))
    after = lab.until_serving(3)
    assert len(uids(after) & uids(pods)) == 2
    assert len(lab.pods(live=False)) == 3


def test_a_failed_pod_is_replaced_later_each_time(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1))
    (pod,) = lab.until_serving(1)
    for number in range(2):
        failed = evict(lab, pod)
        message = lab.until_verdict("Ready", "False/Evicted")
        assert "ephemeral-storage" in message
        (pod,) = lab.until_serving(1, seconds=90)
        assert attempt(pod) == number + 1
        assert created(pod) - failed >= timedelta(seconds=BACKOFF_SECONDS * 2**number)
        lab.until("the failed one removed", lambda: len(lab.pods(live=False)) == 1)


@pytest.mark.parametrize(
    ("how", "reason", "says"),
    [
        ("image-pull", "ImagePullFailed", "vllm/vllm-openai"),
        ("crash-loop", "CrashLoop", "exit code 1"),
        ("out-of-memory", "OutOfMemory", "more memory"),
    ],
)
def test_why_a_replica_does_not_serve_is_a_condition(lab: Lab, how: str, reason: str, says: str):
    lab.start()
    lab.apply(manifest(replicas=1, annotations=failing(how)))
    message = lab.until_verdict("Ready", f"False/{reason}")
    assert says in message
    (pod,) = lab.pods()
    assert pod["metadata"]["name"] in message
    assert lab.verdict("Available") == f"False/{reason}"
    assert lab.status()["replicaStates"][0]["reason"] == reason
    assert lab.until("a Warning", lambda: lab.events(reason))[0]["type"] == "Warning"
    row = lab.kubectl("get", "modeldeployment", "llm", "--no-headers")
    assert reason in row

    recover(lab, pod)
    lab.until_verdict("Ready", "True/Serving")
    assert uids(lab.serving()) == uids([pod]), "what restarts by itself is not replaced"


def test_a_replica_that_never_becomes_ready_is_told_after_its_start_up_budget(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1, annotations=failing("never-ready")))
    lab.until_verdict("Available", "False/Starting")
    (pod,) = lab.until("it runs", lambda: [p for p in lab.pods() if p["status"]["phase"] == "Running"])
    since = datetime.now(UTC) - timedelta(minutes=41)
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": f"{since:%Y-%m-%dT%H:%M:%SZ}"}
    status = {"status": {"conditions": [condition]}}
    lab.patch(f"pods/{pod['metadata']['name']}/status", status, kind="strategic-merge")
    assert "not ready after 41 min" in lab.until_verdict("Ready", "False/NeverReady")
    recover(lab, pod)
    lab.until_verdict("Ready", "True/Serving")


def test_one_failing_replica_of_three_is_a_word_and_no_alarm(lab: Lab):
    lab.start()
    # It loads for most of the time, and looks like any other that does, but for how it ended before.
    annotations = {**failing("crash-loop"), f"{ANNOTATION}/load-seconds": "3"}
    lab.apply(manifest(scaling={"minReplicas": 2, "maxReplicas": 8}, annotations=annotations))
    pods = lab.until("two pods", lambda: len(lab.pods()) == 2 and lab.pods())
    recover(lab, pods[0])
    lab.until_serving(1)
    lab.until_verdict("Ready", "False/CrashLoop")
    lab.patch("modeldeployments/llm", {"spec": {"scaling": {"minReplicas": 1}}})
    lab.until_verdict("Ready", "True/Serving")

    def reasons() -> list[str]:
        states = lab.status()["replicaStates"]
        return [s.get("reason", "") for s in states if s["phase"] != "Serving"]

    lab.stays("a crash loop through its restarts", lambda: reasons() == ["CrashLoop"], 6)


def test_where_no_node_fits_one_pod_waits_and_no_more_are_made(
    lab: Lab, engines: EngineFleet, own_node: Callable[[], Json]
):
    lab.start()
    accelerators = [own_node()]
    lab.apply(manifest(replicas=3, accelerators=accelerators))
    message = lab.until_verdict("CapacityGranted", "False/InsufficientGPUs")
    assert message.startswith("2 of 3 replicas have a place")
    lab.until_serving(2)
    with History(lab.plane, lab.namespace) as history:
        lab.kubectl("scale", "modeldeployment/llm", "--replicas=7")
        lab.until("seen", lambda: "2 of 7" in lab.condition("CapacityGranted")["message"])
        lab.stays("one pod that waits", lambda: len(lab.pods()) == 3, 4)
    assert max(history.counts(lambda _: True)) == 3
    status = lab.status()
    assert (status["desiredReplicas"], status["grantedReplicas"], status["readyReplicas"]) == (7, 2, 2)

    own_node()
    lab.until_serving(4)
    lab.until("the next shortage", lambda: "4 of 7" in lab.condition("CapacityGranted")["message"])
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=4")
    lab.until_verdict("CapacityGranted", "True/Granted")
    lab.until("those that waited gone", lambda: all(map(is_ready, lab.pods(live=False))))
    assert len(lab.serving()) == 4


def test_a_label_that_no_node_has_is_named(lab: Lab):
    lab.start()
    anywhere = [{"operator": "Exists"}]  # other tests' tainted nodes must not be the reason
    accelerator = {"nodeSelector": {"no-such": "label"}, "tolerations": anywhere}
    lab.apply(manifest(replicas=1, accelerators=[accelerator]))
    lab.until_verdict("CapacityGranted", "False/NoSuchNode")
    lab.until_verdict("Ready", "False/NoSuchNode")
    lab.apply(manifest(replicas=1))
    lab.until_verdict("Ready", "True/Serving")
    lab.until("the pod that waited gone", lambda: len(lab.pods(live=False)) == 1)
