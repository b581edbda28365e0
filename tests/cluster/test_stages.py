"""Simulated kubelets publish pods in the shapes of a real one (kubelet 1.37)."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from testbed.access import Access

Status = dict[str, Any]
PREFIX = "testbed.stoker.dev"


def annotations(**values: str) -> dict[str, str]:
    """Return the testbed's annotations: `load_seconds="1"` becomes `testbed.stoker.dev/load-seconds: "1"`."""
    return {f"{PREFIX}/{key.replace('_', '-')}": value for key, value in values.items()}


class Pods:
    """The test's namespace: creates pods and records every status that a watch receives."""

    def __init__(self, plane: Access, namespace: str, create: Callable[..., str]) -> None:
        self.plane = plane
        self.namespace = namespace
        self.create = create

    def watch(self, name: str, until: Callable[[Status], bool]) -> list[Status]:
        """Return the statuses of a pod from its creation to the first for which `until` holds."""
        seen: list[Status] = []
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        query = {"watch": "1", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "60"}
        with self.plane.client() as client, client.stream("GET", path, params=query, timeout=90) as lines:
            for line in lines.iter_lines():
                event = json.loads(line)
                status = {**event["object"]["status"], "event": event["type"]}
                seen.append(status)
                if until(status):
                    return seen
        pytest.fail(f"not seen within a minute; the last was {json.dumps(seen[-1:])}")

    def annotate(self, name: str, *values: str) -> None:
        self.plane.kubectl("annotate", "--overwrite", "-n", self.namespace, "pod", name, *values)

    def delete(self, name: str) -> None:
        self.plane.kubectl("delete", "-n", self.namespace, "pod", name, "--wait=false")


@pytest.fixture
def pods(plane: Access, namespace: str, create_pod: Callable[..., str]) -> Pods:
    return Pods(plane, namespace, create_pod)


def container(status: Status) -> dict[str, Any]:
    """Return the status of the one container, or an empty one."""
    return status.get("containerStatuses", [{}])[0]


def state(status: Status) -> str:
    """Return the container's state as kubectl shows it: `running`, or the reason why not."""
    for name, value in container(status).get("state", {}).items():
        return value.get("reason", name)
    return "none"


def condition(status: Status, kind: str) -> str:
    """Return the status of a condition, with its reason if it has one."""
    for item in status.get("conditions", ()):
        if item["type"] == kind:
            return ":".join(filter(None, (item["status"], item.get("reason"))))
    return "absent"


def is_ready(status: Status) -> bool:
    return condition(status, "Ready") == "True"


def not_ready(status: Status) -> bool:
    return condition(status, "Ready") == "False:ContainersNotReady"


def story(statuses: list[Status]) -> list[str]:
    """Return the container's states in order, each once per change."""
    words = [state(status) for status in statuses]
    return [word for number, word in enumerate(words) if number == 0 or word != words[number - 1]]


def test_an_engine_is_pulled_loads_and_becomes_ready(pods: Pods):
    # Two seconds: longer than a watch takes to begin.
    pods.create("engine", annotations(image_pull_seconds="2", load_seconds="0.5"))
    statuses = pods.watch("engine", is_ready)
    assert story(statuses)[-2:] == ["ContainerCreating", "running"]

    creating = next(status for status in statuses if state(status) == "ContainerCreating")
    assert creating["phase"] == "Pending"
    assert "podIP" not in creating
    assert creating["hostIP"] == "127.0.0.1"
    assert condition(creating, "PodReadyToStartContainers") == "False:PodSandboxNotReady"
    assert condition(creating, "Ready") == "False:ContainersNotReady"
    assert container(creating)["imageID"] == ""

    loading = next(status for status in statuses if state(status) == "running")
    assert loading["phase"] == "Running"
    assert (container(loading)["started"], container(loading)["ready"]) == (False, False)
    assert condition(loading, "ContainersReady") == "False:ContainersNotReady"
    assert loading["conditions"][-1]["type"] == "PodScheduled"

    ready = statuses[-1]
    assert (container(ready)["started"], container(ready)["ready"]) == (True, True)
    assert container(ready)["restartCount"] == 0
    assert condition(ready, "ContainersReady") == "True"
    assert container(ready)["state"] == container(loading)["state"]


