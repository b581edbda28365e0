"""Look at a run once a second: status, pods and traffic, without leaning on what is measured."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from testbed.access import Access
from testbed.demo.story import PROMPT_WEIGHT, Decision, Moment, Record
from testbed.traffic import Counters, Traffic

PERIOD_SECONDS = 1.0


@dataclass(slots=True)
class _Life:
    """One pod, from its creation to when it was last seen; Unix seconds."""

    created: float
    last_seen: float


@dataclass(slots=True)
class Recorder:
    """Records a run into `record`.

    Args:
        plane: where the ModelDeployment is.
        namespace: its namespace.
        name: its name.
        traffic: what is played at it.
    """

    plane: Access
    namespace: str
    name: str
    traffic: Traffic
    record: Record = field(default_factory=Record)
    status: dict[str, Any] = field(default_factory=dict)
    _lives: dict[str, _Life] = field(default_factory=dict)
    _before: Counters = field(default_factory=Counters)
    _before_at: float = 0.0
    _known: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        with self.plane.client() as client:
            while True:
                due = loop.time() + PERIOD_SECONDS
                with contextlib.suppress(httpx.HTTPError):  # one missed look harms nobody
                    await self.look(client)
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def measure_lag(self) -> None:
        """Note how late this event loop wakes up, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.1
            await asyncio.sleep(0.1)
            self.record.lag = max(self.record.lag, loop.time() - due)

    async def look(self, client: httpx.Client) -> None:
        """Take one look."""
        model, pods = await asyncio.to_thread(self._fetch, client)
        self.status = model.get("status", {})
        self._count_lives(pods)
        self._note_decisions()
        self.record.moments.append(self._moment())

    def _fetch(self, client: httpx.Client) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        path = f"/apis/stoker.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments/{self.name}"
        model = client.get(path).raise_for_status().json()
        selector = {"labelSelector": f"stoker.dev/model-deployment={self.name}"}
        pods = client.get(f"/api/v1/namespaces/{self.namespace}/pods", params=selector)
        return model, pods.raise_for_status().json()["items"]

    def _count_lives(self, pods: list[dict[str, Any]]) -> None:
        now = datetime.now(UTC).timestamp()
        for pod in pods:
            metadata = pod["metadata"]
            created = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
            self._lives.setdefault(metadata["uid"], _Life(created, now)).last_seen = now
        lives = self._lives.values()
        self.record.pod_seconds = sum(life.last_seen - life.created for life in lives)
        self.record.seconds = now - min((life.created for life in lives), default=now)

    def _note_decisions(self) -> None:
        history = (self.status.get("scaling") or {}).get("history") or []
        for raw in reversed(history):
            identity = f"{raw['time']} {raw['from']} {raw['to']}"
            if identity not in self._known:
                self._known.add(identity)
                self.record.decisions.append(Decision.read(raw, self.traffic.elapsed))

    def _moment(self) -> Moment:
        now, at = self.traffic.counters, self.traffic.elapsed
        before, seconds = self._before, max(at - self._before_at, PERIOD_SECONDS / 2)
        prompt = now.asked_prompt_tokens - before.asked_prompt_tokens
        output = now.asked_output_tokens - before.asked_output_tokens
        self._before, self._before_at = now, at
        return Moment(
            at=at,
            offered=(output + PROMPT_WEIGHT * prompt) / seconds,
            wanted=self.status.get("desiredReplicas", 0),
            granted=self.status.get("grantedReplicas", 0),
            serving=self.status.get("readyReplicas", 0),
            phases=dict(Counter(state["phase"] for state in self.status.get("replicaStates") or [])),
            in_flight=now.in_flight,
            queued=now.queued,
            served=now.served,
            cut=now.cut,
            refused=now.refused,
            tokens_per_second=(now.generated_tokens - before.generated_tokens) / seconds,
        )
