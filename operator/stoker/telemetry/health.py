"""Health: is the operator alive, and has it a view to act on?

Rules of this module:

* Liveness fails only for what a restart cures: a stuck loop, a dead watch, a queue that nobody empties. An
  API server or Prometheus that is away is no reason to restart, so it fails nothing here.
* The state has plain setters; each check is a function of the state and the time, and says what it saw.
* Times are monotonic seconds: a step of the wall clock restarts nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

HEARTBEAT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something is wrong, in seconds."""

    loop_lag: float = 10.0
    """A loop that is this late has been blocked, not merely busy: untuned listings stall it for 6 s."""
    watch_silence: float = 180.0
    """kopf closes a silent watch after 70 s and opens it again; this leaves room for one failed attempt."""
    queue_stall: float = 120.0
    """A plan takes milliseconds, a tick at 1,000 models a second."""
    gather_silence: float = 120.0
    """The scaling interval is 5 s by default, and gathering ends after the time-out of its queries."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class HealthState:
    """What the parts of the operator report."""

    limits: Limits = field(default_factory=Limits)
    is_synced: bool = False
    last_tick_ok: bool = True
    last_tick_error: str = ""
    _watches: dict[str, float] = field(default_factory=dict)
    _heartbeat_at: float | None = None
    _lag: float = 0.0
    _gathered_at: float | None = None
    _oldest_since: float | None = None

    def watch_seen(self, kind: str, at: float) -> None:
        """The watch of a kind did something: an event came, or it asked the API server (again)."""
        self._watches[kind] = at

    def synced(self) -> None:
        """The first full view is there."""
        self.is_synced = True

    def tick_finished(self, *, ok: bool, error: str = "") -> None:
        """Deciding ended."""
        self.last_tick_ok, self.last_tick_error = ok, error

    def gathered(self, at: float) -> None:
        """A round of asking Prometheus ended, whatever it answered."""
        self._gathered_at = at

    def queue(self, length: int, oldest_seconds: float, at: float) -> None:
        """How much work waits, and for how long. Ages on by itself until the next report."""
        self._oldest_since = at - oldest_seconds if length else None

    def heartbeat(self, lag: float, at: float) -> None:
        """The event loop woke up, this much too late."""
        self._lag, self._heartbeat_at = lag, at

    # --- Checks ----------------------------------------------------------------------------------

    def live(self, now: float) -> tuple[Check, ...]:
        """Whether a restart is called for."""
        return (self._loop(now), self._watching(now), self._working(now), self._gathering(now))

    def ready(self, now: float) -> tuple[Check, ...]:  # noqa: ARG002 - same shape as live()
        """Whether there is a view, and decisions come out of it."""
        detail = "the first full view is there" if self.is_synced else "objects are still being listed"
        error = self.last_tick_error or "deciding failed"
        return (
            Check("synced", self.is_synced, detail),
            Check("decide", self.last_tick_ok, "the last tick succeeded" if self.last_tick_ok else error),
        )

    def _loop(self, now: float) -> Check:
        if self._heartbeat_at is None:
            return Check("event-loop", True, "not measured yet")
        late = max(self._lag, now - self._heartbeat_at - HEARTBEAT_SECONDS, 0.0)
        return _bounded("event-loop", late, self.limits.loop_lag, "{:.1f} s late")

    def _watching(self, now: float) -> Check:
        if not self._watches:
            return Check("watch", True, "nothing is watched yet")
        kind, at = min(self._watches.items(), key=lambda item: item[1])
        return _bounded(
            "watch", now - at, self.limits.watch_silence, f"{kind} was last active {{:.0f}} s ago"
        )

    def _working(self, now: float) -> Check:
        if self._oldest_since is None:
            return Check("queue", True, "nothing waits")
        return _bounded(
            "queue", now - self._oldest_since, self.limits.queue_stall, "the oldest key waits for {:.0f} s"
        )

    def _gathering(self, now: float) -> Check:
        if self._gathered_at is None:
            return Check("gather", True, "not started yet")
        age = now - self._gathered_at
        return _bounded("gather", age, self.limits.gather_silence, "the last round ended {:.0f} s ago")


def _bounded(name: str, value: float, limit: float, text: str) -> Check:
    ok = value <= limit
    return Check(name, ok, text.format(value) + ("" if ok else f", more than {limit:g} s"))


def failing(checks: Iterable[Check]) -> tuple[str, ...]:
    """The names of the checks that fail."""
    return tuple(check.name for check in checks if not check.ok)


async def beat(note: Callable[[float, float], None], *, clock: Callable[[], float] = time.monotonic) -> None:
    """Measure the event loop's lag for ever: ``note(seconds late, now)`` twice a second."""
    while True:
        due = clock() + HEARTBEAT_SECONDS
        await asyncio.sleep(HEARTBEAT_SECONDS)
        now = clock()
        note(max(0.0, now - due), now)
