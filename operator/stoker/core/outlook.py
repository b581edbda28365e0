"""What forecasting remembers of one ModelDeployment: the demand of the last minutes, and how right it was.

Rules of this module:

* Time is cut into slots; a slot's level is the mean of the demand over the time in which it was known. So it
  does not matter how often somebody looked.
* What is unknown is a gap, never zero. A clock that stepped back, or a demand in another unit, starts anew.
* The memory is bounded: MAX_LEVELS levels, one expectation per slot up to MAX_AHEAD slots ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stoker.api.v1alpha1 import ForecastStatus, Season

SLOT_SECONDS = 30.0
"""Length of a slot: half of the shortest rate window, so that a level is no noisier than the rate itself."""

MAX_LEVELS = 10
"""Levels that are remembered: the five minutes that the trend is made of."""

MAX_AHEAD = 60
"""Slots ahead that are forecast at most: half an hour."""

HOLDS_SECONDS = 60.0
"""A demand that was measured holds for so long at most; then there is a gap."""

PROOF = 0.02
"""Σ expected² that makes half a proof: twice a growth by ten percent, or fifty times one by two."""

HALF_LIFE_SLOTS = 240
"""After so many slots, two hours, an error counts half."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one slot's forecast said."""

    slot: int
    """Which slot it is about."""
    base: float
    """The demand when it was made."""
    growth: tuple[float, ...]
    """What each part, in the order of ``Season``, expected to be added by then."""
    said: float
    """What was expected in all."""
    part: Season | None = None
    """The part that was followed; None when none expected any growth."""
    weight: float = 0.0
    """How much of that part was believed."""
    skill: float = 0.0
    """What it had explained until then."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How what was expected to be added went together with what was: decayed sums.

    ``weight`` is the least-squares factor between the two: 1 when the forecasts were right, 0.5 when half of
    what they said came, 0 when nothing came or the opposite.
    """

    product: float = 0.0
    """Σ came × expected."""
    square: float = 0.0
    """Σ expected²."""
    change: float = 0.0
    """Σ came²."""
    count: float = 0.0
    """How many forecasts said that something would be added."""

    def weight(self, prior: float, prior_count: float) -> float:
        """0 … 1: how much of a forecast to believe; ``prior`` counts like so many forecasts."""
        if self.square <= 0:
            return prior
        fitted = min(1.0, max(0.0, self.product / self.square))
        return (self.count * fitted + prior_count * prior) / (self.count + prior_count)

    def believed(self) -> float:
        """0 … 1: the weight of what has a track record and no prior; small growths prove little."""
        return min(1.0, max(0.0, self.product / (self.square + PROOF)))

    def skill(self, weight: float) -> float:
        """Share of the changes' squares that the weighted forecasts explained; 0 is persistence."""
        if self.change <= 0:
            return 0.0
        return max(0.0, (2 * weight * self.product - weight**2 * self.square) / self.change)

    def after(self, came: float, expected: float) -> Accuracy:
        """With one more forecast: ``expected`` to be added, ``came``, relative to the same level."""
        decay = 0.5 ** (1 / HALF_LIFE_SLOTS)
        return Accuracy(
            self.product * decay + came * expected,
            self.square * decay + expected * expected,
            self.change * decay + came * came,
            self.count * decay + (expected > 0),
        )


