"""Forecast: the demand at the moment at which a replica that is asked for now could serve.

Rules of this module:

* A forecast only ever adds. What does not come is given back as soon as its moment has passed.
* It is believed as far as its forecasts came true: the weight of each part is fitted to what came.
* Replicas that start fast need none: up to FAST_SECONDS a part is not used, from twice that on in full.
* The present stays with the other faces: a forecast is by how much the demand grows, not how large it is.
  So a capacity that is not known well yet does not make it wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stoker.api.v1alpha1 import ForecastOutcome, ForecastStatus, Season
from stoker.core.demand import Demand
from stoker.core.faces import Face, needed
from stoker.core.history import PROMPT_WEIGHT, History
from stoker.core.outlook import (
    MAX_AHEAD,
    SLOT_SECONDS,
    Expectation,
    Held,
    Outlook,
    begun,
    closed,
    continues,
    fill,
    filled,
    trend,
)
from stoker.core.readings import Signal
from stoker.core.verdicts import moment

FAST_SECONDS: Mapping[Season, float] = {Season.TREND: 300.0, Season.DAILY: 60.0, Season.WEEKLY: 60.0}
"""Time to ready up to which a part buys nothing; from twice that on it counts in full. In replays trends
could save GPU-hours with 600 s, and cost up to 5 % for nothing with 240 s (docs/designs/0006). What comes
every morning is no less certain with fast starts; up to a minute nobody has to know it."""

SCRAPE_SECONDS = 15.0
"""What the way through Prometheus and the operator's interval add."""

DAMPING = 0.95
"""What is left of a trend after each slot: the damped trend of E. S. Gardner and E. McKenzie (Management
Science 31, 1985)."""

HOLD_SLOTS = 10
"""What a forecast asked for is kept for so many slots, five minutes, or until its moment if that is sooner:
on an hour of waves twice as long cost 4 to 8 % more, and a minute made the count go up and down."""

PRIOR_WEIGHT = 0.5
"""Of a trend that has not been judged yet."""

PRIOR_COUNT = 10.0
"""Forecasts that have to be judged until they weigh as much as the prior."""

RECORD_COUNT = 60.0
"""Likewise to weigh as much as a track record in the history: half an hour against two days."""

NOISE = 0.3
"""Replicas of an expected growth that do not count: as many stay free when replicas go (``scaling``), so that
a count does not go up and down with the noise of its forecasts."""

DOUBTED, TRUSTED = 0.1, 0.5
"""Below the one nothing is believed of forecasts of which so much came, from the other on all of it, and in
between in proportion. A replica too early costs its minutes, one too late its requests: so half is enough."""

MOST_GROWTH = 2.0
"""A forecast never adds more than so many times the demand of now."""


class Ahead(NamedTuple):
    """How far ahead a decision has to look, seconds."""

    ready: float
    """p90 of the time to ready."""
    rate_window: float
    """A rate shows the middle of its window."""
    up: float
    """The up window."""

    @property
    def seconds(self) -> float:
        """From the middle of what is measured now to when a replica that is asked for now serves."""
        whole = self.ready + self.up + self.rate_window / 2 + SCRAPE_SECONDS
        return min(whole, MAX_AHEAD * SLOT_SECONDS)

    @property
    def slots(self) -> int:
        """Likewise, in slots."""
        return max(1, round(self.seconds / SLOT_SECONDS))

    def urgency(self, part: Season) -> float:
        """0 when replicas start so fast that this part buys nothing, 1 when it counts in full."""
        return min(1.0, max(0.0, self.ready / FAST_SECONDS[part] - 1.0))


class Measured(NamedTuple):
    """The demand whose course is followed; ``value`` is None when it is not known now."""

    unit: str
    """Empty when there is no replica to ask."""
    value: float | None


def offered(demand: Demand) -> Measured:
    """Weighted tokens/s; of engines that do not count tokens requests/s, else requests in flight.

    The weight of a prompt token is fixed here: a capacity that is learned anew is no change of the demand.
    """
    if Signal.GENERATED_TOKENS in demand.totals:
        prompt = _known(demand, Signal.PROMPT_TOKENS)
        weighted = PROMPT_WEIGHT * prompt if prompt is not None else None
        return Measured("weighted tokens/s", _sum(_known(demand, Signal.GENERATED_TOKENS), weighted))
    if Signal.REQUESTS in demand.totals:
        return Measured("requests/s", _known(demand, Signal.REQUESTS))
    if Signal.RUNNING in demand.totals:
        both = _sum(_known(demand, Signal.RUNNING), _known(demand, Signal.WAITING))
        return Measured("requests", both)
    return Measured("", None)


