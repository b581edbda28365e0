"""llm-d's Workload Variant Autoscaler, version 2 (token-based), after its rules and not its code: ``-like``.

Source: llm-d/llm-d-workload-variant-autoscaler b08b1c77: a replica's capacity is a share of its KV cache
(0.8 by default); demand is the tokens in use plus queued requests at the average prompt's length; more is
required where demand / 0.85 exceeds the supply of ready and pending replicas, and spare is what ready ones
supply beyond demand / 0.70. The number goes through an HPA with 240 s of stabilization in both directions.
Requests that the gateway holds count like those that wait in the engines.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from bench.replay.prometheus import Unavailable
from bench.replay.view import View

SCALE_UP_AT, SCALE_DOWN_AT = 0.85, 0.70
STABILIZATION_SECONDS = 240.0


@dataclass(slots=True)
class WvaLike:
    """One variant.

    Attributes:
        share: of its KV cache that a replica is to fill.
        kv_capacity: tokens that it holds.
        minimum: fewest replicas.
        maximum: most replicas.
    """

    share: float
    kv_capacity: int
    minimum: int
    maximum: int
    interval: float = 30.0
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, view: View) -> int:
        """One optimization, and the HPA behind it."""
        try:
            demand = self._demand(view)
        except Unavailable:
            return view.replicas
        if demand is None:
            return view.replicas
        wanted = wva(view.status_replicas, view.ready, demand, self.share)
        self._recommended.append((view.now, min(max(wanted, self.minimum), self.maximum)))
        while self._recommended[0][0] <= view.now - STABILIZATION_SECONDS:
            self._recommended.popleft()
        window = [n for _, n in self._recommended]
        return min(max(view.replicas, min(window)), max(window))

    def _demand(self, view: View) -> float | None:
        """In KV caches; None when nobody answers."""
        used = view.prometheus.instant("kv_cache_usage_perc", view.now)
        waiting = sum(view.prometheus.instant("num_requests_waiting", view.now).values())
        gateway = view.gateway
        waiting += gateway.queued
        prompt = gateway.prompt_tokens / gateway.requests if gateway.requests else 0.0
        return sum(used.values()) + waiting * prompt / self.kv_capacity if used else None


def wva(replicas: int, ready: int, demand: float, share: float) -> int:
    """The rule.

    Args:
        replicas: ready and pending.
        ready: those that serve.
        demand: in KV caches.
        share: of a cache that a replica is to fill.
    """
    required = demand / SCALE_UP_AT - share * replicas
    if required > 0:
        return replicas + math.ceil(required / share)
    spare = share * ready - demand / SCALE_DOWN_AT
    return replicas - math.floor(spare / share) if spare > 0 and ready == replicas else replicas
