"""Gather: what Prometheus and the draining engines say, kept until the next tick asks.

Rules of this module:

* Prometheus is asked once per signal for the whole fleet, on the scaling interval, and more rarely for what
  does not decide (`stoker.controller.rounds`). Only the users' own queries are asked one by one, beside the
  others and with a client of their own.
* What takes computing is done in a thread: probes are answered meanwhile.
* Only draining engines are asked directly; they alone are about to be deleted on their own word.
* A source that fails yields readings that say so; it never raises into the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from stoker.clients.engine import Endpoint
from stoker.controller.queries import Queries
from stoker.controller.rounds import Rounds
from stoker.controller.store import Store
from stoker.core import gateway, signals, urgency
from stoker.core.observed import ModelDeployment, Pod
from stoker.core.promql import LatencyScope
from stoker.core.readings import EngineLoad, Fresh, Key, MetricNames, Metrics, Reading, Signal
from stoker.core.signals import Answer


class Asker(Protocol):
    """The part of the Prometheus client that gathering needs."""

    async def query_all(self, queries: Mapping[str, str]) -> Mapping[str, Answer]:
        """Ask all queries, concurrently, under one deadline; never raises."""


class Engines(Protocol):
    """The part of the engine client that gathering needs."""

    async def load_all(self, endpoints: Mapping[str, Endpoint]) -> Mapping[str, Reading]:
        """Requests in flight of each engine; never raises."""


class Gatherer:
    """The readings beside the objects.

    Args:
        store: Which deployments and pods there are.
        prometheus: Asked once per signal; None when no address is configured.
        engines: Asked one by one while they drain.
        clock: Unix seconds.
        stale_after: Seconds after which a sample is too old to act on.
        users: The client for the users' own queries; by default the one for all.
    """

    def __init__(
        self,
        store: Store,
        prometheus: Asker | None,
        engines: Engines,
        clock: Callable[[], float],
        stale_after: float,
        users: Asker | None = None,
    ) -> None:
        self._store = store
        self._prometheus = prometheus
        self._engines = engines
        self._clock = clock
        self._stale_after = stale_after
        asker = users or prometheus
        self._queries = Queries(asker, clock) if asker is not None else None
        self._metrics = Metrics(at=clock(), failure="Prometheus has not been asked yet", pending=True)
        self._rounds = Rounds(clock)
        self._in_flight: Mapping[Key, float] = {}
        self.loads: dict[str, EngineLoad] = {}
        self.urgent: Sequence[Key] = ()
        """Whose demand grew much in the last round, those first that grew most."""

    def metrics(self) -> Metrics:
        """The last round's readings; none at all when that round is too long ago to be acted on."""
        age = self._clock() - self._metrics.at
        if age <= self._stale_after or self._metrics.failure is not None:
            return replace(self._metrics, signals=self._queries.readings) if self._queries else self._metrics
        return Metrics(at=self._clock(), failure=f"Prometheus was last asked {age:.0f} s ago", pending=True)

    async def measure(self) -> list[Key]:
        """Ask Prometheus about the fleet; those whose decision depends on it, the urgent ones first."""
        self.urgent = ()
        scaled = [d for d in self._store.deployments.values() if _scaled(d)]
        if not scaled:
            return []
        if self._prometheus is None or self._queries is None:
            why = "no Prometheus address is configured: set STOKER_PROMETHEUS_URL"
            self._metrics = Metrics(at=self._clock(), failure=why)
            return [d.key for d in scaled]
        names = [d.metrics for d in scaled if d.metrics is not None]
        asked = {**self._rounds.queries(names, _latency_scopes(scaled)), gateway.NAME: gateway.QUERY}
        answers, _ = await asyncio.gather(
            self._prometheus.query_all(asked), self._queries.round(_own_queries(scaled))
        )
        pods = {d.key: [p.key for p in self._store.pods(d.key)] for d in scaled}
        self._metrics, in_flight = await asyncio.to_thread(self._gathered, answers, scaled, pods)
        self.urgent = urgency.urgent(self._in_flight, in_flight)
        order = urgency.by_growth(self._in_flight, in_flight)
        self._in_flight = in_flight
        return order

    def _gathered(
        self,
        answers: Mapping[str, Answer],
        scaled: Sequence[ModelDeployment],
        pods: Mapping[Key, Sequence[Key]],
    ) -> tuple[Metrics, Mapping[Key, float]]:
        """The readings, and the requests in flight of each ModelDeployment. Runs in a thread."""
        now = self._clock()
        asked = {name: answer for name, answer in answers.items() if name != gateway.NAME}
        of_pods = self._rounds.completed(asked, [d.metrics for d in scaled if d.metrics])
        named = [(pod, d.metrics) for d in scaled if d.metrics for pod in pods[d.key]]
        found = signals.gathered(of_pods, named, now, self._stale_after)
        found = replace(found, held=gateway.held(answers.get(gateway.NAME), _fleets(scaled), now))
        return found, {d.key: urgency.in_flight(found, d.key, pods[d.key]) for d in scaled}

    async def poll_draining(self) -> list[Key]:
        """Ask the draining engines for their requests; the ModelDeployments that have any."""
        draining = {p.uid: (key, p) for key, p in self._store.draining() if not p.deleting}
        self.loads = {uid: load for uid, load in self.loads.items() if uid in draining}
        endpoints = {uid: e for uid, (key, pod) in draining.items() if (e := self._endpoint(key, pod))}
        for uid, reading in (await self._engines.load_all(endpoints)).items():
            self.loads[uid] = _polled(self.loads.get(uid), reading)
        return sorted({key for key, _ in draining.values()})

    def _endpoint(self, key: Key, pod: Pod) -> Endpoint | None:
        deployment = self._store.deployments.get(key)
        if deployment is None or deployment.spec is None or deployment.metrics is None or not pod.ip:
            return None
        return Endpoint(
            pod_ip=pod.ip,
            port=pod.port or deployment.spec.engine.port,
            path=deployment.metrics.path,
            running=_names(deployment.metrics, Signal.RUNNING),
            waiting=_names(deployment.metrics, Signal.WAITING),
        )


def _scaled(deployment: ModelDeployment) -> bool:
    return deployment.spec is not None and deployment.spec.scaling is not None and not deployment.deleting


def _own_queries(deployments: Sequence[ModelDeployment]) -> set[str]:
    """The users' queries, each once."""
    scaling = [d.spec.scaling for d in deployments if d.spec is not None and d.spec.scaling is not None]
    return {signal.query for section in scaling for signal in section.signals}


def _fleets(deployments: Sequence[ModelDeployment]) -> list[gateway.Fleet]:
    """The ModelDeployments as an inference gateway names them."""
    known = [(d.key, d.spec) for d in deployments if d.spec is not None]
    return [gateway.Fleet(key, spec.model.name or key.name) for key, spec in known]


def _latency_scopes(deployments: list[ModelDeployment]) -> list[LatencyScope]:
    return [
        LatencyScope(d.key.namespace, d.metrics)
        for d in deployments
        if d.metrics and d.spec and d.spec.scaling and d.spec.scaling.targets.time_to_first_token
    ]


def _names(metrics: MetricNames, signal: Signal) -> tuple[str, ...]:
    return tuple(s.name for s in metrics.series.get(signal, ()))


def _polled(before: EngineLoad | None, reading: Reading) -> EngineLoad:
    """Idle only as long as each poll in a row said zero: what cannot be read is not idle."""
    idle = isinstance(reading, Fresh) and reading.value == 0
    return EngineLoad(reading, (before.idle_polls if before is not None else 0) + 1 if idle else 0)
