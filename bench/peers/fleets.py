"""The fleets that are compared, and what a user would apply for each.

Rules of this module:

- Both sides get the same bounds, the same target (requests in flight per replica) and pods with the same
  engine and start-up. Whatever else a side is told stands in its `Contender`, and so in the results.
- A Deployment's pods are killed after their grace period. So that requests under way can end, they stop
  `KEDA_STOP_SECONDS` after their deletion, as with the `preStop: sleep` that serving Deployments have.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Manifest = dict[str, Any]

NAME = "chat"
"""Of every object, and of the served model; fleets differ by their namespace."""
FLEET_LABEL = "bench.stoker.dev/fleet"
SIDE_LABEL = "bench.stoker.dev/side"
GPUS_PER_REPLICA = 1
KEDA_STOP_SECONDS = 30
PORT = 8000
MODEL = "nvidia/Llama-3.1-70B-Instruct-FP8"
"""What the simulated replicas are like: who goes by the name is told the truth."""
ACCELERATOR = "h200"


class Side(StrEnum):
    """Who scales."""

    KEDA = "keda"
    STOKER = "stoker"


@dataclass(frozen=True, slots=True)
class Contender:
    """An autoscaler with everything that it is told beyond bounds and target.

    Attributes:
        name: in results.
        side: who scales.
        settings: KEDA: `trigger` (metadata of the trigger) and further fields of the ScaledObject's spec;
            Stoker: further fields of `spec.scaling`. Empty: the defaults.
        targeted: the fleet's target is stated; otherwise the autoscaler has to know by itself.
    """

    name: str
    side: Side
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    targeted: bool = True


BOTH = frozenset(Side)
KEDA = Contender("KEDA", Side.KEDA)
STOKER = Contender("Stoker", Side.STOKER)


@dataclass(frozen=True, slots=True)
class Fleet:
    """One fleet.

    Attributes:
        namespace: its own.
        contender: who scales it.
        minimum: replicas, at the least and to begin with.
        maximum: replicas, at the most.
        target: requests in flight per replica.
        load_seconds: from the start of a container to Ready.
    """

    namespace: str
    contender: Contender
    minimum: int
    maximum: int
    target: int
    load_seconds: int = 2

    @property
    def query(self) -> str:
        """Requests in flight, as KEDA asks for them and as "visible in Prometheus" is judged."""
        terms = (
            f'sum(vllm:num_requests_{state}{{namespace="{self.namespace}"}})'
            for state in ("running", "waiting")
        )
        return " + ".join(terms)


def manifests(fleet: Fleet, prometheus_url: str) -> list[Manifest]:
    """What is applied for a fleet, its namespace apart."""
    if fleet.contender.side is Side.STOKER:
        return [_model_deployment(fleet)]
    return [_deployment(fleet), _scaled_object(fleet, prometheus_url)]


def settings(fleet: Fleet) -> Manifest:
    """What decides about the number of replicas, as it was applied: for the results."""
    if fleet.contender.side is Side.STOKER:
        return {"spec": {"scaling": _model_deployment(fleet)["spec"]["scaling"]}}
    spec = _scaled_object(fleet, "http://prometheus:9090")["spec"]
    return {"spec": {name: value for name, value in spec.items() if name != "scaleTargetRef"}}


def listed(objects: Sequence[Manifest]) -> str:
    """Return several objects as the text of one, for `kubectl apply`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def namespace(fleet: Fleet) -> Manifest:
    """The fleet's namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fleet.namespace}}


def _pod_labels(fleet: Fleet) -> dict[str, str]:
    return {FLEET_LABEL: fleet.namespace, SIDE_LABEL: fleet.contender.side.value}


def _model_deployment(fleet: Fleet) -> Manifest:
    scaling: Manifest = {"minReplicas": fleet.minimum, "maxReplicas": fleet.maximum}
    if fleet.contender.targeted:
        scaling["targets"] = {"concurrentRequests": fleet.target}
    annotations = {"testbed.stoker.dev/load-seconds": str(fleet.load_seconds)}
    return {
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": fleet.namespace},
        "spec": {
            "model": {"uri": f"hf://{MODEL}"},
            "accelerators": [{"name": ACCELERATOR, "count": GPUS_PER_REPLICA}],
            "scaling": {**scaling, **fleet.contender.settings},
            "template": {"metadata": {"labels": _pod_labels(fleet), "annotations": annotations}},
        },
    }


def _deployment(fleet: Fleet) -> Manifest:
    labels = {"app": NAME, **_pod_labels(fleet)}
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
        "testbed.stoker.dev/load-seconds": str(fleet.load_seconds),
        "testbed.stoker.dev/stop-seconds": str(KEDA_STOP_SECONDS),
    }
    engine = {
        "name": "engine",
        "image": "vllm/vllm-openai",
        "args": ["--model", MODEL, "--served-model-name", NAME],
        "ports": [{"containerPort": PORT}],
        "resources": {"limits": {"nvidia.com/gpu": str(GPUS_PER_REPLICA)}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": fleet.namespace},
        "spec": {
            "replicas": fleet.minimum,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [engine], "terminationGracePeriodSeconds": KEDA_STOP_SECONDS + 10},
            },
        },
    }


def _scaled_object(fleet: Fleet, prometheus_url: str) -> Manifest:
    told = dict(fleet.contender.settings)
    metadata = {"serverAddress": prometheus_url, "query": fleet.query, "threshold": str(fleet.target)}
    trigger = {"type": "prometheus", "metadata": {**metadata, **told.pop("trigger", {})}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": NAME, "namespace": fleet.namespace},
        "spec": {
            "scaleTargetRef": {"name": NAME},
            "minReplicaCount": fleet.minimum,
            "maxReplicaCount": fleet.maximum,
            "triggers": [trigger],
            **told,
        },
    }
