"""All kubelets in one: every pod that has a node becomes Running and Ready, with one patch each.

kwok's Stages do it too, at some 26 pods a second; this writer does several hundred. A real kubelet writes a
pod's status three or four times on the way to Ready: the operator sees fewer events here than in a cluster.
"""

import asyncio
import itertools
from datetime import UTC, datetime
from ipaddress import IPv4Address

from aiohttp import ClientSession

from bench.controller import bulk
from bench.controller.background import Background
from testbed.access import Access

_FIRST_ADDRESS = IPv4Address("10.128.0.1")
"""Nobody is asked at these addresses: outside of the plane's Service range and of any loopback."""


class Kubelets(Background):
    """Plays the kubelet of every node; use it as a context manager.

    Args:
        plane: whose pods.
        labels: selector of the pods.
    """

    def __init__(self, plane: Access, labels: str) -> None:
        super().__init__()
        self._plane = plane
        self._labels = labels
        self._addresses = itertools.count()

    async def work(self) -> None:
        """See `Background`."""
        waiting: asyncio.Queue[bulk.Object] = asyncio.Queue()
        async with bulk.session(self._plane) as client, asyncio.TaskGroup() as group:
            for _ in range(bulk.CONNECTIONS):
                group.create_task(self._start_pods(client, waiting))
            # Only pods that a node has and no kubelet has touched: a third of the events.
            fields = "spec.nodeName!=,status.phase=Pending"
            async for change in bulk.watch(client, "/api/v1/pods", labels=self._labels, fields=fields):
                if not change.gone:
                    waiting.put_nowait(change.obj)

    async def _start_pods(self, client: ClientSession, waiting: asyncio.Queue[bulk.Object]) -> None:
        while True:
            pod = await waiting.get()
            await bulk.send(client, self._running(pod))

    def _running(self, pod: bulk.Object) -> bulk.Request:
        metadata, spec = pod["metadata"], pod["spec"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        address = str(_FIRST_ADDRESS + next(self._addresses))
        status = {
            "phase": "Running",
            "startTime": now,
            "hostIP": "127.0.0.1",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [*_conditions(now), *_scheduled(pod)],
            "containerStatuses": [_container(container, now) for container in spec["containers"]],
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        return bulk.Request("PATCH", path, {"status": status}, bulk.MERGE_PATCH)


def _conditions(now: str) -> list[bulk.Object]:
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
    return [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds]


def _scheduled(pod: bulk.Object) -> list[bulk.Object]:
    """The scheduler's condition: a merge patch replaces the whole list."""
    return [c for c in pod.get("status", {}).get("conditions", ()) if c["type"] == "PodScheduled"]


def _container(container: bulk.Object, now: str) -> bulk.Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"sha256:{'0' * 64}",
        "containerID": f"containerd://{'0' * 64}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
