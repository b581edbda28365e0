"""What the traffic has been like lately: how large requests are, how long they stay, how much it varies.

Counters of served tokens show what replicas did, not what was asked of them. What arrived is what was served
plus what came on top of the requests in flight (Little's law, not averaged): with the size of a request
known, a growing batch or queue is demand within one or two scrapes, long before its tokens are counted.

Rules of this module:

* Only complete readings are remembered. A request's size and stay are those of the last minutes; the stay is
  that of times without a queue, for one that waited tells of the queue and not of the request.
* Time counts, not how often somebody looked. A clock that steps starts the memory anew.
* No single reading can make the variance much larger: a step is no fluctuation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

GROWTH_SECONDS = 15.0
"""Over how long the growth of what is in flight is taken: two scrapes of the usual interval."""

REQUEST_HALF_LIFE = 300.0
"""Seconds after which a request's size and stay count half."""

FEWEST = 1.0
"""Of fewer finished requests than this nothing is known."""

VARIANCE_HALF_LIFE = 1800.0
"""Seconds after which a deviation counts half."""

PRIOR_WEIGHT = 3.0
"""The prior variance counts like so many measured deviations."""

PRIOR_VARIANCE = 0.02
"""Variance of a minute's mean load, in replicas, for each replica of load: that of the Azure conversation
trace of 2023 (Azure/AzurePublicDataset), a Poisson process of such requests has a fifth of it."""

MOST_DEVIATIONS = 3.0
"""A deviation counts as so many standard deviations at most."""

LONGEST_GAP = 60.0
"""Seconds without complete readings after which what is known of the present is forgotten."""


class Seen(NamedTuple):
    """Complete readings of one moment, over all replicas."""

    at: float
    """When they were measured, Unix s."""
    running: float
    waiting: float
    finished: float | None
    """Requests/s; None where the engine does not count them."""
    work: float | None
    """Weighted tokens/s; None likewise."""


class InFlight(NamedTuple):
    """How many requests ran and waited at a moment."""

    at: float
    running: float
    waiting: float


class Level(NamedTuple):
    """The work that was done at a moment, weighted tokens/s."""

    at: float
    work: float


class Growth(NamedTuple):
    """How the requests in flight grow, per second; negative while they become fewer."""

    running: float
    waiting: float


class Traffic(NamedTuple):
    """What is remembered of one ModelDeployment's traffic. Losing it is safe."""

    last: Seen | None = None
    in_flight: tuple[InFlight, ...] = ()
    """Of the last minute, oldest first."""
    work: float = 0.0
    """Weighted tokens, older ones counting less; with ``requests`` it makes the size of a request."""
    requests: float = 0.0
    """Finished requests, likewise."""
    stayed: float = 0.0
    """Seconds that requests were in flight while nothing waited, likewise."""
    left: float = 0.0
    """Requests that finished while nothing waited, likewise."""
    staying: float = 0.0
    """Requests that were in flight when nothing waited last: part of ``stayed``, and not of ``left`` yet."""
    levels: tuple[Level, ...] = ()
    """The last two levels, a rate window apart: the third makes a deviation."""
    squares: float = 0.0
    """Squared deviations by the level, older ones counting less, weighted tokens/s."""
    deviations: float = 0.0
    """How many they are."""

    @property
    def size(self) -> float | None:
        """Weighted tokens of a request; None when hardly any has finished lately."""
        return self.work / self.requests if self.requests >= FEWEST and self.work > 0 else None

    @property
    def stay(self) -> float | None:
        """Seconds that a request is in flight when nothing waits; None when that is not known.

        Those that are still in flight count as requests too: where traffic has just begun hardly any has
        finished, and by those few alone a request would seem to stay for minutes.
        """
        if self.left < FEWEST or self.stayed <= 0:
            return None
        return self.stayed / (self.left + self.staying)

    def variance(self, capacity: float) -> float:
        """Variance of the load for each weighted token/s of it, weighted tokens/s.

        Args:
            capacity: Weighted tokens/s of one replica: the unit of the prior.
        """
        prior = PRIOR_VARIANCE * capacity
        return (self.squares + PRIOR_WEIGHT * prior) / (self.deviations + PRIOR_WEIGHT)

    def growth(self, at: float, running: float, waiting: float) -> Growth:
        """How they grew since about GROWTH_SECONDS ago; not at all where that is not known.

        Args:
            at: When the requests were counted, Unix s.
            running: Requests in the batches; a lower bound serves.
            waiting: Requests in the queues, likewise.
        """
        then = next((i for i in reversed(self.in_flight) if i.at <= at - GROWTH_SECONDS), None)
        if then is None or at - then.at > LONGEST_GAP:
            return Growth(0.0, 0.0)
        seconds = at - then.at
        return Growth((running - then.running) / seconds, (waiting - then.waiting) / seconds)