def test_the_pods_address_is_in_the_planes_own_range(pods: Pods, plane: Access):
    pods.create("engine", annotations(load_seconds="0"))
    ready = pods.watch("engine", is_ready)[-1]
    assert ready["podIPs"] == [{"ip": ready["podIP"]}]
    assert ready["podIP"].startswith(plane.pod_cidr.partition(".0.0/")[0] + ".")


def test_relabelling_a_pod_does_not_restart_its_load(pods: Pods, plane: Access):
    pods.create("engine", annotations(load_seconds="2"))
    pods.watch("engine", lambda status: state(status) == "running")
    # Were each change to start the load anew, this would go on until pytest's time limit.
    while "true" not in plane.kubectl(
        "get", "-n", pods.namespace, "pod", "engine", "-o", "jsonpath={.status.containerStatuses[*].ready}"
    ):
        pods.annotate("engine", f"note={time.monotonic()}")


def test_an_image_that_cannot_be_pulled_alternates_between_two_reasons(pods: Pods):
    pods.create("engine", annotations(fail="image-pull", image_pull_seconds="1", back_off_seconds="0.2"))
    errors = 0

    def second_error(status: Status) -> bool:
        nonlocal errors
        errors += state(status) == "ErrImagePull"
        return errors == 2

    statuses = pods.watch("engine", second_error)
    assert story(statuses)[-4:] == ["ContainerCreating", "ErrImagePull", "ImagePullBackOff", "ErrImagePull"]
    assert {status["phase"] for status in statuses} == {"Pending"}
    failed = statuses[-1]
    assert failed["podIP"]
    assert condition(failed, "PodReadyToStartContainers") == "True"
    message = container(failed)["state"]["waiting"]["message"]
    assert message.startswith('rpc error: code = NotFound desc = failed to pull and unpack image "vllm/')
    back_off = next(status for status in statuses if state(status) == "ImagePullBackOff")
    expected = f'Back-off pulling image "vllm/vllm-openai:v0.33.0": ErrImagePull: {message}'
    assert container(back_off)["state"]["waiting"]["message"] == expected


def test_an_image_that_appears_after_all_is_run(pods: Pods):
    pods.create("engine", annotations(fail="image-pull", image_pull_seconds="0.1", load_seconds="0"))
    pods.watch("engine", lambda status: state(status) == "ImagePullBackOff")
    pods.annotate("engine", f"{PREFIX}/fail-")
    assert is_ready(pods.watch("engine", is_ready)[-1])


@pytest.mark.parametrize(
    ("failure", "reason", "code"), [("crash-loop", "Error", 1), ("out-of-memory", "OOMKilled", 137)]
)
def test_a_container_that_exits_is_started_again_and_again(failure: str, reason: str, code: int, pods: Pods):
    pods.create("engine", annotations(fail=failure, load_seconds="0.1", back_off_seconds="0.1"))
    statuses = pods.watch("engine", lambda s: container(s).get("restartCount") == 2 and state(s) == reason)
    assert story(statuses)[-5:] == [reason, "running", reason, "running", reason]
    assert "CrashLoopBackOff" not in story(statuses)

    first = next(status for status in statuses if state(status) == reason)
    assert first["phase"] == "Running"
    assert container(first)["restartCount"] == 0
    assert container(first)["lastState"] == {}
    terminated = container(first)["state"]["terminated"]
    assert (terminated["reason"], terminated["exitCode"]) == (reason, code)
    assert not_ready(first)

    again = next(status for status in statuses if container(status).get("restartCount") == 1)
    assert state(again) == "running"
    assert container(again)["lastState"] == {"terminated": terminated}
    assert (container(again)["started"], container(again)["ready"]) == (False, False)


