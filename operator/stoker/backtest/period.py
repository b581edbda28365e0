"""The stretch of time that a backtest looks at.

Rules of this module:

* Times without a zone are UTC, as everything that is printed. Both ends are rounded down to whole steps.
* The step is at most 60 s: decisions that are further apart see no unbroken evidence
  (`stoker.core.scaling.MAX_GAP`), and would wait for ever.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

from stoker.api.fields import Duration
from stoker.backtest.errors import BacktestError
from stoker.clients.answers import Span
from stoker.core.scaling import MAX_GAP

STEPS: Final = (5.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds. The first is the operator's own interval, the default of ``STOKER_SCALING_INTERVAL_SECONDS``."""

INSTANTS: Final = 11_000
"""As many points as Prometheus gives for one series and query (web/api/v1/api.go, maxPointsPerTimeSeries).
Queries are cut into smaller pieces anyway: here it is a measure of how long the user waits."""

_AGO: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def period(start: str, end: str, step: str | None, now: float) -> Span:
    """The period that the user asks for.

    Args:
        start: RFC 3339, a date, or a time ago such as ``7d``.
        end: likewise, or ``now``.
        step: a duration; None chooses one.
        now: Unix s.

    Raises:
        BacktestError: says which option is wrong, and what to write.
    """
    since, until = moment(start, now, "--from"), moment(end, now, "--to")
    if until > now:
        raise BacktestError(f"--to {end}: {shown(until)} is in the future; it is {shown(now)} now")
    if since >= until:
        raise BacktestError(f"--from {start} is not before --to {end}: {shown(since)} to {shown(until)}")
    chosen = chosen_step(until - since) if step is None else _step(step)
    if until - since < 10 * chosen:
        raise BacktestError(f"--from {start} --to {end}: ten steps of {chosen:g} s at least make a backtest")
    return Span(math.floor(since / chosen) * chosen, math.floor(until / chosen) * chosen, chosen)


def moment(text: str, now: float, option: str) -> float:
    """A point in time, Unix s.

    Raises:
        BacktestError: it is none.
    """
    if text == "now":
        return now
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        how = "write 2027-01-31, 2027-01-31T08:00:00Z, a time ago such as 7d, or now"
        raise BacktestError(f"{option} {text!r} is no time: {how}") from error


def chosen_step(seconds: float) -> float:
    """The finest step with which there are at most ``INSTANTS`` instants."""
    return next((step for step in STEPS if seconds / step < INSTANTS), STEPS[-1])


def _step(text: str) -> float:
    try:
        seconds = Duration(text).seconds
    except ValueError as error:
        raise BacktestError(f"--step: {error}") from error
    if not 1.0 <= seconds <= MAX_GAP:
        raise BacktestError(f"--step {text}: write one from 1s to {MAX_GAP:.0f}s")
    return seconds


def shown(at: float) -> str:
    """A point in time as it is printed."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC" if moment.second == 0 else "%Y-%m-%d %H:%M:%S UTC")


def rfc3339(at: float) -> str:
    """A point in time as Kubernetes writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
