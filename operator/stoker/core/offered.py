"""What is offered to a fleet, as against what it serves: work and requests, with what stands in the queues.

Rules of this module:

* Offered is what is served and what comes on top of the requests in flight: saturated replicas hide nothing.
* A queue in an engine can be worked off by that engine alone, however many others are started, and so can a
  batch that is too large. So it keeps one replica busy and counts as one more at most; what arrives meanwhile
  is told by the growth.
* Whatever is not known adds nothing. An incomplete total is a lower bound here as everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stoker.core.demand import Demand
from stoker.core.learning import ReplicaCapacity
from stoker.core.readings import Fresh, Signal
from stoker.core.traffic import Growth, Seen, Traffic, headroom, observed

BACKLOG_SECONDS = 60.0
"""Queued work is to be done within this time, beside the arriving one."""

HEADROOM_DEVIATIONS = 3.0
"""Standard deviations of the load kept free above it: two attain 98 % where three attain 99, cost the same
for the same attainment, and turn round more often (docs/designs/0005-offered-demand.md)."""

OVERFULL = 1.5
"""Where what a replica can hold is learned, its requests count as so many times that at most: all of them
made a fleet of four that was overrun for a minute ask for seventeen, when eight were enough."""

RUNNING_LEFT = 0.5
"""Share of a request's work that one in the batch has before it in the mean."""


@dataclass(frozen=True, slots=True)
class OfferedWork:
    """The work that is offered, weighted tokens/s."""

    served: float
    unserved: float
    """Of requests that came on top, and of queues that are to be worked off: while these become shorter, what
    is served is that already. Never negative."""
    headroom: float
    """For the fluctuations of both."""

    @property
    def total(self) -> float:
        """What arrives and what stands in the queues, without the head-room."""
        return self.served + self.unserved


def work(demand: Demand, traffic: Traffic, capacity: ReplicaCapacity) -> OfferedWork:
    """Weighted tokens per second that are offered to the fleet.

    Args:
        demand: From ``measure``; the generated tokens are known of some replica.
        traffic: What the traffic has been like.
        capacity: Of one replica.
    """
    served = _weighted(demand, capacity.prompt_token_weight)
    size = traffic.size
    unserved = 0.0
    if size is not None:
        coming = _growth(demand, traffic)
        unserved = size * (RUNNING_LEFT * coming.running + coming.waiting)
        unserved += math.fsum(
            [
                min(capacity.tokens_per_second, size * replica.waiting / BACKLOG_SECONDS)
                for replica in demand.in_flight
            ]
        )
    unserved = max(0.0, unserved)
    spare = headroom(traffic, served + unserved, capacity.tokens_per_second, HEADROOM_DEVIATIONS)
    return OfferedWork(served, unserved, spare)


def requests(demand: Demand, traffic: Traffic, per_replica: float, most: float = math.inf) -> float:
    """Requests in flight that the fleet would hold if nothing had to wait for a replica.

    Args:
        demand: From ``measure``; the running requests are known of some replica.
        traffic: What the traffic has been like.
        per_replica: Requests that one replica is to hold.
        most: Requests of one replica that count; all of its batch by default.
    """
    held = math.fsum(
        [min(most, running + min(waiting, per_replica)) for running, waiting in demand.in_flight]
    )
    coming = _growth(demand, traffic)
    return held + (traffic.stay or 0.0) * max(0.0, coming.running + coming.waiting)


def remembered(demand: Demand, traffic: Traffic, capacity: ReplicaCapacity, now: float) -> Traffic:
    """What is remembered of the traffic after this tick; the same where readings are incomplete.

    Args:
        demand: From ``measure``.
        traffic: What was remembered.
        capacity: Of one replica.
        now: Unix s.
    """
    running = demand.totals.get(Signal.RUNNING)
    if running is None or not isinstance(running.reading, Fresh):
        return traffic
    waiting = demand.totals.get(Signal.WAITING)
    if waiting is not None and not waiting.complete:
        return traffic
    seen = Seen(
        at=min(now, running.reading.at),
        running=running.at_least,
        waiting=waiting.at_least if waiting is not None else 0.0,
        finished=_complete(demand, Signal.REQUESTS),
        work=_weighted(demand, capacity.prompt_token_weight) if _tokens_complete(demand) else None,
    )
    return observed(traffic, seen, demand.rate_window, capacity.tokens_per_second)


def _growth(demand: Demand, traffic: Traffic) -> Growth:
    running, waiting = (demand.totals.get(s) for s in (Signal.RUNNING, Signal.WAITING))
    if running is None or not isinstance(running.reading, Fresh):
        return Growth(0.0, 0.0)
    return traffic.growth(
        running.reading.at, running.at_least, waiting.at_least if waiting is not None else 0.0
    )


def _weighted(demand: Demand, prompt_token_weight: float) -> float:
    generated, prompt = (demand.totals.get(s) for s in (Signal.GENERATED_TOKENS, Signal.PROMPT_TOKENS))
    return math.fsum(
        (
            generated.at_least if generated is not None else 0.0,
            prompt_token_weight * prompt.at_least if prompt is not None else 0.0,
        )
    )


def _complete(demand: Demand, signal: Signal) -> float | None:
    total = demand.totals.get(signal)
    return total.at_least if total is not None and total.complete else None


def _tokens_complete(demand: Demand) -> bool:
    return all(
        total.complete
        for s in (Signal.GENERATED_TOKENS, Signal.PROMPT_TOKENS)
        if (total := demand.totals.get(s)) is not None
    )
