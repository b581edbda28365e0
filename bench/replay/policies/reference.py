"""References: a fixed fleet, and one that knows the future.

The clairvoyant heuristic is an upper reference and not the optimum: it wants what the highest demand between
now and a little after a new pod could serve needs, and it knows that demand from the workload itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.replay.policies.signals import PROMPT_WEIGHT
from bench.replay.view import View
from testbed.trace import TraceRequest

SMOOTHING_SECONDS = 60
MARGIN_SECONDS = 60


@dataclass(slots=True)
class Static:
    """Always the same."""

    replicas: int
    interval: float = 60.0

    def decide(self, view: View) -> int:
        """The fixed number."""
        del view
        return self.replicas


def weighted_demand(arrivals: Sequence[TraceRequest], duration: float) -> NDArray[np.float64]:
    """Weighted tokens/s that arrive, smoothed over 60 s, for each second of the workload."""
    work = np.zeros(math.ceil(duration) + 1)
    for request in arrivals:
        if request.arrival < duration:
            work[int(request.arrival)] += request.output_tokens + PROMPT_WEIGHT * request.prompt_tokens
    summed = np.concatenate([[0.0], np.cumsum(work)])
    ends = np.arange(1, len(work) + 1)
    starts = np.maximum(ends - SMOOTHING_SECONDS, 0)
    smoothed: NDArray[np.float64] = (summed[ends] - summed[starts]) / (ends - starts)
    return smoothed


@dataclass(slots=True)
class Clairvoyant:
    """The clairvoyant heuristic.

    Attributes:
        demand: from `weighted_demand`.
        capacity: weighted tokens/s that one replica is to carry.
        horizon: seconds that a pod takes to serve, at the longest that is reckoned with.
        minimum: fewest replicas.
        maximum: most replicas.
    """

    demand: NDArray[np.float64]
    capacity: float
    horizon: float
    minimum: int
    maximum: int
    interval: float = 15.0
    _end: int = field(init=False)

    def __post_init__(self) -> None:
        self._end = len(self.demand)

    def decide(self, view: View) -> int:
        """The highest demand of the time that this decision is for."""
        start = min(int(view.now), self._end - 1)
        ahead = self.demand[start : start + math.ceil(self.horizon) + MARGIN_SECONDS]
        return min(max(math.ceil(float(ahead.max()) / self.capacity), self.minimum), self.maximum)
