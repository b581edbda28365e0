"""A keyed work queue: it coalesces, never runs a key twice at once, and backs off per key.

Rules of this module (those of client-go's workqueue):

* A key that is added again before it is taken is one piece of work.
* A key that is added while it is being processed is taken again afterwards, not beside itself.
* A delayed add never postpones an earlier one.
* Back-off is per key: one failing object does not slow the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 1.0
LAST_BACKOFF_SECONDS = 300.0
JITTER = 0.1
"""Share by which a back-off is lengthened at random, so that keys that failed together return apart."""


class Queue(Generic[K]):
    """Dirty keys.

    Args:
        clock: Seconds of a clock that never steps back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._dirty: dict[K, float] = {}
        """Those that can be taken, with the time since when; apart from those that cannot, or each look
        would pass over all that are being processed."""
        self._again: dict[K, float] = {}
        """Those that became dirty while they were processed."""
        self._processing: set[K] = set()
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._dirty) + len(self._again)

    def add(self, key: K) -> None:
        """Mark a key as dirty now."""
        self._mark(key, self._clock())
        self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Mark a key as dirty in a while, unless it is due earlier anyway."""
        due = self._clock() + max(0.0, seconds)
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._delayed, (due, self._count, key))
        self._wake.set()

    def take(self, most: int | None = None) -> list[K]:
        """Dirty keys that are not being processed; they are being processed from now on.

        Args:
            most: No more than these, those first that could be taken first; None for all.
        """
        self._release()
        taken = list(islice(self._dirty, most))
        for key in taken:
            del self._dirty[key]
        self._processing.update(taken)
        return taken

    def prefer(self, keys: Iterable[K]) -> None:
        """Take these first, in their order, as far as they wait; the others keep theirs."""
        first = {key: self._dirty[key] for key in keys if key in self._dirty}
        self._dirty = first | self._dirty

    def begin(self, key: K) -> bool:
        """Process this very key from now on, unless it is dirty or being processed; whether it is."""
        if key in self._dirty or key in self._processing:
            return False
        self._processing.add(key)
        return True

    def done(self, key: K, *, failed: bool = False) -> None:
        """A key has been processed; after a failure it comes back by itself, later each time."""
        self._processing.discard(key)
        if failed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16))
            self.add_after(key, pause * (1 + JITTER * random.random()))  # noqa: S311 - jitter, not a secret
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._dirty[key] = self._again.pop(key)
            self._wake.set()

    def forget(self, key: K) -> None:
        """Nothing is known of the key any more."""
        self._dirty.pop(key, None)
        self._again.pop(key, None)
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def oldest(self) -> float | None:
        """Since when (clock) the longest waiting key that could be taken waits; None when nothing waits."""
        return min(self._dirty.values(), default=None)

    async def wait(self) -> None:
        """Return when there is something to take."""
        while True:
            self._release()
            if self._dirty:
                return
            self._wake.clear()
            pause = self._delayed[0][0] - self._clock() if self._delayed else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # wait_for() may lose a cancellation, before Python 3.12
                    await self._wake.wait()

    def _release(self) -> None:
        """Move what is due from the delayed to the dirty keys."""
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:  # neither forgotten nor overtaken by an earlier add
                del self._due[key]
                self._mark(key, now)

    def _mark(self, key: K, at: float) -> None:
        (self._again if key in self._processing else self._dirty).setdefault(key, at)
