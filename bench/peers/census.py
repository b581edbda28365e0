"""Which pods each fleet has and had: births, departures, the bill, and where its gateway may send requests.

Rules of this module:

- A pod counts as a replica from the announcement of its creation until it begins to leave: until it is
  deleted or, with Stoker, taken out of routing to drain. It costs until it is gone.
- A gateway sends to pods that are Ready and not leaving, as the Service of either side would.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bench.peers.fleets import FLEET_LABEL
from testbed.gateway import Gateway
from testbed.kubewatch import KubeReader, Manifest
from testbed.pods import Pod, PodChange

SERVING_LABEL = "stoker.dev/serving"
Counts = list[tuple[float, int]]


@dataclass(slots=True)
class Life:
    """One pod; monotonic seconds."""

    fleet: str
    created: float
    ready: float | None = None
    leaving: float | None = None
    gone: float | None = None


class Census:
    """Follows the pods of fleets.

    Args:
        namespaces: of the fleets.
    """

    def __init__(self, namespaces: Iterable[str]) -> None:
        self.gateways = {namespace: Gateway() for namespace in namespaces}
        self._lives: dict[str, Life] = {}
        self._counts: dict[str, Counts] = defaultdict(list)

    async def follow(self, reader: KubeReader) -> None:
        """Follow for ever."""
        async for change in reader.watch("/api/v1/pods", labels=FLEET_LABEL):
            self.apply(change.manifest, time.monotonic(), gone=change.gone)

    def apply(self, manifest: Manifest, now: float, *, gone: bool = False) -> None:
        """Note what is known of a pod at this moment."""
        pod, metadata = Pod.of(manifest), manifest["metadata"]
        gateway = self.gateways.get(pod.namespace)
        if gateway is None:
            return
        life = self._lives.setdefault(pod.uid, Life(pod.namespace, now))
        leaving = gone or pod.deleting or metadata["labels"].get(SERVING_LABEL) == "false"
        life.ready = life.ready or (now if pod.ready else None)
        life.leaving = (life.leaving or now) if leaving else None
        life.gone = now if gone else None
        gateway.apply(PodChange(pod, gone=leaving))
        self._note(pod.namespace, now)

    def count(self, fleet: str) -> int:
        """Replicas now."""
        counts = self._counts[fleet]
        return counts[-1][1] if counts else 0

    def counts(self, fleet: str, since: float = 0.0) -> Counts:
        """(when, replicas) at `since` and at every change after it."""
        counts = self._counts[fleet]
        before = [count for at, count in counts if at <= since]
        return [(since, before[-1] if before else 0), *((at, n) for at, n in counts if at > since)]

    def births(self, fleet: str, since: float) -> list[float]:
        """When pods were announced, from `since` on, in order."""
        lives = (life for life in self._lives.values() if life.fleet == fleet)
        return sorted(life.created for life in lives if life.created >= since)

    def start_ups(self, fleet: str, since: float) -> list[float]:
        """Seconds from announcement to Ready of the pods that were announced from `since` on."""
        lives = (life for life in self._lives.values() if life.fleet == fleet and life.created >= since)
        return [life.ready - life.created for life in lives if life.ready is not None]

    def pod_seconds(self, fleet: str, start: float, end: float) -> float:
        """Pods times seconds within [start, end], from creation until gone."""
        return sum(
            max(0.0, min(end, life.gone or end) - max(start, life.created))
            for life in self._lives.values()
            if life.fleet == fleet
        )

    def _note(self, fleet: str, now: float) -> None:
        replicas = sum(life.fleet == fleet and life.leaving is None for life in self._lives.values())
        counts = self._counts[fleet]
        if not counts or counts[-1][1] != replicas:
            counts.append((now, replicas))