def _known(demand: Demand, signal: Signal) -> float | None:
    """The total, if all replicas answered that should; 0 for what the engine does not publish."""
    total = demand.totals.get(signal)
    if total is None:
        return 0.0
    return total.at_least if 0 < total.expected <= total.covered else None


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


# --- One look ------------------------------------------------------------------------------------


def look(
    known: Outlook | None, measured: Measured, ahead: Ahead, history: History | None, now: float
) -> Outlook:
    """Take in the demand of now; each slot that has ended since is judged, and followed by a forecast.

    Args:
        known: From the last look; None after a restart.
        measured: The demand now.
        ahead: How far to look.
        history: Of the days before, if there is any.
        now: Unix s.
    """
    if known is None or not continues(known, measured.unit, now):
        return begun(measured.unit, measured.value, now)
    outlook = known
    while (outlook.slot + 1) * SLOT_SECONDS <= now:
        outlook = closed(fill(outlook, (outlook.slot + 1) * SLOT_SECONDS))
        outlook = _expect(outlook, ahead, history)
    area, seconds = filled(outlook, now)
    return outlook._replace(at=now, value=measured.value, area=area, seconds=seconds)


def _expect(outlook: Outlook, ahead: Ahead, history: History | None) -> Outlook:
    """A forecast made at the end of the last slot."""
    base = outlook.levels[-1]
    if not base > 0:  # NaN: a gap; zero: nothing to relate a growth to
        return outlook
    growth = tuple(_growth(season, outlook, ahead, history) for season in Season)
    slot = outlook.slot - 1 + ahead.slots
    used = tuple(g * ahead.urgency(season) for season, g in zip(Season, growth, strict=True))
    chosen = _choose(outlook, used, history)
    expectation = Expectation(slot, base, growth, base)
    if chosen is not None:
        said, part = base + used[chosen.number] * chosen.weight, tuple(Season)[chosen.number]
        weight = chosen.weight * ahead.urgency(part)
        expectation = Expectation(slot, base, growth, said, part, weight, chosen.skill)
    return outlook._replace(pending=(*outlook.pending, expectation)[-MAX_AHEAD:])


def _growth(season: Season, outlook: Outlook, ahead: Ahead, history: History | None) -> float:
    """What a part expects to be added; 0 when it expects less, or does not know."""
    base = outlook.levels[-1]
    if season is Season.TREND:
        slope = trend(outlook.levels) or 0.0
        found = slope * (1 - DAMPING**ahead.slots) / (1 - DAMPING)
    else:
        now = (outlook.slot - 0.5) * SLOT_SECONDS
        share = history.growth(season, now, ahead.slots * SLOT_SECONDS) if history is not None else None
        found = base * (share or 0.0)
    return min(max(0.0, found), MOST_GROWTH * base)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The part that is followed."""

    number: int
    weight: float
    skill: float


def _choose(outlook: Outlook, growth: Sequence[float], history: History | None) -> _Chosen | None:
    """Of the parts that expect something to be added, the one that has explained most so far."""
    parts = [_judged(outlook, number, history) for number, added in enumerate(growth) if added > 0]
    return max(parts, key=lambda p: (p.skill, p.weight * growth[p.number]), default=None)


def _judged(outlook: Outlook, number: int, history: History | None) -> _Chosen:
    """A part's weight and skill: its own, and before those are known its track record in the history."""
    accuracy, season = outlook.accuracy[number], tuple(Season)[number]
    record = history.record.get(season) if history is not None else None
    if record is None:
        came = accuracy.weight(PRIOR_WEIGHT, PRIOR_COUNT)
        return _Chosen(number, _belief(came), accuracy.skill(came))
    came = accuracy.weight(record.believed(), RECORD_COUNT)
    judged = accuracy if accuracy.count >= RECORD_COUNT else record
    return _Chosen(number, _belief(came), judged.skill(came))


def _belief(came: float) -> float:
    """How much to believe of forecasts of which such a share came."""
    return min(1.0, max(0.0, (came - DOUBTED) / (TRUSTED - DOUBTED)))


# --- What it asks for ----------------------------------------------------------------------------


class Forecast(NamedTuple):
    """One tick's forecast."""

    outlook: Outlook
    """For the next tick."""
    face: Face | None
    """None while it asks for nothing beyond the other faces."""