def test_a_serving_engine_can_be_made_to_crash_and_recovers(pods: Pods):
    pods.create("engine", annotations(load_seconds="0.1"))
    ready = pods.watch("engine", is_ready)[-1]
    pods.annotate("engine", f"{PREFIX}/fail=crash-loop")
    crashed = pods.watch("engine", lambda status: state(status) == "Error")[-1]
    assert not_ready(crashed)
    assert condition(crashed, "ContainersReady") == "False:ContainersNotReady"
    pods.annotate("engine", f"{PREFIX}/fail-")
    recovered = pods.watch("engine", is_ready)[-1]
    assert container(recovered)["restartCount"] >= 1
    assert recovered["podIP"] == ready["podIP"]


def test_an_engine_that_never_becomes_ready_runs(pods: Pods):
    pods.create("engine", annotations(fail="never-ready", load_seconds="0"))
    pods.watch("engine", lambda status: state(status) == "running")
    time.sleep(1)
    pods.annotate("engine", "note=1")
    status = pods.watch("engine", lambda _: True)[-1]
    assert (state(status), status["phase"]) == ("running", "Running")
    assert not_ready(status)


def test_a_serving_engine_can_lose_and_regain_its_readiness(pods: Pods):
    pods.create("engine", annotations(load_seconds="0"))
    pods.watch("engine", is_ready)
    pods.annotate("engine", f"{PREFIX}/fail=never-ready")
    unready = pods.watch("engine", not_ready)[-1]
    assert (container(unready)["started"], container(unready)["ready"]) == (True, False)
    pods.annotate("engine", f"{PREFIX}/fail-")
    pods.watch("engine", is_ready)


@pytest.mark.parametrize("fail", ["image-pull", "crash-loop", "never-ready", "nothing"])
def test_a_deleted_pod_goes_away_whatever_its_state(fail: str, pods: Pods):
    pods.create("engine", annotations(fail=fail, load_seconds="0", image_pull_seconds="0"))
    pods.watch("engine", lambda status: state(status) not in {"none", "ContainerCreating"})
    pods.delete("engine")
    gone = pods.watch("engine", lambda status: status["event"] == "DELETED")[-1]
    assert gone["phase"] in {"Pending", "Running"}


def test_a_serving_engine_stays_ready_until_it_has_stopped(pods: Pods):
    pods.create("engine", annotations(load_seconds="0", stop_seconds="1"))
    pods.watch("engine", is_ready)
    pods.delete("engine")
    statuses = pods.watch("engine", lambda status: status["event"] == "DELETED")
    assert len(statuses) >= 2  # seen with its deletion time stamp, before it went
    assert all(map(is_ready, statuses))


def test_stopping_takes_no_longer_than_the_grace_period(pods: Pods, plane: Access):
    pods.create("engine", annotations(load_seconds="0", stop_seconds="600"))
    pods.watch("engine", is_ready)
    plane.kubectl("delete", "-n", pods.namespace, "pod", "engine", "--grace-period=1", "--timeout=30s")


def test_nonsense_in_an_annotation_falls_back_to_the_default(pods: Pods):
    pods.create("engine", annotations(load_seconds="soon", image_pull_seconds="?", fail="perhaps"))
    pods.watch("engine", is_ready)


def test_a_pod_that_finds_no_gpu_is_pending_unschedulable(pods: Pods):
    pods.create("engine", gpus=9)
    status = pods.watch("engine", lambda s: condition(s, "PodScheduled").startswith("False"))[-1]
    assert condition(status, "PodScheduled") == "False:Unschedulable"
    assert "Insufficient nvidia.com/gpu" in status["conditions"][0]["message"]
    assert "containerStatuses" not in status
