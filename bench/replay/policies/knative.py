"""Knative's pod autoscaler (KPA) on concurrency.

Source: knative/serving 98e5ef90, pkg/autoscaler/scaling/autoscaler.go, defaults of
config/core/configmaps/autoscaler.yaml: tick 2 s, stable window 60 s, panic window 10 %, panic threshold
200 %, scale-up rate 1000, scale-down rate 2, no scale-down delay. The metric is the queue-proxies'
concurrency, which does not go through Prometheus: requests in flight, sampled at each tick.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from bench.replay.view import View

STABLE_SECONDS, PANIC_SECONDS = 60.0, 6.0
PANIC_THRESHOLD = 2.0
MAX_UP, MAX_DOWN = 1000.0, 2.0


@dataclass(slots=True)
class KnativePodAutoscaler:
    """One KPA.

    Attributes:
        target: concurrency per pod, after ``target-utilization-percentage``.
        minimum: fewest replicas.
        maximum: most replicas.
        delay: ``scale-down-delay``, seconds: the highest of that time wins.
        panic_threshold: wanted over ready pods from which on it panics.
    """

    target: float
    minimum: int
    maximum: int
    delay: float = 0.0
    panic_threshold: float = PANIC_THRESHOLD
    interval: float = 2.0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    _decided: deque[tuple[float, int]] = field(default_factory=deque)
    _panic_since: float | None = None
    _panic_replicas: int = 0
    _started: bool = False

    def decide(self, view: View) -> int:
        """One tick."""
        now, ready = view.now, max(1, view.ready)
        if not self._started and view.ready > 1:  # begins in panic: it has no history to go down by
            self._panic_since, self._panic_replicas = now, view.ready
        self._started = True
        self._samples.append((now, sum(pod.in_flight for pod in view.pods)))
        while self._samples[0][0] <= now - STABLE_SECONDS:
            self._samples.popleft()
        stable, panic = (self._wanted(now, seconds, ready) for seconds in (STABLE_SECONDS, PANIC_SECONDS))
        self._mode(now, panic[0] / ready >= self.panic_threshold)
        desired = stable[1]
        if self._panic_since is not None:
            self._panic_replicas = max(self._panic_replicas, stable[1], panic[1])
            desired = self._panic_replicas
        return min(max(self._delayed(desired, now), self.minimum), self.maximum)

    def _wanted(self, now: float, seconds: float, ready: int) -> tuple[int, int]:
        """(pods, pods within the rates) for the average of the last ``seconds``."""
        wanted = math.ceil(self._average(now, seconds) / self.target)
        return wanted, min(max(wanted, math.floor(ready / MAX_DOWN)), math.ceil(ready * MAX_UP))

    def _average(self, now: float, seconds: float) -> float:
        values = [n for at, n in self._samples if at > now - seconds]
        return sum(values) / len(values)

    def _mode(self, now: float, over: bool) -> None:
        if over:
            self._panic_since = now
        elif self._panic_since is not None and now - self._panic_since > STABLE_SECONDS:
            self._panic_since, self._panic_replicas = None, 0

    def _delayed(self, desired: int, now: float) -> int:
        self._decided.append((now, desired))
        while len(self._decided) > 1 and self._decided[0][0] <= now - self.delay:
            self._decided.popleft()
        return max(n for _, n in self._decided)
