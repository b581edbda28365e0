"""NVIDIA Dynamo's planner, after its rules and not its code: ``-like``.

Source: ai-dynamo/dynamo, components/src/dynamo/planner/core and config/defaults.py: every 180 s the demand of
the frontend is forecast (here: as in the last interval, its ``constant`` predictor) and divided by what an
engine carries at the objective, which gives a lower bound; every 5 s one replica is added if all engines miss
the objective, or removed if all are below 80 % of it; nothing is done while a change is under way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from bench.replay.fleet import SimulatedPod
from bench.replay.policies.signals import PROMPT_WEIGHT
from bench.replay.scores import TPOT_SECONDS
from bench.replay.view import Gateway, View

FORECAST_SECONDS = 180.0
RELAXED = 0.8


@dataclass(slots=True)
class DynamoLike:
    """The planner of one pool of engines.

    Attributes:
        capacity: weighted tokens/s that an engine carries at the objective, from its profile.
        minimum: fewest replicas.
        maximum: most replicas.
    """

    capacity: float
    minimum: int
    maximum: int
    interval: float = 5.0
    _floor: int = 1
    _before: Gateway | None = None
    _at: float = 0.0
    _engines: dict[int, tuple[int, int]] = field(default_factory=dict)

    def decide(self, view: View) -> int:
        """One round of the load mode, with the throughput mode's bound below it."""
        self._forecast(view)
        if view.ready != view.replicas or any(pod.draining for pod in view.pods):
            return view.replicas
        wanted = max(view.replicas + self._step(view), self._floor)
        return min(max(wanted, self.minimum), self.maximum)

    def _forecast(self, view: View) -> None:
        before = self._before
        if before is None:
            self._before, self._at, self._floor = replace(view.gateway), view.now, view.replicas
        elif view.now - self._at >= FORECAST_SECONDS:
            demand = weighted_rate(before, view.gateway, view.now - self._at)
            self._floor = math.ceil(demand / self.capacity)
            self._before, self._at = replace(view.gateway), view.now

    def _step(self, view: View) -> int:
        latencies = [self._iteration(pod) for pod in view.pods if pod.ready]
        if latencies and min(latencies) > TPOT_SECONDS:
            return 1
        return -1 if latencies and max(latencies) < RELAXED * TPOT_SECONDS else 0

    def _iteration(self, pod: SimulatedPod) -> float:
        """Mean seconds of the engine's iterations since the last round, those with prompts included."""
        counters = pod.replica.counters
        busy, iterations = self._engines.get(pod.ordinal, (0, 0))
        self._engines[pod.ordinal] = (counters.busy_ps, counters.iterations)
        return (counters.busy_ps - busy) / 1e12 / max(1, counters.iterations - iterations)


def weighted_rate(before: Gateway, now: Gateway, seconds: float) -> float:
    """Weighted tokens/s that arrived between two states of the gateway; answers at their average length."""
    finished = now.finished - before.finished
    output = (now.output_tokens - before.output_tokens) / finished if finished else 0.0
    requests = now.requests - before.requests
    prompt = now.prompt_tokens - before.prompt_tokens
    return (requests * output + PROMPT_WEIGHT * prompt) / seconds
