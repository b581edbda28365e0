"""Rate shaping: a token bucket, as a plain value with the clock passed in.

Used by the API client (its own share of the server) and by the Event recorder (few Events per object).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class TokenBucket:
    """Holds up to ``burst`` tokens and gains ``rate`` tokens per second. A rate of 0 never refills."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def try_take(self, now: float) -> bool:
        """Take a token if there is one. A clock that steps back gains nothing and goes on from there."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def reserve(self, now: float) -> float:
        """Take a token, on credit if need be; returns the seconds to wait until it is really there.

        Raises:
            ValueError: the bucket never refills, so that the wait would have no end.
        """
        self._refill(now)
        self._tokens -= 1
        if self._tokens >= 0:
            return 0.0
        if self.rate <= 0:
            raise ValueError("a bucket with rate 0 cannot give credit: use try_take()")
        return -self._tokens / self.rate

    def full(self, now: float) -> bool:
        """Whether the bucket is as good as new, so that its owner may forget it."""
        self._refill(now)
        return self._tokens >= self.burst

    def _refill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now


class Pace:
    """Lets awaiting callers through at ``rate`` per second after a first ``burst``; 0 means no limit."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bucket = TokenBucket(rate, burst, clock()) if rate > 0 else None

    async def wait(self) -> None:
        """Return when it is this caller's turn; callers go in the order in which they came."""
        if self._bucket is None:
            return
        delay = self._bucket.reserve(self._clock())
        if delay > 0:
            await asyncio.sleep(delay)