def observed(traffic: Traffic, seen: Seen, rate_window: float, capacity: float) -> Traffic:
    """The memory after a moment whose readings were complete.

    Args:
        traffic: The memory before.
        seen: The readings.
        rate_window: Seconds behind the rates: levels so far apart are independent.
        capacity: Weighted tokens/s of one replica, for what a deviation may count.
    """
    last = traffic.last
    if last is not None and seen.at < last.at:  # the clock stepped back
        return Traffic(last=seen, squares=traffic.squares, deviations=traffic.deviations)
    if last is None or seen.at - last.at > LONGEST_GAP:
        return _counted(traffic._replace(in_flight=(), levels=()), seen)
    traffic = _requests(traffic, last, seen.at - last.at)
    traffic = _varied(traffic, seen, rate_window, capacity)
    return _counted(traffic, seen)


def _counted(traffic: Traffic, seen: Seen) -> Traffic:
    kept = [i for i in traffic.in_flight if i.at >= seen.at - 2 * GROWTH_SECONDS]
    if kept and kept[-1].at == seen.at:  # the same scrape, asked for again
        kept.pop()
    in_flight = (*kept, InFlight(seen.at, seen.running, seen.waiting))
    return traffic._replace(last=seen, in_flight=in_flight)


def _requests(traffic: Traffic, last: Seen, seconds: float) -> Traffic:
    """What the requests were like while the last readings held."""
    if last.finished is None:
        return traffic
    fade = 0.5 ** (seconds / REQUEST_HALF_LIFE)
    done = last.finished * seconds
    work = traffic.work * fade + (last.work or 0.0) * seconds
    requests = traffic.requests * fade + done
    if last.waiting > 0:
        return traffic._replace(work=work, requests=requests)
    fade = fade if done else 1.0
    return traffic._replace(
        work=work,
        requests=requests,
        stayed=traffic.stayed * fade + last.running * seconds,
        left=traffic.left * fade + done,
        staying=last.running,
    )


def _varied(traffic: Traffic, seen: Seen, rate_window: float, capacity: float) -> Traffic:
    """With a third level, a window after the second: how far the second lay from the line between the others.

    For independent levels of equal variance the square of that has 1.5 times their variance in the mean.
    """
    if seen.work is None:
        return traffic
    levels = traffic.levels
    if levels and seen.at - levels[-1].at < rate_window:
        return traffic
    if levels and seen.at - levels[-1].at > 2 * rate_window:
        levels = ()
    now = Level(seen.at, seen.work)
    if len(levels) < 2:
        return traffic._replace(levels=(*levels, now))
    before, middle = levels
    mean = (before.work + middle.work + now.work) / 3
    if mean <= 0:
        return traffic._replace(levels=(middle, now))
    share = (middle.at - before.at) / (now.at - before.at)
    deviation = middle.work - (before.work + share * (now.work - before.work))
    square = min(deviation**2 / 1.5 / mean, MOST_DEVIATIONS**2 * traffic.variance(capacity))
    fade = 0.5 ** ((now.at - middle.at) / VARIANCE_HALF_LIFE)
    return traffic._replace(
        levels=(middle, now),
        squares=traffic.squares * fade + square,
        deviations=traffic.deviations * fade + 1.0,
    )


def headroom(traffic: Traffic, work: float, capacity: float, deviations: float) -> float:
    """So many standard deviations of a load of ``work`` weighted tokens/s, in weighted tokens/s."""
    return deviations * math.sqrt(traffic.variance(capacity) * max(0.0, work))