_UNTRIED = tuple(Accuracy() for _ in Season)
"""Of parts that have said nothing yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """Replicas that an expectation asks for, and the last slot in which they are kept for it."""

    slot: int
    """Which slot it is about."""
    until: int
    load: float
    said: float
    """The demand that was expected."""


class Outlook(NamedTuple):
    """The demand of the last minutes, in slots, and the forecasts that wait for their moment."""

    unit: str
    slot: int
    """The slot that is being filled."""
    at: float
    """Last look, Unix s."""
    value: float | None
    """The demand at the last look; None when it was not known."""
    area: float = 0.0
    """Demand × seconds of this slot so far."""
    seconds: float = 0.0
    """Seconds of this slot in which the demand was known."""
    levels: tuple[float, ...] = ()
    """Of the slots before this one, oldest first; NaN for a gap."""
    pending: tuple[Expectation, ...] = ()
    """Oldest first."""
    accuracy: tuple[Accuracy, ...] = _UNTRIED
    came: tuple[Expectation, float] | None = None
    """The last expectation of a growth whose moment has passed, and what came."""
    held: tuple[Held, ...] = ()
    """Ever less, ever later."""
    status: ForecastStatus | None = None
    """As published: made anew once per slot."""


def begun(unit: str, value: float | None, now: float) -> Outlook:
    """An outlook that knows nothing yet."""
    return Outlook(unit, int(now // SLOT_SECONDS), now, value)


def continues(outlook: Outlook, unit: str, now: float) -> bool:
    """Whether what is remembered has to do with now."""
    return unit in (outlook.unit, "") and 0 <= now - outlook.at <= MAX_LEVELS * SLOT_SECONDS


def fill(outlook: Outlook, until: float) -> Outlook:
    """The slot filled with the last known demand up to ``until``, which lies within it or at its end."""
    area, seconds = filled(outlook, until)
    return outlook._replace(area=area, seconds=seconds)


def filled(outlook: Outlook, until: float) -> tuple[float, float]:
    """Likewise: its area and the seconds in which the demand was known."""
    since = max(outlook.at, outlook.slot * SLOT_SECONDS)
    seconds = max(0.0, min(until, outlook.at + HOLDS_SECONDS) - since)
    if outlook.value is None:
        return outlook.area, outlook.seconds
    return outlook.area + outlook.value * seconds, outlook.seconds + seconds


def closed(outlook: Outlook) -> Outlook:
    """The slot is over: its level is the mean, or a gap when less than half of it was known."""
    known = outlook.seconds >= SLOT_SECONDS / 2
    level = outlook.area / outlook.seconds if known else math.nan
    levels = (*outlook.levels, level)[-MAX_LEVELS:]
    return scored(outlook._replace(slot=outlook.slot + 1, area=0.0, seconds=0.0, levels=levels), level)


def scored(outlook: Outlook, level: float) -> Outlook:
    """The expectations for the slot that has just ended, compared with what came."""
    slot = outlook.slot - 1
    due = [e for e in outlook.pending if e.slot == slot and math.isfinite(level)]
    outlook = outlook._replace(
        pending=tuple(e for e in outlook.pending if e.slot > slot),
        held=tuple(h for h in outlook.held if h.until > slot),
    )
    for expectation in due:
        outlook = _compared(outlook, expectation, level)
    return outlook


def _compared(outlook: Outlook, expectation: Expectation, level: float) -> Outlook:
    scale = max(expectation.base, level)  # of a small fleet and of a large one each hour counts the same
    came = (level - expectation.base) / scale if scale > 0 else 0.0
    accuracy = tuple(
        known.after(came, growth / scale if scale > 0 else 0.0)
        for known, growth in zip(outlook.accuracy, expectation.growth, strict=True)
    )
    grew = expectation.said > expectation.base  # else nothing was said that could be right or wrong
    return outlook._replace(accuracy=accuracy, came=(expectation, level) if grew else outlook.came)


def trend(levels: Sequence[float]) -> float | None:
    """Change per slot: the median of the slopes between all pairs of the last levels (Theil–Sen).

    Robust against outliers in up to 29 % of the levels (P. K. Sen, JASA 63, 1968). None when the last level,
    or more than a third of the others, is not known.
    """
    known = [(n, v) for n, v in enumerate(levels) if math.isfinite(v)]
    if len(known) < 2 / 3 * MAX_LEVELS or not math.isfinite(levels[-1]):
        return None
    slopes = sorted((b - a) / (n - m) for i, (m, a) in enumerate(known) for n, b in known[i + 1 :])
    middle = len(slopes) // 2
    return slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2
