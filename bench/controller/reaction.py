"""From demand that can be seen in Prometheus to the pod that answers it.

Each sample lets another ModelDeployment's demand jump far above what its replicas carry, at a random moment
of the operator's interval, and takes four times: when Prometheus first answers with the demand, when the
operator began the round of queries that saw it, when it had that answer, and when the API server announced
the new pod.
"""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from bench.controller import bulk, fleet
from bench.controller.background import Background
from bench.controller.exposition import RUNNING, Exposition, PodName
from bench.controller.phases import Bench
from bench.controller.relay import Relay
from bench.controller.results import Figures, spread
from bench.controller.usage import load_average
from testbed.access import Access, PlaneError

FIRST_SURGE = 12_001
"""Requests in flight: a number that no other sample has, so that it can be recognised in an answer."""
INTERVAL_SECONDS = 5.0
"""The operator's default interval."""
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Reaction:
    """One sample, in seconds of the monotonic clock."""

    visible: float
    asked: float
    answered: float
    created: float


class Births(Background):
    """When each new pod was announced; use it as a context manager.

    Args:
        plane: whose pods.
        known: (namespace, name) of those that exist already.
    """

    def __init__(self, plane: Access, known: Iterable[PodName]) -> None:
        super().__init__()
        self._plane = plane
        self._known = set(known)
        self.first: dict[str, float] = {}
        """By ModelDeployment: when a new pod of it was first announced since `forget`."""

    async def work(self) -> None:
        """See `Background`."""
        async with bulk.session(self._plane) as client:
            async for change in bulk.watch(client, "/api/v1/pods", labels=fleet.MANAGED):
                metadata = change.obj["metadata"]
                name = (metadata["namespace"], metadata["name"])
                if name not in self._known:
                    self._known.add(name)
                    owner = metadata["labels"]["stoker.dev/model-deployment"]
                    self.first.setdefault(owner, time.monotonic())

    def forget(self, owner: str) -> None:
        """Count only what comes from now on."""
        self.first.pop(owner, None)


def measure(bench: Bench, exposition: Exposition, relay: Relay, prometheus_url: str, samples: int) -> Figures:
    """Take samples and return their spread.

    Raises:
        PlaneError: a demand was not seen, or no pod came.
    """
    pods = bulk.names(bench.plane, "/api/v1/pods", fleet.MANAGED)
    first_pods = {_owner(name): (namespace, name) for namespace, name, _ in reversed(pods)}
    chosen = random.Random(bench.size).sample(sorted(first_pods), samples)
    reactions = []
    known = [(namespace, name) for namespace, name, _ in pods]
    with Births(bench.plane, known) as births, httpx.Client(base_url=prometheus_url, timeout=10) as client:
        for number, owner in enumerate(chosen):
            bench.say(f"reaction: sample {number + 1} of {samples}")
            time.sleep(random.uniform(0, INTERVAL_SECONDS))
            births.forget(owner)
            requests = FIRST_SURGE + number
            relay.expect(requests)
            exposition.surge(first_pods[owner], requests)
            reactions.append(_sample(births, relay, client, first_pods[owner], requests))
    return _figures(reactions)


def _sample(births: Births, relay: Relay, client: httpx.Client, pod: PodName, requests: int) -> Reaction:
    owner, deadline = _owner(pod[1]), time.monotonic() + PATIENCE_SECONDS
    visible: float | None = None
    while visible is None or (created := births.first.get(owner)) is None:
        births.check()
        if visible is None and _visible(client, pod, requests):
            visible = time.monotonic()
        if time.monotonic() > deadline:
            raise PlaneError(f"no pod of {owner} after {PATIENCE_SECONDS:.0f} s (visible: {visible})")
        time.sleep(POLL_SECONDS)
    seen = relay.seen(requests)
    if seen is None:
        raise PlaneError(f"a pod of {owner} was created by an operator that had not seen its demand")
    return Reaction(min(visible, seen.answered_at), relay.round_of(seen), seen.answered_at, created)


def _visible(client: httpx.Client, pod: PodName, requests: int) -> bool:
    query = f'{RUNNING}{{namespace="{pod[0]}",pod="{pod[1]}"}} == {requests}'
    answer = client.get("/api/v1/query", params={"query": query})
    return bool(answer.raise_for_status().json()["data"]["result"])


def _owner(pod: str) -> str:
    """`<name>-<revision>-<ordinal>`."""
    return pod.rsplit("-", 2)[0]


def _figures(reactions: list[Reaction]) -> Figures:
    visible_to_pod = [r.created - r.visible for r in reactions]
    tick_to_pod = [r.created - r.asked for r in reactions]
    return {
        "samples": len(reactions),
        "visible_to_pod_seconds": spread(visible_to_pod),
        "visible_to_tick_seconds": spread([max(0.0, r.asked - r.visible) for r in reactions]),
        "tick_to_pod_seconds": spread(tick_to_pod),
        "answer_to_pod_seconds": spread([r.created - r.answered for r in reactions]),
        "tick_to_pod_max_seconds": round(max(tick_to_pod), 3),
        "visible_to_pod_median_seconds": spread(visible_to_pod)["median"],
        "load_average": load_average(),
    }
