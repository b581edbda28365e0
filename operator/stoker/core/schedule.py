"""Which bounds hold now: those of the spec, or those of the schedules that are open, and until when.

Rules of this module:

* A schedule is open from a start to the next end after it. Where both name the same minute it stays open: one
  window ends as the next begins.
* The clock on the wall of its time zone counts. A time that is skipped when clocks go forward comes at the
  moment of the change, in the order in which the wall clock would have shown it; a time that happens twice
  counts the first time. So a window of the skipped hour is empty, and one of the repeated hour opens once.
* Every open schedule keeps its word. "Never fewer" is kept by the highest minimum, "never more" by the lowest
  maximum. Where two schedules contradict each other the minimum counts, and status says so: requests that are
  lost do not come back, while a replica too many is seen and can be taken away.
* cronsim (https://github.com/cuu508/cronsim) knows which minutes an expression names. It is asked about the
  wall clock alone, without a time zone: on its own it would judge a repeated hour by whether the expression
  begins with ``*``, which is right for jobs and odd for windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from stoker.api.v1alpha1 import Scaling, Schedule

_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_LONGEST_REPEAT = timedelta(days=1)
"""No clock was ever set back by more: a country that moves across the date line changes its day."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds that hold at a moment."""

    least: int
    most: int
    least_by: str = "minReplicas"
    """Field of the spec that set ``least``, below ``scaling``."""
    most_by: str = "maxReplicas"
    open: tuple[str, ...] = ()
    """Names of the schedules that are open, in the order of the spec."""
    until: float | None = None
    """When a schedule opens or closes next, Unix s; None when none ever does."""
    conflict: str = ""
    """How schedules that contradict each other were settled; empty when none do."""

    def applied(self, scaling: Scaling) -> Scaling:
        """The section with these bounds in place of its own; the very same one while no schedule is open."""
        if not self.open:
            return scaling
        return scaling.model_copy(update={"min_replicas": self.least, "max_replicas": self.most})

    def named(self, limited_by: str, message: str) -> tuple[str, str]:
        """What limited a decision, and its message, with the schedule that a bound comes from."""
        field = {"minReplicas": self.least_by, "maxReplicas": self.most_by}.get(limited_by, limited_by)
        if field == limited_by:
            return limited_by, message
        until = f" until {_shown(self.until)}" if self.until is not None else ""
        conflict = f"; {self.conflict}" if self.conflict else ""
        return field, f"{message} ({field}{until}{conflict})"


def bounds(scaling: Scaling, now: float) -> Bounds:
    """The bounds that hold at ``now`` (Unix s)."""
    if not scaling.schedules:
        return Bounds(scaling.min_replicas, scaling.max_replicas)
    phases = [(schedule, _phase_of(schedule, now)) for schedule in scaling.schedules]
    held = [schedule for schedule, phase in phases if phase.open]
    least, least_by = _highest_minimum(held, scaling)
    most, most_by = _lowest_maximum(held, scaling)
    conflict = ""
    if least > most:
        conflict = f"{least_by} is {least} and {most_by} is {most}: the minimum counts"
        most, most_by = least, least_by
    return Bounds(
        least=least,
        most=most,
        least_by=least_by,
        most_by=most_by,
        open=tuple(schedule.name for schedule in held),
        until=min((p.until for _, p in phases if p.until is not None), default=None),
        conflict=conflict,
    )


def _highest_minimum(held: Sequence[Schedule], scaling: Scaling) -> tuple[int, str]:
    stated = [(s.min_replicas, _field(s, "minReplicas")) for s in held if s.min_replicas is not None]
    return max(stated, key=_number, default=(scaling.min_replicas, "minReplicas"))


def _lowest_maximum(held: Sequence[Schedule], scaling: Scaling) -> tuple[int, str]:
    stated = [(s.max_replicas, _field(s, "maxReplicas")) for s in held if s.max_replicas is not None]
    return min(stated, key=_number, default=(scaling.max_replicas, "maxReplicas"))


def _number(stated: tuple[int, str]) -> int:
    return stated[0]


def _shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _field(schedule: Schedule, bound: str) -> str:
    return f"schedules[{schedule.name}].{bound}"


# --- One schedule --------------------------------------------------------------------------------


class _Phase(NamedTuple):
    """Where a schedule stands."""

    open: bool
    until: float | None
    """When that changes, Unix s; None when never."""


def _phase_of(schedule: Schedule, now: float) -> _Phase:
    times = schedule.start, schedule.end, schedule.time_zone
    full_hour = _phase(*times, int(now // 3600) * 60)
    if full_hour.until is None or now < full_hour.until:
        return full_hour
    return _phase(*times, int(now // 60))


@lru_cache(maxsize=32_768)
def _phase(start: str, end: str, time_zone: str, minute: int) -> _Phase:
    """Where a schedule stands in this minute (since 1970): it changes at whole minutes alone.

    A third of a millisecond, so it is kept: for the ticks of an hour, and for all who have the same schedule.
    """
    zone, now = ZoneInfo(time_zone), datetime.fromtimestamp(minute * 60, UTC)
    opened, closed = _last(start, zone, now), _last(end, zone, now)
    is_open = opened is not None and (closed is None or opened >= closed)
    change = _next(end if is_open else start, zone, now)
    return _Phase(is_open, change.timestamp() if change is not None else None)


def _last(expression: str, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The latest minute on the wall clock, without a zone, that the expression names and that has come."""
    clock = now.astimezone(zone)
    # In an hour that happens for the second time, later minutes of it have come too: the first time.
    repeated = _LONGEST_REPEAT if clock.fold else timedelta()
    walls = CronSim(expression, clock.replace(tzinfo=None, fold=0) + repeated + _SECOND, reverse=True)
    return next((wall for wall in walls if _moment(wall, zone) <= now), None)


def _next(expression: str, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The next moment, after now, that the expression names."""
    clock = now.astimezone(zone)
    moments = (_moment(wall, zone) for wall in CronSim(expression, clock.replace(tzinfo=None, fold=0)))
    return next((moment for moment in moments if moment > now), None)


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """When a clock of the zone shows this for the first time; when it is set, if it skips it."""
    while _skipped(wall, zone):
        wall += _MINUTE
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _skipped(wall: datetime, zone: ZoneInfo) -> bool:
    """Whether no clock of the zone ever shows this."""
    there = wall.replace(tzinfo=zone)
    return there.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) != wall
