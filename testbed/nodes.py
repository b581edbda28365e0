"""Simulated GPU nodes: what NVIDIA's device plug-in and feature discovery publish, with kwok as the kubelet.

A node is capacity, labels and an annotation that hands it to kwok; the Stages in `testbed/stages` do the
rest. Labels and values follow NVIDIA's gpu-feature-discovery (`nvidia.com/gpu.*`), in which the spaces of a
product's name become dashes and memory is in MiB.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import httpx

from testbed.access import Access, PlaneError

READY_SECONDS = 60.0
_CONNECTIONS = 16
_KUBELET = "v1.37.1"


class Request(NamedTuple):
    """One request to the API server."""

    method: str
    path: str
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as feature discovery describes it.

    Attributes:
        product: value of `nvidia.com/gpu.product`.
        memory: of one GPU, in MiB, as nvidia-smi reports it.
        family: architecture.
        compute: compute capability, major and minor.
        driver: CUDA version that the driver supports, major.
    """

    product: str
    memory: int
    family: str
    compute: tuple[int, int]
    driver: int = 13


B200 = Gpu("NVIDIA-B200", 183359, "blackwell", (10, 0))
H200 = Gpu("NVIDIA-H200", 143771, "hopper", (9, 0))
H100 = Gpu("NVIDIA-H100-80GB-HBM3", 81559, "hopper", (9, 0))
A100 = Gpu("NVIDIA-A100-SXM4-80GB", 81920, "ampere", (8, 0))
L40S = Gpu("NVIDIA-L40S", 46068, "ada-lovelace", (8, 9))
L4 = Gpu("NVIDIA-L4", 23034, "ada-lovelace", (8, 9))


def gpu_node(
    name: str, gpu: Gpu = H100, gpus: int = 8, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the manifest of a node with `gpus` GPUs of one kind; `labels` come on top of discovery's."""
    resources = {"cpu": "192", "memory": "2Ti", "ephemeral-storage": "10Ti", "pods": "250"}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {**_system_labels(name), **(_gpu_labels(gpu, gpus) if gpus else {}), **(labels or {})},
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "Hostname", "address": name},
                {"type": "InternalIP", "address": "127.0.0.1"},
            ],
            "nodeInfo": _node_info(),
            "conditions": _conditions(datetime.now(UTC)),
        },
    }


def _system_labels(name: str) -> dict[str, str]:
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "simulated",
    }


def _gpu_labels(gpu: Gpu, gpus: int) -> dict[str, str]:
    labels = {
        "gpu.present": "true",
        "gpu.product": gpu.product,
        "gpu.count": str(gpus),
        "gpu.memory": str(gpu.memory),
        "gpu.family": gpu.family,
        "gpu.compute.major": str(gpu.compute[0]),
        "gpu.compute.minor": str(gpu.compute[1]),
        "gpu.machine": "simulated",
        "gpu.replicas": "1",
        "gpu.sharing-strategy": "none",
        "mig.capable": str(gpu.compute >= (8, 0) and gpu.family != "ada-lovelace").lower(),
        "mig.strategy": "single",
        "cuda.driver-version.major": str(gpu.driver),
    }
    return {f"nvidia.com/{key}": value for key, value in labels.items()}


def _node_info() -> dict[str, str]:
    return {
        "architecture": "amd64",
        "bootID": "",
        "containerRuntimeVersion": "kwok",
        "kernelVersion": "kwok",
        "kubeProxyVersion": "",
        "kubeletVersion": _KUBELET,
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "simulated",
        "systemUUID": "",
    }


def _conditions(now: datetime) -> list[dict[str, str]]:
    """Return the conditions of a healthy node: with thousands of nodes this saves kwok one patch each."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    states = (
        ("Ready", "True", "KubeletReady"),
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("NetworkUnavailable", "False", "RouteCreated"),
    )
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": stamp,
        }
        for kind, status, reason in states
    ]


def create_nodes(
    plane: Access,
    count: int,
    *,
    gpu: Gpu = H100,
    gpus: int = 8,
    prefix: str = "gpu",
    labels: dict[str, str] | None = None,
) -> list[str]:
    """Create `count` nodes named `<prefix>-0000` onwards, wait until all are Ready, and return their names.

    Nodes that are there already are left as they are.

    Raises:
        PlaneError: the API server refused a node, or one was not Ready after a minute (and 20 ms per node).
    """
    names = [f"{prefix}-{number:04}" for number in range(count)]
    requests = [Request("POST", "/api/v1/nodes", gpu_node(name, gpu, gpus, labels)) for name in names]
    _send_all(plane, requests, tolerated=httpx.codes.CONFLICT)
    wait_ready(plane, names)
    return names


def remove_nodes(plane: Access, names: Iterable[str]) -> None:
    """Delete nodes, as when machines are given back; their pods are collected within a minute."""
    requests = [Request("DELETE", f"/api/v1/nodes/{name}") for name in names]
    _send_all(plane, requests, tolerated=httpx.codes.NOT_FOUND)


def cordon(plane: Access, name: str, *, on: bool = True) -> None:
    """Make a node unschedulable, or schedulable again."""
    with plane.client() as client:
        _accepted(_patch(client, name, {"spec": {"unschedulable": on or None}}))


def wait_ready(plane: Access, names: Sequence[str]) -> None:
    """Wait until every node of `names` is Ready and free of the not-ready taint.

    Raises:
        PlaneError: one was not after a minute (and 20 ms per node); the message names the first few.
    """
    deadline = time.monotonic() + READY_SECONDS + 0.02 * len(names)
    with plane.client() as client:
        while missing := set(names) - _ready_nodes(client):
            if time.monotonic() > deadline:
                some = ", ".join(sorted(missing)[:5])
                raise PlaneError(f"{len(missing)} of {len(names)} nodes not Ready: {some}; is kwok at work?")
            time.sleep(0.2)


def _ready_nodes(client: httpx.Client) -> set[str]:
    answer = _accepted(client.get("/api/v1/nodes", params={"resourceVersion": "0"}))
    return {node["metadata"]["name"] for node in answer.json()["items"] if _is_ready(node)}


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
    taints = {taint["key"] for taint in node["spec"].get("taints", ())}
    return conditions.get("Ready") == "True" and "node.kubernetes.io/not-ready" not in taints


def _send_all(plane: Access, requests: Sequence[Request], tolerated: int) -> None:
    """Send requests over a few connections; `tolerated` is a status that counts as done already."""
    with ThreadPoolExecutor(1) as thread:  # of its own, since the caller may be inside an event loop
        thread.submit(asyncio.run, _send_concurrently(plane, requests, tolerated)).result()


async def _send_concurrently(plane: Access, requests: Sequence[Request], tolerated: int) -> None:
    headers = {"Authorization": f"Bearer {plane.admin_token}"}
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=ssl.create_default_context(cafile=str(plane.ca)))

    async with aiohttp.ClientSession(plane.url, headers=headers, connector=connector) as session:

        async def send(request: Request) -> None:
            async with session.request(request.method, request.path, json=request.body) as answer:
                if not answer.ok and answer.status != tolerated:
                    raise PlaneError(f"{request.method} {request.path}: {await answer.text()}")

        await asyncio.gather(*map(send, requests))


def _patch(client: httpx.Client, name: str, patch: dict[str, Any]) -> httpx.Response:
    headers = {"Content-Type": "application/merge-patch+json"}
    return client.patch(f"/api/v1/nodes/{name}", json=patch, headers=headers)


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    raise PlaneError(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
