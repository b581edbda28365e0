"""Schedules on the real plane: they act at once and are named; at their end the evidence decides."""

from datetime import UTC, datetime, timedelta

import pytest

from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_lab import Json, Lab, manifest, scaling


@pytest.fixture
def scaled(lab: Lab, engines: EngineFleet, prometheus: Prometheus) -> Lab:
    """The lab with an operator that sees engines through Prometheus."""
    lab.start(prometheus_url=prometheus.url)
    return lab


def around_now(name: str, **held: int) -> Json:
    """A schedule that opened two hours ago, and closes in two."""
    start, end = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-2, 2))
    return {"name": name, "start": f"0 {start.hour} * * *", "end": f"0 {end.hour} * * *", **held}


def set_schedules(lab: Lab, *schedules: Json) -> None:
    """Replace the schedules of the fleet."""
    lab.patch("modeldeployments/llm", {"spec": {"scaling": {"schedules": schedules or None}}})


def bounds(lab: Lab) -> Json:
    """The bounds that status shows, empty where there are no schedules."""
    found: Json = lab.status().get("scaling", {}).get("bounds", {})
    return found


def test_a_schedule_holds_a_minimum_and_its_end_leaves_the_number_to_the_evidence(scaled: Lab):
    scaled.apply(manifest(scaling=scaling(1, 4, down="12s")))
    scaled.until_serving(1)
    set_schedules(scaled, around_now("rush", minReplicas=3))
    scaled.until_serving(3)
    decision = scaled.status()["scaling"]["lastDecision"]
    assert (decision["from"], decision["to"]) == (1, 3)
    assert decision["limitedBy"] == "schedules[rush].minReplicas"
    assert (bounds(scaled)["minReplicas"], bounds(scaled)["maxReplicas"]) == (3, 4)
    assert bounds(scaled)["schedules"] == ["rush"]
    assert bounds(scaled)["until"]

    set_schedules(scaled)
    scaled.until("what the traffic asks for", lambda: len(scaled.pods(live=False)) == 1)
    assert "schedules" not in scaled.status()["scaling"]["lastDecision"]["limitedBy"]


def test_one_that_opens_in_a_minute_opens_in_a_minute(scaled: Lab):
    start = datetime.now(UTC) + timedelta(seconds=70)
    rush = {
        "name": "rush",
        "start": f"{start:%-M %-H} * * *",
        "end": f"{start:%-M} {(start.hour + 2) % 24} * * *",
    }
    scaled.apply(manifest(scaling=scaling(1, 4, schedules=[{**rush, "minReplicas": 2}])))
    scaled.until_serving(1)
    opens = scaled.until("when it opens", lambda: bounds(scaled).get("until"))
    assert opens == f"{start:%Y-%m-%dT%H:%M}:00Z"
    scaled.until("its minimum", lambda: scaled.status()["scaling"]["lastDecision"]["to"] == 2, 150)
    assert scaled.status()["scaling"]["lastDecision"]["time"] >= opens
    scaled.until_serving(2)


def test_a_time_that_no_calendar_has_is_refused_and_nothing_moves(scaled: Lab):
    scaled.apply(manifest(scaling=scaling(2, 4)))
    scaled.until_serving(2)
    set_schedules(scaled, around_now("rush", minReplicas=4) | {"end": "0 18 * * FRI-MON"})
    message = scaled.until_verdict("Accepted", "False/InvalidSpec")
    assert "spec.scaling.schedules[0].end: '0 18 * * FRI-MON': bad day-of-week" in message
    scaled.stays("the replicas as they are", lambda: len(scaled.pods(live=False)) == 2, 5)
    set_schedules(scaled, around_now("rush", minReplicas=4))
    scaled.until_serving(4)
