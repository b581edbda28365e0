"""AIBrix's APA, read in one commit of its source and never run: hence ``-like``.

Source: vllm-project/aibrix e3e10f9e, pkg/controller/podautoscaler: every 10 s; the average of the pods that
answered over 180 s; tolerance 0.1; at most twice, at least half the pods that the spec asks for; cool-down
300 s on the way down. As coded, the cool-down takes the lowest recommendation of its time; corrected, the
highest, as the HPA does.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from bench.replay.view import View

STABLE_SECONDS = 180.0
TOLERANCE = 0.1
MAX_RATE = 2.0
COOLDOWN_SECONDS = 300.0


@dataclass(slots=True)
class ApaLike:
    """APA on requests in flight per pod, which it reads from the pods themselves.

    Attributes:
        target: average per pod.
        minimum: fewest replicas.
        maximum: most replicas.
        corrected: whether the cool-down takes the highest recommendation instead of the lowest.
    """

    target: float
    minimum: int
    maximum: int
    corrected: bool
    interval: float = 10.0
    _samples: deque[tuple[float, float]] = field(default_factory=deque)
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, view: View) -> int:
        """One reconciliation."""
        answering = [pod.in_flight for pod in view.pods if pod.ready and not pod.draining]
        if not answering:
            return view.replicas
        self._samples.append((view.now, sum(answering) / len(answering)))
        while self._samples[0][0] <= view.now - STABLE_SECONDS:
            self._samples.popleft()
        ratio = sum(value for _, value in self._samples) / len(self._samples) / self.target
        desired = self._cooled(apa(view.replicas, ratio), view)
        return min(max(desired, self.minimum), self.maximum)

    def _cooled(self, desired: int, view: View) -> int:
        self._recommended.append((view.now, desired))
        while self._recommended[0][0] <= view.now - COOLDOWN_SECONDS:
            self._recommended.popleft()
        if desired >= view.replicas:
            return desired
        choose = max if self.corrected else min
        return min(choose(n for _, n in self._recommended), view.replicas)


def apa(replicas: int, ratio: float) -> int:
    """The rule: replicas times metric over target, within a tolerance and rates.

    Args:
        replicas: that the spec asks for, loading ones included.
        ratio: average over target.
    """
    if ratio > 1 + TOLERANCE:
        return min(math.ceil(replicas * ratio), math.ceil(replicas * MAX_RATE))
    if ratio < 1 - TOLERANCE:
        return max(math.ceil(replicas * ratio), math.floor(replicas / MAX_RATE))
    return replicas
