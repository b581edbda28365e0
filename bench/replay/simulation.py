"""One run: requests of a workload, a fleet, a policy, in virtual time that skips from event to event.

Rules of this module:

* Order: (time, kind, number), in integer nanoseconds; one generator per purpose; so a run can be repeated.
* Engines are `testbed.replica.Replica`, the one that the testbed's simulated engines are made of.
* The router knows what it sent and what has come back; it does not know the engines' queues.
* An engine is looked at when a request may have finished in it, and when somebody asks: between, nothing that
  others could see happens to it (`testbed.replica.Replica.next_finish`).
* After the workload's end the policy rests and every request is finished: each one that arrived is judged.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from itertools import count

from bench.replay.faults import Fault
from bench.replay.fleet import DRAIN_TAIL_SECONDS, Fleet, SimulatedPod, StartUp
from bench.replay.prometheus import SCRAPE_INTERVAL, Exposition, Prometheus
from bench.replay.scores import Ledger
from bench.replay.view import Gateway, Policy, View
from testbed.replica import EventKind, ReplicaModel, Request
from testbed.trace import TraceRequest

NS = 1_000_000_000
PROBE_SECONDS = 60.0

DISPATCH_NS = 50_000_000
"""A gateway that holds requests looks at its engines so often (llm-d's and the inference extension's endpoint
picker: ``refreshMetricsInterval``, 50 ms)."""

FULL_QUEUE, FULL_CACHE = 5, 0.8
"""From here on an engine is saturated to a gateway that holds requests: waiting requests, share of its cache
(gateway-api-inference-extension, saturation detector: ``queueDepthThreshold``, ``kvCacheUtilThreshold``)."""


class Routing(StrEnum):
    """How the gateway chooses a replica."""

    LEAST_LOADED = "least-loaded"
    ROUND_ROBIN = "round-robin"


class Queueing(StrEnum):
    """Where requests wait that nobody has room for."""

    ENGINE = "engine"
    """Each is routed when it arrives, and waits in the engine."""
    GATEWAY = "gateway"
    """The gateway holds requests while every engine is saturated."""


@dataclass(frozen=True, slots=True)
class Leak:
    """One replica that slows down.

    Attributes:
        ordinal: which pod.
        start: when it begins, seconds.
        per_minute: share of its remaining speed that it loses each minute.
    """

    ordinal: int
    start: float
    per_minute: float


@dataclass(frozen=True, slots=True)
class Setting:
    """All of a run but its policy.

    Attributes:
        model: the replicas' coefficients.
        arrivals: in order of time.
        duration: seconds; the bill ends here.
        start_up: of the pods.
        initial: replicas that serve when the run begins.
        minimum: fewest replicas.
        maximum: most replicas.
        warm_up: seconds at the beginning that are not scored.
        routing: of the gateway.
        queueing: where requests wait.
        faults: of the metrics.
        leak: of a replica's speed.
        seed: of start-up delays and scrape phases.
    """

    model: ReplicaModel
    arrivals: Sequence[TraceRequest]
    duration: float
    start_up: StartUp
    initial: int
    minimum: int = 1
    maximum: int = 100
    warm_up: float = 600.0
    routing: Routing = Routing.LEAST_LOADED
    queueing: Queueing = Queueing.ENGINE
    faults: tuple[Fault, ...] = ()
    leak: Leak | None = None
    seed: int = 0


class _Kind(IntEnum):
    """Of events; the value orders those of one instant."""

    READY = 0
    ENGINE = 1
    GONE = 2
    SCRAPE = 3
    LEAK = 4
    PROBE = 5
    DISPATCH = 6
    DECIDE = 7


def simulate(setting: Setting, policy: Policy) -> Ledger:
    """Run a policy through a workload."""
    return _Simulation(setting, policy).run()


class _Simulation:
    def __init__(self, setting: Setting, policy: Policy) -> None:
        self._setting = setting
        self._policy = policy
        self._fleet = Fleet(setting.model, setting.start_up, setting.seed)
        self._prometheus = Prometheus(setting.faults)
        self._gateway = Gateway()
        self._ledger = Ledger(setting.warm_up, setting.duration, setting.maximum)
        self._heap: list[tuple[int, int, int, SimulatedPod | None]] = []
        self._number = count()
        self._turn = 0
        self._target = setting.initial
        self._held: deque[Request] = deque()
        self._holds = setting.queueing is Queueing.GATEWAY
        self._end = round(setting.duration * NS)
        self._handlers: dict[int, Callable[[int, SimulatedPod], None]] = {
            _Kind.READY: self._ready,
            _Kind.ENGINE: self._engine,
            _Kind.GONE: self._gone,
            _Kind.SCRAPE: self._scrape,
        }
        self._clockwork: dict[int, Callable[[int], None]] = {
            _Kind.LEAK: self._leak,
            _Kind.PROBE: self._probe,
            _Kind.DISPATCH: self._dispatched,
            _Kind.DECIDE: self._decide,
        }

    def run(self) -> Ledger:
        self._begin()
        for request in self._setting.arrivals:
            at = round(request.arrival * NS)
            if at >= self._end:
                break
            self._advance(at)
            self._arrive(Request(at, request.prompt_tokens, request.output_tokens), at)
        self._advance(self._end)
        self._ledger.close(self._fleet)
        self._finish()
        return self._ledger

    def _begin(self) -> None:
        for _ in range(self._setting.initial):
            pod = self._fleet.create(0.0, ready=True)
            self._push(0, _Kind.READY, pod)
        self._push(round(PROBE_SECONDS * NS), _Kind.PROBE)
        self._push(round(self._policy.interval * NS), _Kind.DECIDE)
        if self._setting.leak is not None:
            self._push(round(self._setting.leak.start * NS), _Kind.LEAK)
        self._ledger.decided(0.0, self._target)

    # --- Events ----------------------------------------------------------------------------------

    def _push(self, at: int, kind: int, pod: SimulatedPod | None = None) -> None:
        heapq.heappush(self._heap, (at, kind, next(self._number), pod))

    def _advance(self, to: int) -> None:
        """Everything that happens before or at ``to`` (ns)."""
        heap = self._heap
        while heap and heap[0][0] <= to:
            at, kind, _, pod = heapq.heappop(heap)
            if pod is None:
                self._clockwork[kind](at)
            else:
                self._handlers[kind](at, pod)

    def _finish(self) -> None:
        """Every request that is under way ends; nothing else happens any more."""
        later = self._end
        while self._held and self._fleet.routed:
            later += DISPATCH_NS
            self._dispatch(later)
        engines = [pod for pod in self._fleet.pods if pod.in_flight or pod.ready]
        for request in self._held:
            self._ledger.unserved(request)
        for pod in engines:
            while (at := pod.replica.next_event()) is not None:
                self._answers(pod, at)

    def _arrive(self, request: Request, at: int) -> None:
        self._gateway.requests += 1
        self._gateway.prompt_tokens += request.prompt_tokens
        pod = None if self._held else self._route(at)
        if pod is None:
            self._hold(request, at)
        else:
            self._send(pod, request, at)

    def _route(self, at: int) -> SimulatedPod | None:
        """The replica for the next request; None when the gateway has to hold it."""
        routed = self._fleet.routed
        if self._holds:
            routed = [pod for pod in routed if not self._saturated(pod, at)]
        if not routed:
            return None
        if self._setting.routing is Routing.ROUND_ROBIN:
            self._turn += 1
            return routed[self._turn % len(routed)]
        return min(routed, key=_in_flight)

    def _saturated(self, pod: SimulatedPod, at: int) -> bool:
        self._answers(pod, at)
        return pod.replica.waiting >= FULL_QUEUE or pod.replica.kv_usage >= FULL_CACHE

    def _hold(self, request: Request, at: int) -> None:
        if self._holds and not self._held:
            self._push(at + DISPATCH_NS, _Kind.DISPATCH)
        self._held.append(request)
        self._gateway.queued = len(self._held)

    def _dispatched(self, at: int) -> None:
        self._dispatch(at)
        if self._held:
            self._push(at + DISPATCH_NS, _Kind.DISPATCH)

    def _dispatch(self, at: int) -> None:
        """Send what is held, the oldest first, as far as there is room."""
        while self._held and (pod := self._route(at)) is not None:
            self._send(pod, self._held.popleft(), at)
        self._gateway.queued = len(self._held)

    def _send(self, pod: SimulatedPod, request: Request, at: int) -> None:
        pod.in_flight += 1
        pod.replica.submit(request, at)
        # Whatever else runs there ends no sooner for it; the request itself takes an iteration per token.
        soonest = at + request.output_tokens * pod.replica.model.base_ns
        if pod.wake is None or soonest < pod.wake:
            self._wake(pod, soonest)

    def _wake(self, pod: SimulatedPod, at: int | None) -> None:
        pod.wake = at
        if at is not None:
            self._push(at, _Kind.ENGINE, pod)

    def _engine(self, at: int, pod: SimulatedPod) -> None:
        if at != pod.wake:
            return  # another time has been set since
        self._answers(pod, at)
        self._wake(pod, pod.replica.next_finish())
        if pod.draining and not pod.in_flight:
            self._push(at + round(DRAIN_TAIL_SECONDS * NS), _Kind.GONE, pod)

    def _answers(self, pod: SimulatedPod, at: int) -> None:
        for event in pod.replica.advance(at):
            if event.kind is EventKind.FINISHED:
                pod.in_flight -= 1
                self._gateway.finished += 1
                self._gateway.output_tokens += event.request.output_tokens
                self._ledger.finished(event.request, pod.drain_since)

    def _ready(self, at: int, pod: SimulatedPod) -> None:
        if pod.deleted is not None:
            return
        self._fleet.start_serving(pod)
        self._push(at + round(pod.scrape_phase * SCRAPE_INTERVAL * NS), _Kind.SCRAPE, pod)
        self._dispatch(at)

    def _gone(self, at: int, pod: SimulatedPod) -> None:
        if pod.draining and pod.deleted is None and not pod.in_flight:  # else it was taken back
            self._fleet.delete(pod, at / NS)
            self._prometheus.forget(pod.name, at / NS)

    def _scrape(self, at: int, pod: SimulatedPod) -> None:
        if pod.deleted is not None:
            return
        self._answers(pod, at)
        self._prometheus.scrape(pod.name, pod.ordinal, at / NS, _exposed(pod))
        self._push(at + round(SCRAPE_INTERVAL * NS), _Kind.SCRAPE, pod)

    def _leak(self, at: int) -> None:
        leak = self._setting.leak
        assert leak is not None  # noqa: S101 - only then is the event scheduled
        for pod in self._fleet.pods:
            if pod.ordinal == leak.ordinal:
                self._answers(pod, at)  # what was before went at the speed of before
                pod.replica.model = _slower(pod.replica.model, 1 / (1 - leak.per_minute))
        self._push(at + 60 * NS, _Kind.LEAK)

    def _probe(self, at: int) -> None:
        waiting = len(self._held)
        for pod in self._fleet.pods:
            self._answers(pod, at)
            waiting += pod.replica.waiting
        self._ledger.probed(at / NS, waiting)
        self._push(at + round(PROBE_SECONDS * NS), _Kind.PROBE)

    def _decide(self, at: int) -> None:
        now, setting = at / NS, self._setting
        for pod in self._fleet.pods:
            self._answers(pod, at)
        view = View(now, self._target, tuple(self._fleet.pods), self._prometheus, self._gateway)
        target = self._policy.decide(view)
        if not setting.minimum <= target <= setting.maximum:
            raise ValueError(
                f"{self._policy} asks for {target} replicas at {now:.0f} s, "
                f"outside [{setting.minimum}, {setting.maximum}]: a policy keeps its bounds itself"
            )
        if target != self._target:
            self._ledger.decided(now, target)
            self._target = target
        if target != self._fleet.live:
            self._carry_out(target, at)
        self._push(at + round(self._policy.interval * NS), _Kind.DECIDE)

    def _carry_out(self, target: int, at: int) -> None:
        changes = self._fleet.scale(target, at / NS)
        for pod in changes.created:
            self._push(round(pod.ready_at * NS), _Kind.READY, pod)
        for pod in changes.drained:
            if not pod.in_flight:
                self._push(at + round(DRAIN_TAIL_SECONDS * NS), _Kind.GONE, pod)


def _in_flight(pod: SimulatedPod) -> int:
    return pod.in_flight


def _exposed(pod: SimulatedPod) -> Exposition:
    replica = pod.replica
    counters = replica.counters
    return Exposition(
        float(counters.generated_tokens),
        float(counters.prompt_tokens),
        float(counters.finished),
        float(replica.running),
        float(replica.waiting),
        replica.kv_usage,
        counters.inter_token_ps / 1e12,
        float(counters.inter_tokens),
    )


def _slower(model: ReplicaModel, factor: float) -> ReplicaModel:
    return replace(
        model,
        base_ns=round(model.base_ns * factor),
        per_sequence_ns=round(model.per_sequence_ns * factor),
        per_kv_token_ps=round(model.per_kv_token_ps * factor),
        per_prefill_token_ns=round(model.per_prefill_token_ns * factor),
    )