def forecast(
    known: Outlook | None,
    demand: Demand,
    faces: Sequence[Face],
    ahead: Ahead,
    history: History | None,
    *,
    why_no_history: str,
    now: float,
) -> Forecast:
    """Look at the demand, and ask for what it is expected to need.

    Args:
        known: From the last look; None after a restart.
        demand: From ``measure``.
        faces: What the present asks for.
        ahead: How far to look.
        history: Of the days before, if there is any.
        why_no_history: In words; empty when there is one.
        now: Unix s.
    """
    outlook = look(known, offered(demand), ahead, history, now)
    if known is None or outlook.slot != known.slot or outlook.status is None:
        outlook = _asking(outlook, faces, ahead, demand.serving)
        outlook = outlook._replace(status=_status(outlook, ahead, why_no_history))
    return Forecast(outlook, _face(outlook, faces, demand.serving))


def _latest(outlook: Outlook, ahead: Ahead) -> Expectation | None:
    """The forecast that was made at the end of the last slot."""
    last = outlook.pending[-1] if outlook.pending else None
    return last if last is not None and last.slot == outlook.slot - 1 + ahead.slots else None


def _asking(outlook: Outlook, faces: Sequence[Face], ahead: Ahead, serving: int) -> Outlook:
    """With what the latest forecast asks for, kept until its moment has passed.

    The load of now grows as the demand is expected to. Head-room and the work that stands in queues do not
    grow with it: what is worked on now is no more than what the serving replicas carry.
    """
    latest, top = _latest(outlook, ahead), max(faces, key=lambda f: f.load, default=None)
    if latest is None or top is None or latest.said <= latest.base:
        return outlook
    worked_on = min(top.load - top.headroom / top.target, float(serving))
    asked = top.load + (latest.said / latest.base - 1.0) * worked_on - NOISE
    if needed(asked, 1.0) <= needed(top.load, 1.0):
        return outlook
    until = min(latest.slot, outlook.slot + HOLD_SLOTS)
    held = (*(h for h in outlook.held if h.load > asked), Held(latest.slot, until, asked, latest.said))
    return outlook._replace(held=held)


def _face(outlook: Outlook, faces: Sequence[Face], serving: int) -> Face | None:
    if not outlook.held:
        return None
    top = outlook.held[0]
    replicas = needed(top.load, 1.0)
    if replicas <= max((f.replicas for f in faces), default=0):
        return None
    at = f"{moment((top.slot + 1) * SLOT_SECONDS):%H:%M:%S}"
    return Face(
        name="forecast",
        unit=outlook.unit,
        value=top.said,
        target=top.said / top.load,
        replicas=replicas,
        complete=True,
        blind=False,
        message=f"{top.said:,.0f} {outlook.unit} expected at {at} UTC needs {replicas}",
        covered=serving,
        expected=serving,
        ahead=True,
    )


# --- Status --------------------------------------------------------------------------------------

_FROM = {
    Season.TREND: "the trend of the last minutes",
    Season.DAILY: "the same time of the days before",
    Season.WEEKLY: "the same time of the week before",
}


def _status(outlook: Outlook, ahead: Ahead, why_no_history: str) -> ForecastStatus:
    """``status.scaling.forecast``; with nothing to say but its message while no growth is expected."""
    latest = _latest(outlook, ahead)
    message = _message(latest, ahead) + (f"; no daily shape: {why_no_history}" if why_no_history else "")
    known = ForecastStatus(
        horizon_seconds=round(ahead.seconds), unit=outlook.unit, last=_outcome(outlook), message=message
    )
    if latest is None or latest.part is None:
        return known
    return known.model_copy(
        update={
            "value": _rounded(latest.said),
            "at": moment((latest.slot + 1) * SLOT_SECONDS),
            "part": latest.part,
            "weight": _rounded(latest.weight),
            "skill": _rounded(latest.skill),
        }
    )


def _message(latest: Expectation | None, ahead: Ahead) -> str:
    fast = f"replicas serve within {ahead.ready:.0f} s: "
    if not any(ahead.urgency(part) for part in Season):
        return f"{fast}a forecast would gain nothing"
    if latest is None:
        return "the demand of the last minutes is not known, or zero"
    if latest.part is None:
        return "no growth is expected" if ahead.urgency(Season.TREND) else f"{fast}a trend would gain nothing"
    return f"expected from {_FROM[latest.part]}"


def _outcome(outlook: Outlook) -> ForecastOutcome | None:
    if outlook.came is None:
        return None
    expectation, level = outlook.came
    at = moment((expectation.slot + 1) * SLOT_SECONDS)
    return ForecastOutcome(at=at, expected=_rounded(expectation.said), actual=_rounded(level))


def _rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
