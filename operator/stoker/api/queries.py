"""Signals of one's own: PromQL queries whose answers count as demand, beside the engines' own metrics."""

from typing import Annotated, Final

from pydantic import Field

from stoker.api.fields import ApiModel, Pattern
from stoker.api.scalars import ShortName

MAX_SIGNALS: Final = 8

PromQL = Annotated[
    str,
    Field(max_length=2048),
    Pattern(r"(?s:.*\S.*)", "write a PromQL query that gives one number, such as sum(queue_depth)"),
]
Unit = Annotated[
    str,
    Field(max_length=32),
    Pattern(r"\S(?:.*\S)?", "write the unit of the query's number, such as jobs or requests/s"),
]


class CustomSignal(ApiModel):
    """A number that Prometheus knows, and how much of it one replica can carry."""

    name: ShortName
    """Its name, which decisions and `status.scaling.demand` show as `signals[name]`."""
    query: PromQL
    """PromQL that gives exactly one element: the load of the whole fleet, not of one replica, so aggregate
    with `sum(…)`. It is sent as it stands, without templating: write out the labels that it selects. No
    element, several, NaN, or a negative number is a missing signal and never zero; append `or vector(0)`
    where an absent series does mean zero."""
    target: Annotated[float, Field(ge=0.001, le=1_000_000_000)]
    """How much of it one replica is to carry: the fleet needs the query's number divided by this."""
    unit: Unit = "units"
    """Unit of both numbers, for the messages."""
