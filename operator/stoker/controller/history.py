"""The history of the fleet's demand: read once after the start, then the new steps every hour.

Rules of this module:

* One range query for all ModelDeployments, a day at a time, one after another, on a connection of its own: it
  neither competes with the queries of a tick nor delays one. What takes computing is done in a thread.
* A failure means that there is no shape of the days yet, and is said in status; it is tried again soon.
* What is kept is bounded: two weeks in steps of ten minutes, of the ModelDeployments that forecast.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stoker.api.v1alpha1 import Forecast
from stoker.clients.answers import Matrix, Span
from stoker.controller.store import Store
from stoker.core.history import (
    CHUNK_STEPS,
    KEPT_STEPS,
    QUERY,
    STEP_SECONDS,
    History,
    history_of,
    query,
    steps_until,
    whose,
)
from stoker.core.observed import ModelDeployment
from stoker.core.readings import Key
from stoker.core.signals import Failed

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 300.0

Steps = dict[Key, "array[float]"]
"""Demand by step, the last KEPT_STEPS of them; NaN where it is not known."""


class RangeAsker(Protocol):
    """The part of the Prometheus client that reading the history needs."""

    async def query_range_all(self, queries: Mapping[str, str], span: Span) -> Mapping[str, Matrix | Failed]:
        """Ask all queries at every step of a stretch of time; never raises."""


class Historian:
    """The demand of the days before.

    Args:
        store: Which deployments there are.
        prometheus: A client of its own, with time for long answers.
        clock: Unix seconds.
    """

    def __init__(self, store: Store, prometheus: RangeAsker, clock: Callable[[], float]) -> None:
        self._store = store
        self._prometheus = prometheus
        self._clock = clock
        self._steps: Steps = {}
        self._last = 0
        self._read: frozenset[Key] = frozenset()
        self.histories: Mapping[Key, History] = {}
        self.why = "Prometheus has not been asked for it yet"
        """Why a ModelDeployment has none."""

    async def refresh(self) -> float:
        """Read what is new; in how many seconds to do it again."""
        scaled = [d for d in self._store.deployments.values() if _forecasts(d)]
        if not scaled:
            self.histories = {}
            return RETRY_SECONDS
        wanted, last = frozenset(d.key for d in scaled), steps_until(self._clock())
        text = query(d.metrics for d in scaled if d.metrics is not None)
        goes_on = wanted <= self._read and 0 <= last - self._last < KEPT_STEPS
        spans = _spans(self._last + 1 if goes_on else last - KEPT_STEPS + 1, last)
        steps = {key: _moved(self._steps.get(key), last - self._last) for key in wanted}
        for span in spans:
            answer = (await self._prometheus.query_range_all({QUERY: text}, span))[QUERY]
            if isinstance(answer, Failed):
                self.why = f"Prometheus: {answer.why}"
                return RETRY_SECONDS
            await asyncio.to_thread(_take, steps, answer, span, last)
        self.histories = await asyncio.to_thread(_histories, steps, last)
        self._steps, self._last, self._read = steps, last, wanted
        self.why = "Prometheus knows nothing of the days before"
        return REFRESH_SECONDS


def _forecasts(deployment: ModelDeployment) -> bool:
    spec = deployment.spec
    return (
        not deployment.deleting
        and spec is not None
        and spec.scaling is not None
        and spec.scaling.forecast is Forecast.AUTO
    )


def _spans(first: int, last: int) -> list[Span]:
    """A day at a time, oldest first."""
    return [
        Span(begin * STEP_SECONDS, min(begin + CHUNK_STEPS - 1, last) * STEP_SECONDS, STEP_SECONDS)
        for begin in range(first, last + 1, CHUNK_STEPS)
    ]


def _moved(known: array[float] | None, steps: int) -> array[float]:
    """The steps, so many later; a clock that stepped back leaves nothing of them."""
    kept = known[steps:] if known is not None and 0 <= steps < KEPT_STEPS else array("f")
    return kept + array("f", [math.nan]) * (KEPT_STEPS - len(kept))


def _take(steps: Steps, answer: Matrix, span: Span, last: int) -> None:
    """Write an answer into the steps of those it is about."""
    offset = round(span.start / STEP_SECONDS) - (last - KEPT_STEPS + 1)
    for course in answer.courses:
        key = whose(course.labels)
        if key is not None and key in steps:
            for number, value in course.values.items():
                steps[key][offset + number] = value


def _histories(steps: Mapping[Key, Sequence[float]], last: int) -> dict[Key, History]:
    found = {key: history_of(last - KEPT_STEPS + 1, values) for key, values in steps.items()}
    return {key: history for key, history in found.items() if history is not None}
