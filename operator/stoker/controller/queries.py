"""The users' own queries: each is asked by itself, so that none can hold up another or the loop.

Rules of this module:

* A query that several ModelDeployments share is asked once.
* A round waits a moment for the prompt ones; what comes later counts from the next tick on.
* A query may take a tenth of the time at most: one that takes long is asked the more rarely, and slow ones
  share a part of the connections. Its deadline and the length of its answer are the client's to bound.
* Nothing raises into the loop; a reading says what went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from stoker.core import outside
from stoker.core.readings import Reading
from stoker.core.signals import Answer

NAME = "signal"
"""What every such query is called in the operator's metrics: their text has no bound."""

AT_ONCE = 4
"""Queries in flight."""
SLOW_AT_ONCE = 2
"""Of them, those that took longer than ``SLOW_SECONDS`` the last time."""
SLOW_SECONDS = 1.0

GRACE_SECONDS = 0.5
"""How long a round waits for the prompt ones: their answers then count in the same tick."""

SHARE = 0.1
"""Part of the time that one query may take."""
LONGEST_PAUSE_SECONDS = 45.0
"""With the longest deadline it stays below the age at which an answer cannot be acted on."""


class Asker(Protocol):
    """The part of the Prometheus client that is needed."""

    async def query_all(self, queries: Mapping[str, str]) -> Mapping[str, Answer]:
        """Ask all queries, under a deadline; never raises."""


@dataclass(slots=True)
class _Query:
    """One query and how it fares."""

    text: str
    reading: Reading = outside.NOT_ASKED
    took: float = 0.0
    """Seconds, the last time."""
    due: float = 0.0
    """When it may be asked again, by the event loop's clock."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def slow(self) -> bool:
        return self.took > SLOW_SECONDS

    @property
    def asking(self) -> bool:
        return self.task is not None and not self.task.done()


class Queries:
    """Readings of the users' queries.

    Args:
        prometheus: A client of their own, whose deadline and bounds hold for each of them.
        clock: Unix seconds, stamped on readings.
    """

    def __init__(self, prometheus: Asker, clock: Callable[[], float]) -> None:
        self._prometheus = prometheus
        self._clock = clock
        self._known: dict[str, _Query] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._slow_slots = asyncio.Semaphore(SLOW_AT_ONCE)

    @property
    def readings(self) -> Mapping[str, Reading]:
        """What is known now, by query."""
        return {text: query.reading for text, query in self._known.items()}

    async def round(self, wanted: Iterable[str]) -> None:
        """Ask the queries that are due, and wait a moment for the prompt ones; forget those nobody wants."""
        self._known = {text: self._known.get(text) or _Query(text) for text in wanted}
        now = asyncio.get_running_loop().time()
        for query in sorted(self._known.values(), key=lambda q: q.took):
            if not query.asking and query.due <= now:
                query.task = asyncio.create_task(self._ask(query), name="signal")
        prompt = [q.task for q in self._known.values() if q.task and q.asking and not q.slow]
        if prompt:
            await asyncio.wait(prompt, timeout=GRACE_SECONDS)

    async def _ask(self, query: _Query) -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as slots:
            if query.slow:
                await slots.enter_async_context(self._slow_slots)
            await slots.enter_async_context(self._slots)
            started = loop.time()
            answers = await self._prometheus.query_all({NAME: query.text})
        query.took = loop.time() - started
        query.due = loop.time() + min(LONGEST_PAUSE_SECONDS, query.took * (1 / SHARE - 1))
        query.reading = outside.reading(answers[NAME], self._clock())
