"""The fleet that is measured: namespaces, ModelDeployments, and how many of them are Ready."""

import time
from collections.abc import Callable, Iterable, Iterator

from bench.controller import bulk
from bench.controller.background import Background
from testbed.access import Access, PlaneError

NAMESPACES = 10
REPLICAS = 4
MOST_REPLICAS = 6
"""The bound for scaling; what the nodes have room for."""
MANAGED = "app.kubernetes.io/managed-by=stoker"
COLLECTION = "/apis/stoker.dev/v1alpha1/modeldeployments"
REQUESTS_PER_REPLICA = 10
"""The scaling target: requests in flight."""

SCALING = {
    "minReplicas": REPLICAS,
    "maxReplicas": MOST_REPLICAS,
    "targets": {"concurrentRequests": REQUESTS_PER_REPLICA, "generatedTokensPerSecond": 4000},
}
_POLL_SECONDS = 0.1


def namespaces() -> list[str]:
    """Return the names of the fleet's namespaces."""
    return [f"team-{number}" for number in range(NAMESPACES)]


def keys(size: int) -> list[tuple[str, str]]:
    """Return (namespace, name) of each ModelDeployment of a fleet."""
    return [(f"team-{number % NAMESPACES}", f"model-{number:05}") for number in range(size)]


def manifest(namespace: str, name: str) -> bulk.Object:
    """Return an everyday ModelDeployment: some arguments, an environment, a token, a cache."""
    return {
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"namespace": namespace, "name": name, "labels": {"team": namespace}},
        "spec": {
            "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "secretName": "hf-token"},
            "engine": {
                "args": ["--max-model-len=16384", "--gpu-memory-utilization=0.92"],
                "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "WARNING"}],
            },
            "accelerators": [{"name": "h100", "nodeSelector": {"nvidia.com/gpu.family": "hopper"}}],
            "replicas": REPLICAS,
            "drain": {"timeout": "5m"},
        },
    }


def creations(size: int) -> Iterator[bulk.Request]:
    """Yield the requests that create a fleet, its namespaces apart."""
    for namespace, name in keys(size):
        yield bulk.Request("POST", _path(namespace), manifest(namespace, name))


def switches_to_scaling(size: int) -> Iterator[bulk.Request]:
    """Yield the requests that let Prometheus' answers decide instead of `replicas`."""
    patch = {"spec": {"replicas": None, "scaling": SCALING}}
    for namespace, name in keys(size):
        yield bulk.Request("PATCH", f"{_path(namespace)}/{name}", patch, bulk.MERGE_PATCH)


def _path(namespace: str) -> str:
    return f"/apis/stoker.dev/v1alpha1/namespaces/{namespace}/modeldeployments"


class Readiness(Background):
    """Follows the statuses of a fleet; use it as a context manager.

    Args:
        plane: where the fleet is.
        is_done: whether a ModelDeployment counts.
    """

    def __init__(self, plane: Access, is_done: Callable[[bulk.Object], bool]) -> None:
        super().__init__()
        self._plane = plane
        self._is_done = is_done
        self._done: set[str] = set()

    async def work(self) -> None:
        """See `Background`."""
        async with bulk.session(self._plane) as client:
            async for change in bulk.watch(client, COLLECTION):
                uid = change.obj["metadata"]["uid"]
                if not change.gone and self._is_done(change.obj):
                    self._done.add(uid)
                else:
                    self._done.discard(uid)

    @property
    def count(self) -> int:
        """How many count now."""
        return len(self._done)

    def wait(self, size: int, seconds: float, seen: Callable[[int], None]) -> None:
        """Wait until `size` of them count; `seen` is told the number on the way.

        Raises:
            PlaneError: they did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while self.count < size:
            self.check()
            if time.monotonic() > deadline:
                raise PlaneError(f"{self.count} of {size} ModelDeployments after {seconds:.0f} s")
            seen(self.count)
            time.sleep(_POLL_SECONDS)
        seen(self.count)


def ready(obj: bulk.Object) -> bool:
    """Whether all replicas of a ModelDeployment serve, and its status says so of this very spec."""
    status = obj.get("status", {})
    current = status.get("observedGeneration") == obj["metadata"]["generation"]
    return current and status.get("readyReplicas") == REPLICAS and _true(status, "Ready")


def scaling_on_metrics(obj: bulk.Object) -> bool:
    """Whether the operator has fresh metrics of every replica of a ModelDeployment."""
    return _true(obj.get("status", {}), "ScalingActive")


def _true(status: bulk.Object, kind: str) -> bool:
    conditions: Iterable[bulk.Object] = status.get("conditions", ())
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
