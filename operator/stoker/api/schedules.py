"""Schedules: recurring windows of time during which the bounds on the number of replicas are other ones.

A time is a cron expression of five fields as crontab(5) has them: users know it from Kubernetes' CronJob and
from KEDA. What the API server can check without a calendar is a rule of the schema; what is left (a range
that runs backwards, a date that never comes) the operator refuses.
"""

import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, ClassVar, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

from stoker.api.fields import ApiModel, Pattern, Rule, matches
from stoker.api.scalars import MAX_REPLICAS, ShortName

_CRON_HINT: Final = (
    "write five fields (minute hour day-of-month month day-of-week) of numbers, names such as MON or JAN,"
    " * , - and /, such as 0 8 * * MON-FRI"
)
_ZONE: Final = "[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}"
_ZONE_HINT: Final = "write a time zone of the IANA database, such as UTC, Europe/Berlin or America/New_York"
_MONTHS: Final = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS: Final = "SUN|MON|TUE|WED|THU|FRI|SAT"
_VALUES: Final = (
    "[0-5]?[0-9]",
    "[01]?[0-9]|2[0-3]",
    "0?[1-9]|[12][0-9]|3[01]",
    f"0?[1-9]|1[0-2]|(?i:{_MONTHS})",
    f"[0-7]|(?i:{_DAYS})",
)


def _field(value: str) -> str:
    """Return the expression of one field: terms such as `*`, `5`, `1-5` and `*/15`, with commas between."""
    term = rf"(?:\*|(?:{value})(?:-(?:{value}))?)(?:/[1-9][0-9]?)?"
    return f"{term}(?:,{term})*"


def _calendar(expression: str) -> str:
    """Return the expression.

    Raises:
        ValueError: it has a range that runs backwards, or names a date that never comes.
    """
    try:
        comes = next(CronSim(expression, datetime(2000, 1, 1)), None)  # noqa: DTZ001 - any calendar does
    except CronSimError as error:
        # The shape was checked before: what is wrong is a range, or a day that no month has.
        why = f"{str(error).lower()}: a range runs backwards, or no month has that day"
        raise ValueError(f"{expression!r}: {why}: write ranges such as 1-5, and days that come") from error
    if comes is None:
        raise ValueError(f"{expression!r}: such a day never comes: write one that does")
    return expression


def _known(zone: str) -> str:
    """Return the name of the time zone.

    Raises:
        ValueError: the time zone database has none of this name.
    """
    if re.fullmatch(_ZONE, zone):  # the database's folder also has files that are no zones
        with suppress(LookupError, ValueError, OSError):  # one of its folders is an OSError
            ZoneInfo(zone)
            return zone
    raise ValueError(f"{zone!r} is not a known time zone: {_ZONE_HINT}")


CronExpression = Annotated[
    str,
    Field(max_length=128),
    Pattern(" +".join(_field(value) for value in _VALUES), _CRON_HINT),
    AfterValidator(_calendar),
]
TimeZone = Annotated[
    str,
    Field(max_length=64),
    # Go's time zone database, which the API server carries, answers: an unknown zone is an error of the rule.
    Rule(
        f"{matches(_ZONE)} && self != 'Local' && timestamp('2000-01-01T00:00:00Z').getHours(self) >= 0",
        _ZONE_HINT,
    ),
    AfterValidator(_known),
]


class Schedule(ApiModel):
    """Bounds that hold from each `start` to the next `end`, again and again, in place of the usual ones."""

    name: ShortName
    """Its name, which `status.scaling` shows."""
    time_zone: TimeZone = "UTC"
    """Time zone of `start` and `end`, by its IANA name. The clock of that zone counts: a time that is skipped
    when clocks go forward comes at the moment of the change, and one that happens twice counts the first
    time."""
    start: CronExpression
    """When the bounds begin to hold: five cron fields, such as `0 8 * * MON-FRI`."""
    end: CronExpression
    """When they cease to: five cron fields, such as `0 18 * * MON-FRI`. Where `start` names the same minute,
    they go on."""
    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = None
    """Never fewer replicas than this meanwhile. Unset: `scaling.minReplicas`."""
    max_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = None
    """Never more replicas than this meanwhile; 0 turns the fleet off. Unset: `scaling.maxReplicas`."""

    rules: ClassVar = (
        Rule(
            "has(self.minReplicas) || has(self.maxReplicas)",
            "a schedule changes a bound: set minReplicas, maxReplicas or both",
        ),
        Rule(
            "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas of the schedule is greater than its maxReplicas: lower the one or raise the other",
            ".minReplicas",
        ),
        Rule(
            "self.start != self.end",
            "start and end are the same, so that the schedule would never end: for bounds that always hold"
            " set scaling.minReplicas and scaling.maxReplicas",
            ".end",
        ),
    )
