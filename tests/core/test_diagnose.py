"""Diagnosis against the statuses that a real kubelet published for 48 pods; phases; whole fleets."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import ReplicaPhase
from stoker.core.diagnose import MAX_MESSAGE, diagnose, diagnose_pod, phase
from stoker.core.readings import Key
from tests.core.diagnosis_lab import (
    NOW,
    a_pod,
    at,
    condition,
    container,
    crashed,
    created,
    every_status,
    found,
    recorded,
    unschedulable,
)

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
