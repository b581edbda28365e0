"""One simulated engine in real time: a replica, its metrics, and the generations that clients wait for.

Rules of this module:

- The replica computes exact moments; a pacer shared by all engines of the process advances the busy ones
  every few milliseconds and wakes the clients that have something to read. No task per engine, no timer per
  token: what costs is writing to clients, and `stream_interval` (vLLM ``--stream-interval``) bounds that.
- An engine that is closed has died: what was under way is cut, not finished, and counted as such.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from testbed.http_metrics import HttpMetrics
from testbed.metrics import EngineMetrics
from testbed.replica import EventKind, Replica, ReplicaModel, Request

__all__ = ["Engine", "EngineStats", "Generation", "MetricsFault", "Pacer"]


class MetricsFault(StrEnum):
    """How ``/metrics`` misbehaves."""

    NONE = "none"
    ERROR = "error"  # HTTP 500: the target is down
    MISSING = "missing"  # 200 without the engine's families: the target is up and its series vanish
    NAN = "nan"  # every measured value is NaN
    STALE = "stale"  # the text of the moment when the fault began, for ever


@dataclass(slots=True)
class EngineStats:
    """What became of the requests of one engine.

    Attributes:
        accepted: requests that entered the queue.
        served: of these, finished.
        aborted: of these, given up by the client.
        cut: of these, under way when the engine died.
        refused: answered with an error.
    """

    accepted: int = 0
    served: int = 0
    aborted: int = 0
    cut: int = 0
    refused: int = 0


class Generation:
    """A request as its HTTP handler sees it: wait for tokens, write them, wait again.

    Args:
        request: what the replica works on.
        interval: tokens that are worth writing, once the first is written; None: only the whole answer is.
    """

    def __init__(self, request: Request, interval: int | None) -> None:
        self.request = request
        self.sent = 0
        self.finished = False
        self._interval = interval or request.output_tokens
        self._first = 1 if interval else request.output_tokens
        self._available = 0
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> int:
        """Wait for something worth writing; return how many tokens are new."""
        if not self._worth_waking():
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        new, self.sent = self._available - self.sent, self._available
        return new

    def offer(self, available: int) -> None:
        """Tell how many tokens there are; wakes the handler if that is enough to write."""
        self._available = available
        self.finished = available == self.request.output_tokens
        if self._worth_waking() and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _worth_waking(self) -> bool:
        new = self._available - self.sent
        return self.finished or new >= (self._interval if self.sent else self._first)


class Engine:
    """A loaded engine.

    Args:
        served_name: the model's name.
        model: coefficients.
        pacer: advances this engine while it is busy.
        stream_interval: tokens per chunk of a stream, after the first.
    """

    def __init__(
        self, served_name: str, model: ReplicaModel, pacer: "Pacer", *, stream_interval: int = 1
    ) -> None:
        started = time.time()
        self.served_name = served_name
        self.model = model
        self.stats = EngineStats()
        self._fault = MetricsFault.NONE
        self.http = HttpMetrics(started)
        self.metrics = EngineMetrics(model, served_name, started)
        self.replica = Replica(model, self.metrics)
        self._interval = stream_interval
        self._pacer = pacer
        self._live: dict[Request, Generation] = {}
        self._frozen = ""

    def generate(self, prompt_tokens: int, output_tokens: int, *, stream: bool) -> Generation:
        """Submit a request.

        Raises:
            ValueError: it can never fit the KV cache.
        """
        request = Request(self.stats.accepted, prompt_tokens, output_tokens)
        self.replica.submit(request, self._pacer.now_ns())
        self.stats.accepted += 1
        generation = Generation(request, self._interval if stream else None)
        self._live[request] = generation
        self._pacer.watch(self)
        return generation

    def abort(self, generation: Generation) -> None:
        """The client has gone: give the request up, unless it is over anyway."""
        now = self._pacer.now_ns()
        self.advance(now)
        if self._live.pop(generation.request, None) is None:
            return
        self.replica.cancel(generation.request, now)
        self.stats.aborted += 1
        self.metrics.on_abort()

    def advance(self, now_ns: int) -> bool:
        """Compute up to now and wake whoever has something to read; False when the engine is idle."""
        for event in self.replica.advance(now_ns):
            if event.kind is EventKind.FIRST_TOKEN:
                self.metrics.on_first_token(event.request)
                continue
            self.metrics.on_finished(event.request)
            self.stats.served += 1
            generation = self._live.pop(event.request, None)
            if generation is not None:
                generation.offer(event.request.output_tokens)
        for request, generation in self._live.items():
            generation.offer(self.replica.generated(request))
        return not self.replica.idle

    def close(self) -> int:
        """The engine dies; returns how many requests that cuts. Their handlers end with the connections."""
        cut = len(self._live)
        self.stats.cut += cut
        self._live.clear()
        return cut

    def scrape(self) -> str | None:
        """The text of ``/metrics``, or None for an internal error."""
        fault = self._fault
        if fault is MetricsFault.ERROR:
            return None
        if fault is MetricsFault.MISSING:
            return self.http.render()
        if fault is MetricsFault.NAN:
            return self.metrics.render_nan() + self.http.render()
        return self._frozen if fault is MetricsFault.STALE else self._exposition()

    def set_fault(self, fault: MetricsFault) -> None:
        """Let ``/metrics`` misbehave from now on, or behave again."""
        if fault is MetricsFault.STALE and self._fault is not fault:
            self._frozen = self._exposition()
        self._fault = fault

    def _exposition(self) -> str:
        self.advance(self._pacer.now_ns())
        return self.metrics.render(self.replica) + self.http.render()


class Pacer:
    """Advances the busy engines of a process together.

    Args:
        tick: seconds between two advances; how late a client may learn of its token.
        clock: nanoseconds, monotonic.
    """

    def __init__(self, tick: float = 0.02, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._tick = tick
        self._clock = clock
        self._start = clock()
        self._busy: set[Engine] = set()
        self._timer: asyncio.TimerHandle | None = None

    def now_ns(self) -> int:
        """Nanoseconds since the pacer was made: the time of every replica of the process."""
        return self._clock() - self._start

    def watch(self, engine: Engine) -> None:
        """The engine has work: advance it until it has none."""
        self._busy.add(engine)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._advance)

    def forget(self, engine: Engine) -> None:
        """The engine is gone."""
        self._busy.discard(engine)

    def _advance(self) -> None:
        now = self.now_ns()
        self._busy = {engine for engine in self._busy if engine.advance(now)}
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._tick, self._advance) if self._busy else None
