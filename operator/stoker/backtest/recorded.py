"""The fleet that really ran, as far as its samples tell: which replicas there were, and when.

Rules of this module:

* Pods of the past are no longer in the API. A replica counts from its first sample (a loading engine exports
  nothing) until one scrape interval after its last.
* A hole in the samples of one replica is a gap in its metrics: it was there, and nobody knows what it did.
  Only when the hole is longer than Prometheus looks back, and others were scraped meanwhile, it was away, and
  the next samples are those of another replica of that name.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from stoker.clients.answers import Span
from stoker.core.history import KEPT_STEPS, History, history_of, steps_until
from stoker.core.readings import Key

LOOKBACK: Final = 300.0
"""Seconds that Prometheus takes a sample for the present one (``--query.lookback-delta``)."""


@dataclass(frozen=True, slots=True)
class Life:
    """One replica from its first sample to its end, Unix s."""

    pod: Key
    start: float
    end: float
    """When it was gone; infinite for one that was there at the end of the records."""
    began: bool
    """Whether it started within the records; False: it was there before them."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded of a fleet, before anything is decided on it."""

    lives: tuple[Life, ...]
    """In order of their starts."""
    scrape_interval: float
    """Seconds, the median over the replicas."""
    gaps: tuple[tuple[float, float], ...]
    """Stretches of more than ``LOOKBACK`` without a sample of any replica, Unix s."""

    def present(self, instants: Iterable[float]) -> Iterator[tuple[float, tuple[Life, ...]]]:
        """Each of the instants (Unix s, ascending) with the replicas that there were."""
        coming, there = deque(self.lives), list[Life]()
        for at in instants:
            while coming and coming[0].start <= at:
                there.append(coming.popleft())
            there = [life for life in there if at < life.end]
            yield at, tuple(there)

    def hours(self, since: float, until: float, start_up: float) -> float:
        """Replicas × hours within [since, until], the time included in which they started up (s)."""
        return (
            sum(
                max(0.0, min(life.end, until) - max(life.start - start_up * life.began, since))
                for life in self.lives
            )
            / 3600
        )


@dataclass(frozen=True, slots=True)
class Days:
    """The demand of the fleet before and during the period, in the steps of `stoker.core.history`."""

    first: int = 0
    """Number of the first step."""
    values: Sequence[float] = ()

    def until(self, at: float) -> History | None:
        """What was known at a moment (Unix s); None when nothing was."""
        last = steps_until(at) - self.first
        begin = max(0, last - KEPT_STEPS + 1)
        known = self.values[begin : max(0, last + 1)]
        return history_of(self.first + begin, known) if known else None


def recorded(seen: Mapping[Key, Sequence[float]], span: Span, scrape_interval: float) -> Recorded:
    """The replicas behind samples.

    Args:
        seen: by pod, the times (Unix s) of its samples, ascending; of several within one step one is enough.
        span: the instants at which samples were looked for; it may begin before the period.
        scrape_interval: seconds.
    """
    # To within a step: a thousand replicas have millions of samples, and the holes that matter are long.
    fleet = sorted({at // span.step * span.step for found in seen.values() for at in found})
    margin = 2 * max(scrape_interval, span.step)
    lives = [
        Life(pod, stretch[0], _end(stretch[-1], span.end, margin / 2), began=stretch[0] > span.start + margin)
        for pod, found in seen.items()
        for stretch in _stretches(found, fleet, margin)
    ]
    return Recorded(
        tuple(sorted(lives, key=lambda life: (life.start, life.pod))),
        scrape_interval,
        tuple(_gaps([*fleet, span.end], max(LOOKBACK, margin))),
    )


def interval_of(counts: Iterable[float], window: float) -> float | None:
    """The scrape interval (s), from how many samples were found in windows of that many seconds."""
    known = [count for count in counts if count > 0]
    return window / median(known) if known else None


def _end(last: float, until: float, interval: float) -> float:
    return math.inf if last >= until - LOOKBACK else last + interval


def _stretches(times: Sequence[float], fleet: Sequence[float], margin: float) -> Iterator[Sequence[float]]:
    """The samples of one name, cut where its replica was away."""
    first = 0
    for number in range(1, len(times)):
        before, after = times[number - 1], times[number]
        others = bisect_left(fleet, after - margin) - bisect_right(fleet, before + margin)
        if after - before > LOOKBACK + margin and others > 0:
            yield times[first:number]
            first = number
    yield times[first:]


def _gaps(times: Sequence[float], longest: float) -> Iterator[tuple[float, float]]:
    for before, after in pairwise(times):
        if after - before > longest:
            yield before, after
