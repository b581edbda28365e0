"""Builders of the records that decisions read, shared by all tests: what a test does not say is ordinary.

Times are seconds; `NOW` is the present of a test that does not choose its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from stoker.core import resources
from stoker.core.engines import engine_for
from stoker.core.observed import ContainerStatus, ModelDeployment, Pod, PodCondition, Snapshot
from stoker.core.parse import deployment_from
from stoker.core.readings import (
    Fresh,
    Key,
    MetricNames,
    Metrics,
    Missing,
    PodMetrics,
    Reading,
    Series,
    Signal,
)

NOW = 1_800_000_000.0
"""A whole second, far from any real clock."""
LONG_AGO = NOW - 7200.0
NAMESPACE = "models"
KEY = Key(NAMESPACE, "llama")
UID = "uid-llama"
FULL = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. preemption: not helpful."
"""What the scheduler says of a pod when every GPU is taken."""


def manifest(name: str = KEY.name, *, uid: str = "", generation: int = 1, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment as the API server sends it."""
    return {
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid or f"uid-{name}",
            "generation": generation,
            "resourceVersion": "1",
            "creationTimestamp": "2027-01-15T06:00:00Z",
        },
        "spec": {"model": {"uri": "hf://org/name"}, **spec},
    }


def deployment(name: str = KEY.name, *, status: Any = None, **spec: Any) -> ModelDeployment:
    """A parsed ModelDeployment; `spec` by its field names in the API."""
    record = deployment_from(manifest(name, **spec))
    return record if status is None else replace(record, status=status)


def pod(ordinal: int = 0, *, of: ModelDeployment | None = None, **fields: Any) -> Pod:
    """A replica that has served for long; `of` gives it that deployment's name, owner and revision."""
    owner = of.key if of is not None else KEY
    revision = fields.pop("revision", of.revision if of is not None else "aaaaaaaa")
    name = fields.pop("name", f"{owner.name}-{revision}-{ordinal}")
    ready_since = fields.pop("ready_since", LONG_AGO)
    known = {
        "key": Key(owner.namespace, name),
        "uid": f"uid-{name}",
        "owner": owner.name,
        "owner_uid": of.uid if of is not None else UID,
        "revision": revision,
        "ordinal": ordinal,
        "accelerator": "gpu",
        "serving": True,
        "created_at": LONG_AGO,
        "phase": "Running",
        "node": "node-1",
        "ip": "10.0.0.1",
        "port": 8000,
        "conditions": (
            PodCondition("PodScheduled", "True", since=LONG_AGO),
            PodCondition("Ready", "True", since=ready_since),
        ),
        "containers": (ContainerStatus("engine", ready=True, started=True, state="running"),),
    }
    return Pod(**(known | fields))


def loading(ordinal: int = 0, **fields: Any) -> Pod:
    """A replica whose engine runs and loads."""
    created = fields.setdefault("created_at", NOW - 30)
    conditions = (
        PodCondition("PodScheduled", "True", since=created),
        PodCondition("Ready", "False", "ContainersNotReady", since=created),
    )
    containers = (ContainerStatus("engine", state="running"),)
    return pod(ordinal, **({"conditions": conditions, "containers": containers} | fields))


def pending(ordinal: int = 0, **fields: Any) -> Pod:
    """A replica that the scheduler has not placed yet, nor refused."""
    fields.setdefault("created_at", NOW - 1)
    return pod(
        ordinal, **({"phase": "Pending", "node": "", "ip": "", "conditions": (), "containers": ()} | fields)
    )


def unschedulable(ordinal: int = 0, *, since: float = NOW - 30, message: str = FULL, **fields: Any) -> Pod:
    """A replica that fits on no node."""
    condition = PodCondition("PodScheduled", "False", "Unschedulable", message, since)
    return pending(ordinal, **({"created_at": since, "conditions": (condition,)} | fields))


def failed(ordinal: int = 0, *, at: float = NOW - 60, **fields: Any) -> Pod:
    """A replica whose pod failed for good at `at`."""
    ended = ContainerStatus("engine", state="terminated", reason="Error", exit_code=1)
    conditions = (PodCondition("Ready", "False", "PodFailed", since=at),)
    known = {"phase": "Failed", "created_at": at - 60, "conditions": conditions, "containers": (ended,)}
    return pod(ordinal, **(known | fields))


def draining(ordinal: int = 0, *, since: float = NOW - 30, **fields: Any) -> Pod:
    """A replica that is out of routing and finishes its requests."""
    return pod(
        ordinal, **({"serving": False, "drain_started_at": since, "drain_reason": "scale-in"} | fields)
    )


def deleting(ordinal: int = 0, **fields: Any) -> Pod:
    """A replica whose deletion the API server has accepted."""
    return pod(ordinal, **({"deleting_at": NOW + 600} | fields))


def readings(at: float = NOW, **values: float | Reading) -> PodMetrics:
    """One pod's readings by the signals' names in Python: numbers are fresh."""
    return PodMetrics(
        {
            Signal[name.upper()]: Fresh(v, at) if isinstance(v, int | float) else v
            for name, v in values.items()
        }
    )


def load(running: float = 0.0, *, at: float = NOW, **others: float | Reading) -> PodMetrics:
    """Everything that vLLM publishes, fresh; zero but for what is given."""
    zero = dict.fromkeys(("generated_tokens", "prompt_tokens", "requests", "waiting"), 0.0)
    return readings(at, **{**zero, "running": running, **others})


def silent(why: str = "no series") -> PodMetrics:
    """A pod of which Prometheus knows nothing."""
    return PodMetrics(dict.fromkeys(Signal, Missing(why)))


def metrics(pods: Mapping[Pod, PodMetrics], *, at: float = NOW, failure: str | None = None) -> Metrics:
    """Everything that Prometheus said."""
    return Metrics(at=at, pods={p.key: m for p, m in pods.items()}, failure=failure)


def snapshot(
    *deployments: ModelDeployment, pods: Iterable[Pod] = (), now: float = NOW, **fields: Any
) -> Snapshot:
    """A snapshot; pods go to their owners by label, Services are as they should be unless given."""
    known = {d.key: d for d in deployments}
    by_owner: dict[Key, list[Pod]] = {}
    for p in pods:
        by_owner.setdefault(Key(p.key.namespace, p.owner), []).append(p)
    return Snapshot(now=now, deployments=known, pods={k: tuple(v) for k, v in by_owner.items()}, **fields)


def revision_of(deployment: ModelDeployment) -> str:
    """The revision that a deployment's spec asks for."""
    assert deployment.spec is not None
    return resources.revision(deployment.key.name, deployment.spec)


def vllm() -> Any:
    """vLLM's metric names."""
    spec = deployment().spec
    assert spec is not None
    return engine_for(spec).metrics


def custom_metrics() -> MetricNames:
    """The metric names of an engine that publishes little, over a long window."""
    return MetricNames(
        path="/metrics",
        series={Signal.RUNNING: (Series("busy"),), Signal.REQUESTS: (Series("served_total"),)},
        first_token="ttft_seconds",
        rate_window_seconds=300.0,
    )
