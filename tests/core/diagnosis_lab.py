"""Pods to diagnose: as a real kubelet published them, and made by hand for what the recording lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from stoker.api import meta
from stoker.core.diagnose import Finding, diagnose_pod
from stoker.core.observed import ContainerStatus, Pod, PodCondition
from stoker.core.parse import pod_from, timestamp
from stoker.core.readings import Key

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
