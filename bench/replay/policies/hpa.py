"""The HorizontalPodAutoscaler of Kubernetes with one external metric of type AverageValue, as KEDA makes it.

Source: kubernetes v1.37.1, pkg/controller/podautoscaler/replica_calculator.go
(GetExternalPerPodMetricReplicas) and horizontal.go (stabilizeRecommendationWithBehaviors,
convertDesiredReplicasWithBehaviorRate, calculateScaleUpLimitWithScalingRules); defaults of
pkg/apis/autoscaling/v2/defaults.go: up 100 % or 4 pods per 15 s, down 100 % per 15 s, 300 s of
stabilization down, 10 % tolerance, 15 s between syncs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.replay.view import View

TOLERANCE = 0.1
PERIOD_SECONDS = 15.0
MOST_PODS, MOST_PERCENT = 4, 100


class MetricError(Exception):
    """The metric could not be read: the HPA does nothing at this sync."""


Metric = Callable[[View], float]


@dataclass(slots=True)
class HorizontalPodAutoscaler:
    """One HPA.

    Attributes:
        metric: the total over the fleet.
        target: average per pod.
        minimum: fewest replicas.
        maximum: most replicas.
        down_stabilization: seconds; the highest recommendation within them wins.
    """

    metric: Metric
    target: float
    minimum: int
    maximum: int
    down_stabilization: float = 300.0
    interval: float = 15.0
    _initialized: bool = False
    _recommendations: list[tuple[float, int]] = field(default_factory=list)
    _ups: list[tuple[float, int]] = field(default_factory=list)
    _downs: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, view: View) -> int:
        """One sync of the controller."""
        current = view.replicas
        if current > self.maximum or current < self.minimum:
            return min(max(current, self.minimum), self.maximum)
        if not self._initialized:  # recordInitialRecommendation
            self._initialized = True
            self._recommendations.append((view.now, current))
        try:
            total = self.metric(view)
        except MetricError:
            return current
        desired = per_pod_replicas(view.status_replicas, total, self.target)
        desired = self._limit(self._stabilize(desired, current, view.now), current, view.now)
        self._note(desired - current, view.now)
        return desired

    def _stabilize(self, desired: int, current: int, now: float) -> int:
        """The highest of the window, never above what is wanted now unless that is to go down."""
        self._recommendations = [
            (at, n) for at, n in self._recommendations if at > now - self.down_stabilization
        ]
        highest = max([desired, *(n for _, n in self._recommendations)])
        self._recommendations.append((now, desired))
        if current < desired:
            return desired  # the up window is 0 s
        return min(current, highest)

    def _limit(self, desired: int, current: int, now: float) -> int:
        """Rates and bounds."""
        if desired > current:
            start = current - _within(self._ups, now) + _within(self._downs, now)
            most = max(start + MOST_PODS, math.ceil(start * (1 + MOST_PERCENT / 100)))
            return min(desired, max(most, current), self.maximum)
        return max(desired, self.minimum)  # 100 % per 15 s: the rate down limits nothing

    def _note(self, change: int, now: float) -> None:
        if change:
            events = self._ups if change > 0 else self._downs
            events[:] = [(at, n) for at, n in events if at > now - PERIOD_SECONDS]
            events.append((now, abs(change)))


def per_pod_replicas(status_replicas: int, total: float, target: float) -> int:
    """GetExternalPerPodMetricReplicas: the replicas that bring the average to the target.

    Args:
        status_replicas: pods that exist, ready or not.
        total: of the metric, over the fleet.
        target: average per pod.
    """
    if status_replicas and 1.0 - TOLERANCE <= total / (target * status_replicas) <= 1.0 + TOLERANCE:
        return status_replicas
    return math.ceil(total / target)


def _within(events: list[tuple[float, int]], now: float) -> int:
    return sum(n for at, n in events if at > now - PERIOD_SECONDS)
