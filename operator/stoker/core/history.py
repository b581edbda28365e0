"""The demand of the last two weeks, in steps of ten minutes: how to ask for it, and what it tells of today.

Rules of this module:

* Only the shape counts: how the demand moved at this time of the day, or of the week, relative to its level.
* Days are days of UTC: nobody knows where the callers live. When their clocks change, the shape of the days
  before is an hour off, its forecasts go wrong, and their weight falls until enough new days are known.
* Pods of the past are gone from the API server, but their names say whose they were:
  ``<ModelDeployment>-<revision>-<ordinal>``.
* A step that is not known is NaN, never zero.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from stoker.api.v1alpha1 import Season
from stoker.core.outlook import Accuracy
from stoker.core.readings import Key, MetricNames, Series, Signal

STEP_SECONDS = 600.0
KEPT_STEPS = 14 * 144
"""Two weeks: 8 KiB per ModelDeployment."""

CHUNK_STEPS = 144
"""Steps per range query: a day of a thousand ModelDeployments is an answer of a few MB."""

PROMPT_WEIGHT = 0.3
"""Cost of a prompt token relative to a generated one, for the shape: it may differ from what is learned."""

LEAST_SHARE = 0.05
"""Below this share of the median, a level is too low to relate a growth to."""

_DAY = 86_400.0
_PERIODS: Mapping[Season, tuple[float, ...]] = {
    Season.DAILY: tuple(_DAY * n for n in range(1, 14)),
    Season.WEEKLY: (7 * _DAY,),
}
_JUDGED_STEPS = 2 * 144
"""The track record is that of the latest two days."""


@dataclass(frozen=True, slots=True)
class History:
    """The demand of one ModelDeployment."""

    first: int
    """Number of the first step: Unix s of its end, divided by STEP_SECONDS."""
    values: Sequence[float]
    """Mean demand of each step."""
    usual: float
    """Median of the steps with any demand."""
    record: Mapping[Season, Accuracy] = field(default_factory=dict)
    """How forecasts from the days before would have done on the latest two days."""

    def at(self, when: float) -> float:
        """The demand at a moment (Unix s), between the middles of two steps; NaN where one is not known."""
        place = when / STEP_SECONDS - self.first + 0.5
        step = math.floor(place)
        if not 0 <= step < len(self.values) - 1:
            return math.nan
        share = place - step
        return self.values[step] * (1 - share) + self.values[step + 1] * share

    def growth(self, season: Season, now: float, ahead: float) -> float | None:
        """By which share the demand grew from this time of the day or week on, within ``ahead`` seconds.

        The medians of the former days (or weeks) at both moments are compared. None when none is known.
        """
        pairs = [(self.at(now - period), self.at(now + ahead - period)) for period in _PERIODS[season]]
        return self._grown(pairs)

    def growth_of_step(self, season: Season, place: int) -> float | None:
        """Likewise from one step to the next, of those that are known: ``place`` counts from 0."""
        former = [place - round(period / STEP_SECONDS) for period in _PERIODS[season]]
        return self._grown([(self.values[n], self.values[n + 1]) for n in former if n >= 0])

    def _grown(self, pairs: Iterable[tuple[float, float]]) -> float | None:
        known = [pair for pair in pairs if math.isfinite(pair[0] + pair[1])]
        if not known:
            return None
        before, after = median([b for b, _ in known]), median([a for _, a in known])
        return (after - before) / max(before, LEAST_SHARE * self.usual)


def history_of(first: int, values: Sequence[float]) -> History | None:
    """What is known of one ModelDeployment; None when it had no demand.

    Args:
        first: Number of the first step.
        values: Demand by step; what is no demand (NaN, infinite, negative) is a gap.
    """
    kept = array("f", (v if 0 <= v < math.inf else math.nan for v in values))
    known = [v for v in kept if v > 0]
    if not known:
        return None
    plain = History(first, kept, median(known))
    return History(first, kept, plain.usual, {season: _record(plain, season) for season in _PERIODS})


def _record(history: History, season: Season) -> Accuracy:
    """Each of the latest steps, forecast from the days (or the week) before it."""
    accuracy = Accuracy()
    last = len(history.values) - 1
    for step in range(max(0, last - _JUDGED_STEPS), last):
        base, after = history.values[step], history.values[step + 1]
        growth = history.growth_of_step(season, step)
        if growth is None or not math.isfinite(base + after):
            continue
        scale = max(base, after)
        if scale > 0:
            accuracy = accuracy.after((after - base) / scale, max(0.0, growth) * base / scale)
    return accuracy


# --- PromQL --------------------------------------------------------------------------------------

QUERY = "history"
"""Name of the query, in metrics."""


def query(engines: Iterable[MetricNames]) -> str:
    """One query for the demand of every ModelDeployment that speaks one of these; empty without any.

    The demand is the weighted rate of tokens; of an engine that does not count tokens, the rate of its
    requests; of one that counts nothing, its requests in flight.
    """
    return " or ".join(sorted({_demand(metrics) for metrics in engines}))


def _demand(metrics: MetricNames) -> str:
    generated = metrics.series.get(Signal.GENERATED_TOKENS)
    prompt = metrics.series.get(Signal.PROMPT_TOKENS)
    requests = metrics.series.get(Signal.REQUESTS)
    if generated and prompt:
        tokens = _per_model(_rate(generated))
        return f"({tokens} + {PROMPT_WEIGHT} * {_per_model(_rate(prompt))} or {tokens})"
    if generated or requests:
        return _per_model(_rate(generated or requests or ()))
    return _per_model(_either(f"avg_over_time({s}[10m])" for s in metrics.series[Signal.RUNNING]))


def _rate(series: Iterable[Series]) -> str:
    return _either(f"rate({one}[10m])" for one in series)


def _either(expressions: Iterable[str]) -> str:
    """The first of the alternatives that a pod has."""
    return " or ".join(f"sum by (namespace, pod) ({expression})" for expression in expressions)


def _per_model(expression: str) -> str:
    labelled = f'label_replace({expression}, "model", "$1", "pod", "(.+)-[0-9a-f]+-[0-9]+")'
    return f"sum by (namespace, model) ({labelled})"


def whose(labels: Mapping[str, str]) -> Key | None:
    """The ModelDeployment that an answer is about; None for pods that are not named as Stoker's."""
    model = labels.get("model", "")
    return Key(labels.get("namespace", ""), model) if model else None


def steps_until(now: float) -> int:
    """Number of the last step that is over."""
    return int(now // STEP_SECONDS)
