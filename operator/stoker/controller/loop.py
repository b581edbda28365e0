"""The loop: gather → decide → act.

Rules of this module:

* Deciding takes no await: one snapshot, one pure call for the dirty ModelDeployments. Of many some go first,
  in the order in which they became dirty, and what was decided for them is under way while the next are
  decided. Those whose demand has grown are dirty first.
* Acting runs beside the loop, a bounded number of plans at once, and never two for one key.
* A thousand refreshed statuses must not stand between a decision and its pod. Few plans that only publish are
  under way at once. One that finds no room waits for some; its key is looked at meanwhile all the same, and
  the next decision takes its place.
* Everything wakes the loop through the queue: watch events, deadlines, the scaling interval, drains,
  and a slow resync. A quiet fleet is looked at and left alone.
* Nothing that a ModelDeployment does ends the loop; nothing that the loop does is lost by its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from stoker.controller.executor import Executor, Outcome, Result
from stoker.controller.gather import Gatherer
from stoker.controller.history import RETRY_SECONDS, Historian
from stoker.controller.queue import Queue
from stoker.controller.store import Store
from stoker.controller.sweep import Sweeper
from stoker.core.lifecycle import DRAIN_POLL_SECONDS
from stoker.core.observed import Memory, Obstacle, Snapshot
from stoker.core.plan import Apply, CreatePod, Plan
from stoker.core.readings import Key
from stoker.core.reconcile import reconcile

DEBOUNCE_SECONDS = 0.05
"""A burst of events (a pod's status moves several times within milliseconds) is one tick."""

MOST_PER_TICK = 25
"""ModelDeployments decided at once: 5 ms in which the loop does nothing else. A write takes several turns
of the loop: with long ones hardly anything is carried out while ten thousand are decided."""

PUBLISHING_SHARE = 4
"""One slot in so many may carry plans that only publish."""

FIRST_MEASUREMENT_SECONDS = 2.0
"""How long the first decisions wait for Prometheus: else each restart would report missing metrics."""

AGAIN_SECONDS = 0.2
"""After a conflict: enough for the watch to bring what was missed."""

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who wants to know how the loop fares: own metrics and health."""

    def tick(self, phase: str, seconds: float) -> None:
        """A phase (gather, decide, act) of a tick took this long."""

    def tick_failed(self, error: str) -> None:
        """Deciding itself failed: a bug."""

    def planned(self, plan: Plan, result: Result | None) -> None:
        """A plan was made (None) or executed."""

    def synced(self) -> None:
        """The first full view is there: the loop starts."""

    def forgotten(self, key: Key) -> None:
        """A ModelDeployment is gone."""

    def queue(self, length: int, oldest_seconds: float) -> None:
        """How much work waits, and for how long."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often what is not an event happens, in seconds."""

    scaling: float = 5.0
    resync: float = 300.0


class Controller:
    """One operator's loop.

    Args:
        store: What is known.
        sweeper: What the watches missed.
        gatherer: What is asked.
        executor: What is done.
        observer: Who watches.
        historian: What the days before were like; None when nobody needs to know.
        clock: Unix seconds: the ``now`` of decisions.
        intervals: Scaling and resync.
        workers: Plans that are executed at once.
    """

    def __init__(  # noqa: PLR0913 - the parts of the loop, put together in one place
        self,
        store: Store,
        sweeper: Sweeper,
        gatherer: Gatherer,
        executor: Executor,
        observer: Observer,
        *,
        historian: Historian | None = None,
        clock: Callable[[], float] = time.time,
        intervals: Intervals | None = None,
        workers: int = 16,
    ) -> None:
        self._store = store
        self._sweeper = sweeper
        self._gatherer = gatherer
        self._executor = executor
        self._observer = observer
        self._historian = historian
        self._clock = clock
        self._intervals = intervals or Intervals()
        self._slots = asyncio.Semaphore(workers)
        self._publishers = max(1, workers // PUBLISHING_SHARE)
        self._unpublished: dict[Key, Plan] = {}
        self._queue: Queue[Key] = Queue(time.monotonic)
        self._memory: dict[Key, Memory] = {}
        self._obstacles: dict[Key, Obstacle] = {}
        self._acting: set[asyncio.Task[None]] = set()

    def touch(self, key: Key) -> None:
        """Look at this ModelDeployment soon."""
        self._queue.add(key)

    def touch_all(self) -> None:
        """Look at every ModelDeployment soon."""
        for key in self._store.deployments:
            self._queue.add(key)

    async def run(self, listed: Callable[[], Awaitable[object]]) -> None:
        """Work until cancelled; then finish the writes that are under way.

        Args:
            listed: Returns when the store holds everything that exists: half a view looks like a shortage.
        """
        await listed()
        first = asyncio.create_task(self._safely(self._measure), name="first measurement")
        await asyncio.wait([first], timeout=FIRST_MEASUREMENT_SECONDS)
        self._observer.synced()
        timers = [
            asyncio.create_task(self._every(self._intervals.scaling, self._measure), name="scaling"),
            asyncio.create_task(self._every(DRAIN_POLL_SECONDS, self._poll_draining), name="drain"),
            asyncio.create_task(self._every(self._intervals.resync, self._resync), name="resync"),
            asyncio.create_task(self._remember_days(), name="history"),
        ]
        try:
            while True:
                await self._queue.wait()
                await asyncio.sleep(DEBOUNCE_SECONDS)
                while self.tick() == MOST_PER_TICK:  # noqa: ASYNC110 - a turn for others, not a wait
                    await asyncio.sleep(0)
        finally:
            for timer in (first, *timers):
                timer.cancel()
            if self._acting:
                await asyncio.wait(self._acting, timeout=10.0)

    # --- One tick --------------------------------------------------------------------------------

    def tick(self) -> int:
        """Decide for the dirty ModelDeployments and start acting on it; how many they were."""
        keys = self._queue.take(MOST_PER_TICK)
        started = time.perf_counter()
        try:
            plans = reconcile(self._snapshot(), keys)
        except Exception as error:
            log.exception("deciding failed", model_deployments=len(keys))
            self._observer.tick_failed(f"{type(error).__name__}: {error}")
            for key in keys:
                self._queue.done(key, failed=True)
            return len(keys)
        self._observer.tick("decide", time.perf_counter() - started)
        for key in keys:
            plan = plans.get(key)
            if plan is None:
                self._forget(key)
            else:
                self._start(plan)
        oldest = self._queue.oldest()
        self._observer.queue(len(self._queue), time.monotonic() - oldest if oldest is not None else 0.0)
        return len(keys)

    def _snapshot(self) -> Snapshot:
        """The view of this moment: frozen records, in dictionaries that nobody changes while it is used."""
        return Snapshot(
            now=self._clock(),
            deployments=self._store.deployments,
            pods=self._store.pods_by_deployment,
            services=self._store.services,
            metrics=self._gatherer.metrics(),
            loads=self._gatherer.loads,
            memory=self._memory,
            obstacles=self._obstacles,
            history=self._historian.histories if self._historian is not None else {},
            why_no_history=self._historian.why if self._historian is not None else "nobody reads it",
        )

    def _start(self, plan: Plan) -> None:
        self._memory[plan.key] = plan.memory
        self._observer.planned(plan, None)
        if plan.requeue_at is not None:
            self._queue.add_after(plan.key, plan.requeue_at - self._clock())
        if plan.error is not None:
            log.error("deciding failed", model_deployment=str(plan.key), exc_info=plan.error)
        if _publishes_only(plan) and not self._publishers:
            self._unpublished[plan.key] = plan
            self._queue.done(plan.key)
            return
        self._unpublished.pop(plan.key, None)
        if plan.actions or plan.status is not None or plan.events:
            self._carry_out(plan)
        else:
            self._queue.done(plan.key, failed=plan.error is not None)

    def _carry_out(self, plan: Plan) -> None:
        task = asyncio.create_task(self._act(plan), name=f"act {plan.key}")
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        if _publishes_only(plan):
            self._publishers -= 1
            task.add_done_callback(self._published)

    def _published(self, _: asyncio.Task[None]) -> None:
        """There is room for those that have waited longest, except for who is about to be decided anew."""
        self._publishers += 1
        for key in [*self._unpublished]:
            if not self._publishers:
                break
            if self._queue.begin(key):
                self._carry_out(self._unpublished.pop(key))

    async def _act(self, plan: Plan) -> None:
        started = time.perf_counter()
        failed = True
        try:
            async with self._slots:
                result = await self._executor.execute(plan)
            failed = result.outcome is Outcome.FAILED or plan.error is not None
            self._note(plan, result)
        except Exception:
            log.exception("acting failed", model_deployment=str(plan.key))
        finally:
            self._queue.done(plan.key, failed=failed)
            self._observer.tick("act", time.perf_counter() - started)

    def _note(self, plan: Plan, result: Result) -> None:
        """What the outcome means for the next look at this key."""
        self._observer.planned(plan, result)
        if result.obstacle is not None:
            self._obstacles[plan.key] = result.obstacle
        elif result.outcome is Outcome.DONE and _creates(plan):
            self._obstacles.pop(plan.key, None)
        if result.outcome is Outcome.AGAIN:
            self._queue.add_after(plan.key, AGAIN_SECONDS)
        elif result.outcome is Outcome.REFUSED or (result.outcome is Outcome.DONE and plan.actions):
            self._queue.add(plan.key)  # what was done changes what is next, and status tells of it

    def _forget(self, key: Key) -> None:
        self._memory.pop(key, None)
        self._obstacles.pop(key, None)
        self._unpublished.pop(key, None)
        self._queue.done(key)
        self._queue.forget(key)
        self._observer.forgotten(key)

    # --- Timers ----------------------------------------------------------------------------------

    async def _every(self, seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - started)))
            started = time.monotonic()
            await self._safely(do)

    async def _remember_days(self) -> None:
        """The history is read beside everything else: decisions do without it until it is there."""
        while self._historian is not None:
            seconds = RETRY_SECONDS
            try:
                seconds = await self._historian.refresh()
            except Exception:
                log.exception("reading the history failed")
            await asyncio.sleep(seconds)

    async def _safely(self, do: Callable[[], Awaitable[None]]) -> None:
        try:
            await do()
        except Exception:
            log.exception("a timer's work failed", work=do.__name__)

    async def _measure(self) -> None:
        started = time.perf_counter()
        self._touch(await self._gatherer.measure())
        self._queue.prefer(self._gatherer.urgent)  # what is left of the round before can wait
        self._observer.tick("gather", time.perf_counter() - started)

    async def _poll_draining(self) -> None:
        self._touch(await self._gatherer.poll_draining())

    async def _resync(self) -> None:
        await self._sweeper.sweep()
        self.touch_all()

    def _touch(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._queue.add(key)


def _publishes_only(plan: Plan) -> bool:
    """Whether it only tells what is; what a bug has to say is told at once."""
    told = plan.status is not None or bool(plan.events)
    return told and not plan.actions and plan.error is None


def _creates(plan: Plan) -> bool:
    return any(isinstance(action, CreatePod | Apply) for action in plan.actions)
