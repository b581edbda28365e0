"""Diagnosis against the statuses that a real kubelet published for 48 pods, and against what those lack."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stoker.api import meta
from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import ReplicaPhase
from stoker.core import checks
from stoker.core.diagnose import MAX_MESSAGE, Finding, diagnose, diagnose_pod, phase
from stoker.core.observed import ContainerStatus, Key, Pod, PodCondition, pod_from, timestamp

FIXTURE = Path(__file__).parents[1] / "fixtures" / "pod-statuses.json"
NOW = 1_800_000_000.0


@cache
def recorded() -> dict[str, list[dict[str, Any]]]:
    return {name: pod["transitions"] for name, pod in json.loads(FIXTURE.read_text())["pods"].items()}


@cache
def created(name: str) -> float:
    """Unix seconds. The recording has the times of conditions only; the first is that of creation."""
    times = [
        timestamp(c["lastTransitionTime"])
        for t in recorded()[name]
        for c in t["status"].get("conditions", [])
    ]
    return min((t for t in times if t is not None), default=NOW)


def observed(name: str, transition: dict[str, Any]) -> Pod:
    scheduled = any(
        c["type"] == "PodScheduled" and c["status"] == "True"
        for c in transition["status"].get("conditions", [])
    )
    pod = pod_from(
        {
            "metadata": {
                "name": name.rpartition("/")[2],
                "namespace": "default",
                "creationTimestamp": datetime.fromtimestamp(created(name), UTC).isoformat(),
                "labels": {meta.LABEL_MODEL_DEPLOYMENT: "demo", meta.LABEL_SERVING: "true"},
                "deletionTimestamp": transition.get("deletionTimestamp"),
            },
            "spec": {"nodeName": "real-0"} if scheduled else {},
            "status": transition["status"],
        }
    )
    assert pod is not None
    return pod


def at(name: str, seconds: float) -> Pod:
    """The pod as it was so many seconds after its creation."""
    *_, last = [t for t in recorded()[name] if t["t_s"] <= seconds]
    return observed(name, last)


def every_status() -> Iterator[tuple[Pod, float]]:
    for name, transitions in recorded().items():
        for transition in transitions:
            yield observed(name, transition), created(name) + transition["t_s"]


PENDING, LOADING, SERVING = ReplicaPhase.PENDING, ReplicaPhase.LOADING, ReplicaPhase.SERVING
FAILED, STOPPING = ReplicaPhase.FAILED, ReplicaPhase.STOPPING

TABLE: list[tuple[str, float, ReplicaPhase, Reason | None, tuple[str, ...]]] = [
    # (pod, seconds after creation, phase, reason, words of the message)
    # On their way, or serving: nothing to say.
    ("ok", 0.0, PENDING, None, ()),
    ("ok", 0.6, PENDING, None, ()),
    ("ok", 5, LOADING, None, ()),
    ("ok", 60, SERVING, None, ()),
    ("run2/ok", 5, LOADING, None, ()),
    ("run2/ok", 60, SERVING, None, ()),
    ("ok1", 60, SERVING, None, ()),
    ("load", 600, LOADING, None, ()),
    ("vols", 60, SERVING, None, ()),
    ("oomchild", 60, SERVING, None, ()),  # the kernel killed a child: the kubelet does not know
    ("g3", 30, SERVING, None, ()),
    ("run2/onfake", 3, PENDING, None, ()),
    ("run2/onfake", 60, SERVING, None, ()),
    ("run2/dep-7d8cf59ff6-rqqhz", 1, LOADING, None, ()),
    ("run2/dep-7d8cf59ff6-rqqhz", 60, SERVING, None, ()),
    # The engine has waited longer than it may.
    ("load", 2500, FAILED, Reason.NEVER_READY, ("not ready after 42 min", "m is running")),
    ("pullslow", 2500, FAILED, Reason.NEVER_READY, ("m is waiting ContainerCreating",)),
    ("pullslow", 30, PENDING, None, ()),
    # Deleted by Stoker: nothing is wrong.
    ("d1", 10, STOPPING, None, ()),
    ("d1", 22, STOPPING, None, ()),
    ("d2", 15, STOPPING, None, ()),  # killed at the end of its grace period
    ("d3", 9, STOPPING, None, ()),
    ("g2", 166, STOPPING, None, ()),
    ("g3", 55, STOPPING, None, ()),
    # No node takes the pod.
    ("unsched", 1, PENDING, Reason.INSUFFICIENT_GPUS, ("1 without enough free nvidia.com/gpu", "Add nodes")),
    ("unsched", 166, PENDING, Reason.UNSCHEDULABLE, ("1 cordoned", "Uncordon")),
    ("unsched", 500, PENDING, Reason.INSUFFICIENT_GPUS, ("2 without enough free nvidia.com/gpu",)),
    ("unsched", 590, STOPPING, None, ()),
    ("nosel", 1, PENDING, Reason.NO_SUCH_NODE, ("1 without the labels", "nodeSelector")),
    ("nosel", 284.8, PENDING, Reason.UNSCHEDULABLE, ("1 with a taint", "tolerations")),
    ("nosel", 300, SERVING, None, ()),
    (
        "nopvc",
        1,
        PENDING,
        Reason.CONFIG_MISSING,
        ("PersistentVolumeClaim 'weights'", "does not exist", "Create it"),
    ),
    (
        "g2",
        10,
        PENDING,
        Reason.INSUFFICIENT_GPUS,
        ("1 without enough free nvidia.com/gpu, 1 without the labels",),
    ),
    ("high", 0.1, PENDING, Reason.INSUFFICIENT_GPUS, ("nvidia.com/gpu",)),
    ("dep-6df74588d8-2pjnh", 1, PENDING, Reason.UNSCHEDULABLE, ("1 cordoned",)),
    ("dep-6df74588d8-2pjnh", 5.08, PENDING, Reason.UNSCHEDULABLE, ("1 with a taint",)),
    ("dep-6df74588d8-bvjpn", 1, PENDING, Reason.INSUFFICIENT_GPUS, ("2 without enough free nvidia.com/gpu",)),
    ("dep-6df74588d8-58767", 1, PENDING, Reason.INSUFFICIENT_GPUS, ("2 without enough free nvidia.com/gpu",)),
    (
        "run2/dep-7d8cf59ff6-z5ccx",
        1,
        PENDING,
        Reason.INSUFFICIENT_GPUS,
        ("1 cordoned", "Add nodes", "uncordon"),
    ),
    # A node took it and then refused it, or the other way round.
    ("outof", 1, FAILED, Reason.INSUFFICIENT_GPUS, ("requested: 8, used: 1, capacity: 8",)),
    ("outof", 700, FAILED, Reason.INSUFFICIENT_GPUS, ("requested: 8",)),
    (
        "g4",
        1,
        FAILED,
        Reason.INSUFFICIENT_GPUS,
        ("Requested: 3, Available: 1", "health of the node's devices"),
    ),
    ("high", 80, FAILED, Reason.INSUFFICIENT_GPUS, ("requested: 5, used: 0, capacity: 0",)),
    ("dep-6df74588d8-2pjnh", 513, FAILED, Reason.INSUFFICIENT_GPUS, ("capacity: 0",)),
    # The image.
    ("neverpull", 3, PENDING, Reason.IMAGE_PULL_FAILED, ("localhost/nope:1", "imagePullPolicy")),
    ("neverpull", 650, PENDING, Reason.IMAGE_PULL_FAILED, ("connection error", "container runtime")),
    (
        "pull",
        4,
        PENDING,
        Reason.IMAGE_PULL_FAILED,
        ("vllm/vllm-openai:v0.9.0", "no such host", "reach the registry"),
    ),
    ("pull", 17, PENDING, Reason.IMAGE_PULL_FAILED, ("vllm/vllm-openai:v0.9.0", "no such host")),
    ("badname", 4, PENDING, Reason.IMAGE_PULL_FAILED, ("Foo::bar", "must be lowercase", "image's name")),
    (
        "tag404",
        2,
        PENDING,
        Reason.IMAGE_PULL_FAILED,
        ("localhost:25000/vllm/x:v9", "not found", "name or tag"),
    ),
    ("pull401", 2, PENDING, Reason.IMAGE_PULL_FAILED, ("401 Unauthorized", "imagePullSecrets")),
    ("pull401", 13, PENDING, Reason.IMAGE_PULL_FAILED, ("401 Unauthorized", "imagePullSecrets")),
    ("pull429", 2, PENDING, Reason.IMAGE_PULL_FAILED, ("429 Too Many Requests", "mirror")),
    ("pull500", 2, PENDING, Reason.IMAGE_PULL_FAILED, ("500 Internal Server Error", "reach the registry")),
    (
        "pullslow",
        48,
        PENDING,
        Reason.IMAGE_PULL_FAILED,
        ("error reading from server: EOF", "container runtime"),
    ),
    # What it needs does not exist.
    ("nosecret", 3, PENDING, Reason.CONFIG_MISSING, ('secret "hf-token" not found', "Create it")),
    ("nosecretvol", 60, PENDING, None, ()),
    ("nosecretvol", 180, PENDING, Reason.CONFIG_MISSING, ("not set up after 3 min", "kubectl describe pod")),
    # It starts and ends.
    ("crash", 4.5, FAILED, Reason.CRASH_LOOP, ("m ended with exit code 3: boom", "kubectl logs --previous")),
    ("crash", 7, FAILED, Reason.CRASH_LOOP, ("exit code 3, restarted 1 time: boom",)),
    ("crash", 17.0, FAILED, Reason.CRASH_LOOP, ("exit code 3, restarted 1 time: boom",)),  # BackOff is shown
    ("crash", 800, FAILED, Reason.CRASH_LOOP, ("restarted 9 times: boom",)),
    ("crash1", 6, FAILED, Reason.CRASH_LOOP, ("exit code 3, restarted 1 time",)),
    ("crash1", 305, STOPPING, None, ()),
    ("oom", 4.63, FAILED, Reason.OUT_OF_MEMORY, ("exit code 137", "memory")),
    ("oom", 800, FAILED, Reason.OUT_OF_MEMORY, ("restarted 10 times",)),
    ("startfail", 5, LOADING, None, ()),
    ("startfail", 12, FAILED, Reason.NEVER_READY, ("exit code 0, restarted 1 time, before it was ready",)),
    ("startfail", 800, FAILED, Reason.NEVER_READY, ("restarted 10 times",)),
    ("live", 20, SERVING, None, ()),
    ("live", 45, FAILED, Reason.CRASH_LOOP, ("exit code 137, restarted 3 times", "stopped from outside")),
    ("nocmd", 5, FAILED, Reason.CRASH_LOOP, ('exec: "/usr/bin/vllm"', "no such file", "Correct the image")),
    ("nocmd", 7, FAILED, Reason.CRASH_LOOP, ("cannot be started", "no such file")),  # BackOff is shown
    ("initfail", 3.5, PENDING, None, ()),
    ("initfail", 4.1, FAILED, Reason.CRASH_LOOP, ("init container dl ended with exit code 22",)),
    ("initfail", 800, FAILED, Reason.CRASH_LOOP, ("dl", "restarted 10 times")),
    ("done", 5, FAILED, Reason.REPLICA_FAILED, ("it is over: m ended with exit code 0",)),
    ("done", 6, FAILED, Reason.REPLICA_FAILED, ("exit code 0",)),
    ("fail", 6, FAILED, Reason.REPLICA_FAILED, ("exit code 1",)),
    ("ok", 800, FAILED, Reason.REPLICA_FAILED, ("exit code 0",)),
    ("deadline", 10, FAILED, Reason.REPLICA_FAILED, ("it is over",)),
    ("deadline", 15, FAILED, Reason.REPLICA_FAILED, ("activeDeadlineSeconds",)),
    # It was taken away, or its node is gone.
    ("evicted", 60, FAILED, Reason.EVICTED, ('"cache" exceeds the limit "16Mi"', "storage.cache.sizeLimit")),
    ("low", 6.5, STOPPING, Reason.EVICTED, ("higher priority",)),
    ("low", 8, STOPPING, Reason.EVICTED, ("higher priority",)),
    ("dep-6df74588d8-jfz25", 9, STOPPING, Reason.EVICTED, ("drain of its node",)),
    ("run2/dep-7d8cf59ff6-njwbt", 31, SERVING, None, ()),  # still routed until it is deleted
    ("run2/dep-7d8cf59ff6-njwbt", 37, STOPPING, Reason.EVICTED, ("drain of its node",)),
    ("ok1", 200, FAILED, Reason.NODE_LOST, ("real-0 has not answered", "Repair or delete the node")),
    ("ok1", 250, SERVING, None, ()),
    (
        "dep-6df74588d8-svsf8",
        510,
        LOADING,
        None,
        (),
    ),  # the kubelet has restarted: a status without conditions
    ("dep-6df74588d8-svsf8", 2600, FAILED, Reason.REPLICA_FAILED, ("exit code 0",)),
]


@pytest.mark.parametrize(
    ("name", "seconds", "where", "reason", "words"), TABLE, ids=[f"{row[0]} at {row[1]} s" for row in TABLE]
)
def test_what_a_real_kubelet_published(
    name: str, seconds: float, where: ReplicaPhase, reason: Reason | None, words: tuple[str, ...]
) -> None:
    pod, now = at(name, seconds), created(name) + seconds
    finding = diagnose_pod(pod, now)
    assert (finding.reason if finding else None) == reason, finding
    assert phase(pod, now) == where
    for word in words:
        assert finding is not None
        assert word in finding.message


def test_every_recorded_pod_is_in_the_table() -> None:
    assert {row[0] for row in TABLE} == set(recorded())


def test_every_message_names_the_pod_and_ends_as_a_sentence() -> None:
    for pod, now in every_status():
        finding = diagnose_pod(pod, now)
        if finding is None:
            continue
        assert finding.pod == pod.key
        assert finding.message.startswith(pod.key.name)
        assert pod.node in finding.message
        assert finding.message.endswith(".")
        assert not finding.message.endswith("..")
        assert len(finding.message) <= MAX_MESSAGE


def test_a_ready_pod_is_never_said_not_to_serve() -> None:
    for pod, now in every_status():
        if pod.ready and not pod.deleting:
            assert diagnose_pod(pod, now) is None
            assert phase(pod, now) is ReplicaPhase.SERVING


# --- What the recording lacks --------------------------------------------------------------------


def container(**fields: Any) -> ContainerStatus:
    return ContainerStatus(**({"name": "engine", "state": "running"} | fields))


def condition(
    kind: str, status: str = "True", reason: str = "", message: str = "", ago: float = 600
) -> PodCondition:
    return PodCondition(kind, status, reason, message, NOW - ago)


def a_pod(*containers: ContainerStatus, **fields: Any) -> Pod:
    """A pod that was scheduled ten minutes ago and is not ready."""
    given: dict[str, Any] = {
        "key": Key("models", "demo-0123abcd-0"),
        "uid": "u",
        "owner": "demo",
        "owner_uid": "o",
        "revision": "0123abcd",
        "ordinal": 0,
        "accelerator": "gpu",
        "serving": True,
        "created_at": NOW - 600,
        "phase": "Running",
        "node": "node-a",
        "conditions": (condition("PodScheduled"), condition("Ready", "False", "ContainersNotReady")),
        "containers": containers,
    }
    return Pod(**(given | fields))


def found(pod: Pod) -> Finding:
    finding = diagnose_pod(pod, NOW)
    assert finding is not None
    return finding


def crashed(message: str, exit_code: int = 1, **fields: Any) -> Pod:
    return a_pod(
        container(state="terminated", exit_code=exit_code, reason="Error", message=message, **fields)
    )


def unschedulable(message: str, reason: str = "Unschedulable") -> Pod:
    return a_pod(phase="Pending", node="", conditions=(condition("PodScheduled", "False", reason, message),))


class TestEngines:
    @pytest.mark.parametrize(
        "words",
        [
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
            "ValueError: Free memory on device cuda:0 is less than desired GPU memory utilization.",
        ],
    )
    def test_gpu_memory_is_told_from_main_memory(self, words: str) -> None:
        finding = found(crashed(words))
        assert finding.reason is Reason.OUT_OF_MEMORY
        assert "GPU memory" in finding.message
        assert "accelerators[].count" in finding.message

    @pytest.mark.parametrize(
        ("words", "remedy"),
        [
            ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "model.secretName"),
            ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "model.uri"),
            ("vllm: error: unrecognized arguments: --max-modle-len", "engine.args"),
            ("OSError: [Errno 28] No space left on device", "storage.cache"),
            ("RuntimeError: The NVIDIA driver on your system is too old", "GPU driver"),
            ("something else", "kubectl logs --previous"),
        ],
    )
    def test_known_last_words_lead_to_a_remedy(self, words: str, remedy: str) -> None:
        finding = found(crashed(words))
        assert finding.reason is Reason.CRASH_LOOP
        assert remedy in finding.message

    def test_the_root_cause_is_quoted_not_the_pointer_to_it(self) -> None:
        log = "ValueError: unsupported head size 7\nRuntimeError: Engine core failed. See root cause above.\n"
        assert "ValueError: unsupported head size 7." in found(crashed(log)).message

    def test_the_last_of_several_errors_is_quoted(self) -> None:
        log = "KeyError: 'a'\n\nDuring handling, another one occurred:\nValueError: b\nbye\n"
        assert "exit code 1: ValueError: b." in found(crashed(log)).message

    def test_an_engine_that_loads_again_after_a_crash_still_shows_it(self) -> None:
        pod = a_pod(
            container(restarts=2, last_exit_code=1, last_message="KeyError: 'x'", last_reason="Error")
        )
        assert "restarted 2 times: KeyError: 'x'" in found(pod).message
        assert phase(pod, NOW) is ReplicaPhase.FAILED

    def test_an_old_crash_of_an_engine_that_is_up_again_is_past(self) -> None:
        up = container(restarts=2, last_exit_code=1, started=True, ready=True)
        assert diagnose_pod(a_pod(up, conditions=(condition("Ready"),)), NOW) is None

    def test_an_engine_that_stops_answering_is_told_from_one_that_never_did(self) -> None:
        silent = a_pod(
            container(started=True),
            conditions=(condition("PodScheduled"), condition("Ready", "False", "ContainersNotReady", ago=90)),
        )
        finding = found(silent)
        assert finding.reason is Reason.REPLICA_FAILED
        assert "has not answered its health check for 90 s, after having served" in finding.message

    def test_a_crash_before_that_is_not_why_it_stops_answering(self) -> None:
        silent = a_pod(
            container(started=True, restarts=1, last_exit_code=1, last_message="KeyError"),
            conditions=(condition("PodScheduled"), condition("Ready", "False", "ContainersNotReady", ago=90)),
        )
        assert found(silent).reason is Reason.REPLICA_FAILED

    def test_the_instant_between_started_and_ready_is_no_fault(self) -> None:
        assert diagnose_pod(a_pod(container(started=True)), NOW) is None

    def test_the_engine_is_named_before_its_sidecars(self) -> None:
        ended = {"state": "terminated", "exit_code": 1}
        pod = a_pod(container(name="a-sidecar", **ended), container(**ended))
        assert ": engine ended" in found(pod).message

    def test_an_init_container_that_is_done_is_no_fault(self) -> None:
        done = container(name="fetch", state="terminated", exit_code=0, reason="Completed")
        assert diagnose_pod(a_pod(container(), init_containers=(done,)), NOW) is None

    def test_init_containers_that_still_work_are_no_fault(self) -> None:
        done = container(name="one", state="terminated", exit_code=0, reason="Completed")
        conditions = (
            condition("PodScheduled"),
            condition("Initialized", "False", "ContainersNotInitialized"),
        )
        pod = a_pod(
            container(state="waiting", reason="PodInitializing"),
            init_containers=(done, container(name="two")),
            conditions=conditions,
        )
        assert diagnose_pod(pod, NOW) is None

    def test_a_pod_that_is_over_tells_what_failed_in_it(self) -> None:
        done = container(name="one", state="terminated", exit_code=0, reason="Completed")
        ended = container(state="terminated", exit_code=1, reason="Error")
        assert (
            "engine ended with exit code 1"
            in found(a_pod(ended, init_containers=(done,), phase="Failed")).message
        )

    def test_a_container_that_may_not_start_as_root_is_not_a_missing_secret(self) -> None:
        message = "container has runAsNonRoot and image will run as root"
        finding = found(
            a_pod(
                container(state="waiting", reason="CreateContainerConfigError", message=message),
                phase="Pending",
            )
        )
        assert finding.reason is Reason.REPLICA_FAILED
        assert message in finding.message

    def test_a_missing_key_of_a_secret_is_named(self) -> None:
        message = "couldn't find key HF_TOKEN in Secret models/hub"
        finding = found(
            a_pod(
                container(state="waiting", reason="CreateContainerConfigError", message=message),
                phase="Pending",
            )
        )
        assert finding.reason is Reason.CONFIG_MISSING
        assert "key HF_TOKEN in Secret models/hub" in finding.message


class TestScheduling:
    @pytest.mark.parametrize(
        ("message", "reason", "words"),
        [
            (
                "0/5 nodes are available: 3 Insufficient cpu, 2 Insufficient memory.",
                Reason.UNSCHEDULABLE,
                ("3 without enough free cpu", "2 without enough free memory", "ower the request for cpu"),
            ),
            (
                "0/3 nodes are available: 1 node(s) had untolerated taint {a}, 2 Insufficient amd.com/gpu.",
                Reason.INSUFFICIENT_GPUS,
                ("2 without enough free amd.com/gpu, 1 with a taint", "accelerators[].tolerations"),
            ),
            (
                "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
                Reason.UNSCHEDULABLE,
                ("where its volume cannot be used", "kubectl describe pvc"),
            ),
            (
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                Reason.UNSCHEDULABLE,
                ("unbound immediate PersistentVolumeClaims",),
            ),
            (
                '0/1 nodes are available: persistentvolumeclaim "weights" is being deleted.',
                Reason.CONFIG_MISSING,
                ("'weights'", "is being deleted"),
            ),
            (
                "no nodes available to schedule pods",
                Reason.UNSCHEDULABLE,
                ("no nodes available to schedule pods",),
            ),
            (
                "0/3 nodes are available: 1 of a kind yet unknown, 2 Insufficient amd.com/gpu.",
                Reason.INSUFFICIENT_GPUS,
                ("2 without enough free amd.com/gpu, 1 that say 'of a kind yet unknown'",),
            ),
            (
                "0/1 nodes are available: 1 of a kind yet unknown.",
                Reason.UNSCHEDULABLE,
                ("of a kind yet unknown",),
            ),
            ("", Reason.UNSCHEDULABLE, ("no node fits",)),
        ],
    )
    def test_the_schedulers_message_is_read(
        self, message: str, reason: Reason, words: tuple[str, ...]
    ) -> None:
        finding = found(unschedulable(message))
        assert finding.reason is reason
        for word in words:
            assert word in finding.message

    def test_the_reason_does_not_depend_on_the_order_of_obstacles(self) -> None:
        parts = [
            "1 Insufficient nvidia.com/gpu",
            "2 node(s) were unschedulable",
            "3 node(s) had untolerated taint(s)",
        ]
        messages = {
            found(unschedulable(f"0/6 nodes are available: {', '.join(order)}.")).message
            for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]])
        }
        assert len(messages) == 1

    def test_what_is_said_of_preemption_is_left_out(self) -> None:
        assert diagnose_pod(at("unsched", 1), NOW) == Finding(
            Reason.INSUFFICIENT_GPUS,
            "unsched: no node fits: 1 without enough free nvidia.com/gpu. "
            "Add nodes with nvidia.com/gpu, or make another fleet smaller.",
            Key("default", "unsched"),
        )

    def test_two_remedies_are_enough(self) -> None:
        message = (
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint, 1 Too many pods."
        )
        finding = found(unschedulable(message))
        assert "1 full of pods" in finding.message
        assert finding.message.endswith("larger nodes; add the taint to accelerators[].tolerations.")

    def test_a_gate_is_named(self) -> None:
        finding = found(unschedulable("", reason="SchedulingGated"))
        assert finding.reason is Reason.UNSCHEDULABLE
        assert "scheduling gate" in finding.message


class TestDepartures:
    @pytest.mark.parametrize(
        ("disruption", "reason", "word"),
        [
            ("DeletionByPodGC", Reason.NODE_LOST, "its node is gone"),
            ("DeletionByTaintManager", Reason.EVICTED, "a taint"),
            ("TerminationByKubelet", Reason.EVICTED, "its node ends it"),
            ("SomethingNew", Reason.EVICTED, "in its own words"),
        ],
    )
    def test_who_takes_it_away_is_named(self, disruption: str, reason: Reason, word: str) -> None:
        target = condition("DisruptionTarget", reason=disruption, message="in its own words")
        finding = found(a_pod(conditions=(target,), deleting_at=NOW + 30))
        assert finding.reason is reason
        assert word in finding.message

    @pytest.mark.parametrize(
        ("reason", "message", "expected"),
        [
            ("OutOfcpu", "Node didn't have enough resource: cpu", Reason.UNSCHEDULABLE),
            ("NodeAffinity", "Predicate NodeAffinity failed", Reason.UNSCHEDULABLE),
            ("UnexpectedAdmissionError", "Pod was rejected: something else", Reason.REPLICA_FAILED),
            ("Terminated", "Pod was terminated in response to imminent node shutdown.", Reason.EVICTED),
            ("Evicted", "The node was low on resource: memory.", Reason.EVICTED),
            ("", "", Reason.REPLICA_FAILED),
            ("SomethingNew", "in its own words", Reason.REPLICA_FAILED),
        ],
    )
    def test_a_failed_pod_says_why(self, reason: str, message: str, expected: Reason) -> None:
        finding = found(a_pod(phase="Failed", reason=reason, message=message))
        assert finding.reason is expected
        assert message.rstrip(".") in finding.message

    def test_a_pod_that_is_over_because_it_was_taken_away_says_so(self) -> None:
        target = condition("DisruptionTarget", reason="TerminationByKubelet")
        ended = container(state="terminated", exit_code=137)
        assert found(a_pod(ended, phase="Failed", conditions=(target,))).reason is Reason.EVICTED

    def test_a_node_that_is_not_lost_is_not_said_to_be(self) -> None:
        # A status without a reason, and no container that was ready: there is nothing to be lost.
        pod = a_pod(container(), conditions=(condition("PodScheduled"), condition("Ready", "False")))
        assert diagnose_pod(pod, NOW) is None


class TestPhase:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"deleting_at": NOW + 30, "drain_started_at": NOW}, ReplicaPhase.STOPPING),
            ({"drain_started_at": NOW}, ReplicaPhase.DRAINING),
            ({"drain_started_at": NOW, "conditions": (condition("Ready"),)}, ReplicaPhase.DRAINING),
            ({"serving": False, "conditions": (condition("Ready"),)}, ReplicaPhase.DRAINING),
            ({"conditions": (condition("Ready"),)}, ReplicaPhase.SERVING),
            ({"phase": "Succeeded"}, ReplicaPhase.FAILED),
            ({"phase": "Pending", "node": "", "conditions": ()}, ReplicaPhase.PENDING),
            ({}, ReplicaPhase.LOADING),
        ],
        ids=str,
    )
    def test_phase(self, fields: dict[str, Any], expected: ReplicaPhase) -> None:
        assert phase(a_pod(container(), **fields), NOW) is expected


class TestFleet:
    def test_nothing_wrong_nothing_found(self) -> None:
        assert diagnose([], NOW) is None
        assert diagnose([a_pod(container())], NOW) is None

    def test_what_only_the_user_can_put_right_comes_first(self) -> None:
        lost = replace(
            unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), key=Key("m", "a")
        )
        broken = replace(crashed("boom"), key=Key("m", "b"))
        pulling = replace(
            a_pod(container(state="waiting", reason="ErrImagePull", message="x"), phase="Pending"),
            key=Key("m", "c"),
        )
        first = diagnose([lost, broken, pulling], NOW)
        second = diagnose([lost, broken], NOW)
        assert first is not None
        assert second is not None
        assert (first.reason, second.reason) == (Reason.IMAGE_PULL_FAILED, Reason.CRASH_LOOP)

    def test_the_order_of_pods_does_not_matter(self) -> None:
        everyone = list(every_status())
        moment = max(now for _, now in everyone)
        pods = [pod for pod, _ in everyone]
        shuffled = random.Random(7).sample(pods, len(pods))
        assert diagnose(shuffled, moment) == diagnose(pods, moment)

    def test_every_reason_that_a_check_can_give_has_a_rank(self) -> None:
        for pod, now in every_status():
            if diagnose_pod(pod, now) is not None:
                assert diagnose([pod], now) == diagnose_pod(pod, now)

    def test_a_very_long_message_is_cut_and_keeps_its_remedy(self) -> None:
        pod = replace(crashed("x" * 5000), node="n" * 253, key=Key("models", "d" * 200))
        message = found(pod).message
        assert len(message) <= MAX_MESSAGE
        assert message.endswith("Read its log with kubectl logs --previous.")


def test_a_very_long_remedy_is_cut_too() -> None:
    resource = "example.com/" + "r" * 700
    message = found(unschedulable(f"0/1 nodes are available: 1 Insufficient {resource}.")).message
    assert len(message) <= MAX_MESSAGE
    assert "Add nodes with example.com/r" in message


def test_a_registrys_words_come_without_their_wrapping() -> None:
    finding = found(at("pull401", 62.4))
    assert "cannot be pulled: connection error" in finding.message


def test_a_kubelet_that_restarts_after_hours_says_nothing_about_its_pods() -> None:
    assert diagnose_pod(a_pod(created_at=NOW - 86_400, conditions=()), NOW) is None


def test_a_start_up_budget_is_over_when_the_kubelet_says_so() -> None:
    waiting = a_pod(container(), created_at=NOW - checks.NEVER_READY_SECONDS, conditions=())
    assert diagnose_pod(replace(waiting, phase="Pending"), NOW) is not None
    assert diagnose_pod(replace(waiting, phase="Pending"), NOW - 1) is None
    assert diagnose_pod(replace(waiting, phase="Pending", created_at=0.0), NOW) is None  # unknown is not 1970
