"""What the controller tells while it works, turned into metrics and health."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol

from stoker.core.plan import Plan
from stoker.core.readings import Key
from stoker.telemetry.health import HealthState
from stoker.telemetry.metrics import Metrics


class Ending(Protocol):
    """How a plan ended."""

    @property
    def outcome(self) -> str:
        """One word; ``done`` is success."""


class Observer:
    """Implements the controller's ``Observer``.

    Args:
        metrics: the operator's own.
        health: likewise.
        monotonic: seconds, for ages.
        clock: Unix seconds, for time stamps.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: HealthState,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._monotonic = monotonic
        self._clock = clock
        self._started = clock()
        self._counted: dict[Key, float] = {}

    def synced(self) -> None:
        """The first full view is there."""
        self._health.synced()

    def tick(self, phase: str, seconds: float) -> None:
        """A phase (gather, decide, act) took this long, in seconds."""
        self._metrics.tick(phase, seconds)
        if phase == "decide":
            self._metrics.decided(self._clock())
            self._health.tick_finished(ok=True)
        elif phase == "gather":
            self._health.gathered(self._monotonic())

    def tick_failed(self, error: str) -> None:
        """Deciding raised: a bug, which ``/readyz`` shows."""
        self._health.tick_finished(ok=False, error=error)
        self._metrics.reconciled("error")

    def queue(self, length: int, oldest_seconds: float) -> None:
        """How much work waits, and for how long."""
        self._metrics.queue(length, oldest_seconds)
        self._health.queue(length, oldest_seconds, self._monotonic())

    def planned(self, plan: Plan, result: Ending | None) -> None:
        """A plan was made (None) or carried out."""
        if result is None:
            if plan.error is not None:
                self._metrics.reconciled("error")
            elif not plan.actions and plan.status is None and not plan.events:
                self._metrics.reconciled("unchanged")
            return
        self._metrics.reconciled(str(result.outcome))
        if result.outcome == "done":
            for action in plan.actions:
                self._metrics.action(_snake(type(action).__name__))
            self._count_decision(plan)

    def forgotten(self, key: Key) -> None:
        """A ModelDeployment is gone."""
        self._counted.pop(key, None)

    def _count_decision(self, plan: Plan) -> None:
        """Count a decision once: a status repeats its last one until the next, also across a restart."""
        decision = plan.status.scaling.last_decision if plan.status and plan.status.scaling else None
        if decision is None:
            return
        at = decision.time.timestamp()  # whole seconds
        if at <= self._counted.get(plan.key, self._started - 1.0):
            return
        self._counted[plan.key] = at
        self._metrics.scaled(decision.reason)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
