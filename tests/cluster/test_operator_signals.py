"""What no replica tells of scales a fleet and wakes it: signals, and requests held in a gateway."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_exposition import Page, published
from tests.cluster.operator_lab import Json, Lab, manifest, scaling
from tests.cluster.operator_load import HeldRequests

EXPOSITION = Path(__file__).parents[1] / "fixtures" / "epp-metrics.txt"

SLOW = "avg_over_time(sum_over_time(vector(1)[2h:1s])[2d:1s])"
"""A billion evaluations."""
HUGE = 'label_replace({__name__=~".+"}, "long", "' + "x" * 1900 + '", "", "")'
"""Every series there is, with two kilobytes each."""
HOSTILE = [*(f"{SLOW} + {n}" for n in range(5)), HUGE, "sum(", "count(up) by"]


@pytest.fixture
def scaled(lab: Lab, engines: EngineFleet, prometheus: Prometheus) -> Lab:
    """The lab with an operator that sees engines through Prometheus."""
    lab.start(prometheus_url=prometheus.url)
    return lab


@pytest.fixture
def page(scaled: Lab, create_pod: Callable[..., str]) -> Iterator[Page]:
    """What a pod of the namespace, which is no replica, shows to Prometheus."""
    with published(scaled, create_pod, "broker") as found:
        yield found


def jobs(lab: Lab, target: int = 10) -> Json:
    """A signal on the jobs that the broker of this namespace has."""
    query = f'sum(queue_depth{{namespace="{lab.namespace}"}})'
    return {"name": "jobs", "query": query, "target": target, "unit": "jobs"}


def depth(number: float | str) -> str:
    """The broker's page with so many jobs."""
    return f"# TYPE queue_depth gauge\nqueue_depth {number}\n"


def demand(lab: Lab, signal: str, name: str = "llm") -> Json:
    """What status says of one signal, empty while it says nothing."""
    faces = lab.status(name).get("scaling", {}).get("demand", ())
    return next((face for face in faces if face["signal"] == signal), {})


def decision(lab: Lab) -> Json:
    """The last decision, empty before the first."""
    found: Json = lab.status().get("scaling", {}).get("lastDecision", {})
    return found


def asleep(lab: Lab, **more: object) -> None:
    """A fleet at zero whose operator has only ever seen it there."""
    lab.apply(manifest(scaling=scaling(0, 4, **more)))
    lab.until("a first replica", lab.pods)
    lab.patch("modeldeployments/llm", {"spec": {"scaling": {"schedules": [_off()]}}})
    lab.until("nothing left", lambda: not lab.pods(live=False), 150)
    lab.patch("modeldeployments/llm", {"spec": {"scaling": {"schedules": None}}})
    lab.until("the bounds of the spec", lambda: "bounds" not in lab.status()["scaling"])


def _off() -> Json:
    """A schedule that is open now, and that allows no replica."""
    now = datetime.now(UTC)
    start, end = now - timedelta(hours=2), now + timedelta(hours=2)
    hours = {"start": f"0 {start.hour} * * *", "end": f"0 {end.hour} * * *"}
    return {"name": "off", **hours, "minReplicas": 0, "maxReplicas": 0}


def test_a_signal_scales_a_fleet_and_a_missing_one_holds_it(scaled: Lab, page: Page):
    page.text = depth(25)
    scaled.apply(manifest(scaling=scaling(1, 4, signals=[jobs(scaled)])))
    scaled.until_serving(3)
    made = decision(scaled)
    assert made["limitedBy"] == "signals[jobs]"
    assert "25 jobs at 10 per replica needs 3" in made["message"]
    assert demand(scaled, "signals[jobs]")["freshness"] == "Fresh"
    scaled.until_verdict("ScalingActive", "True/MetricsFresh")

    page.text = ""
    scaled.until_verdict("ScalingActive", "False/MetricsMissing")
    message = scaled.condition("ScalingActive")["message"]
    assert message.startswith("signals[jobs]: the query gives no element")
    scaled.stays("as many as before", lambda: len(scaled.pods()) == 3, 10)

    page.text = depth("NaN")
    scaled.until(
        "what is wrong", lambda: "nan, which is no load" in demand(scaled, "signals[jobs]").get("message", "")
    )
    page.text = depth(0)
    scaled.until("down to the minimum", lambda: len(scaled.pods(live=False)) == 1)


def test_a_hostile_query_is_only_its_own_fleet_s_trouble(scaled: Lab, load: HeldRequests):
    hostile = [{"name": f"h{n}", "query": query, "target": 1} for n, query in enumerate(HOSTILE)]
    scaled.apply(manifest("hostile", scaling=scaling(1, 4, signals=hostile)))
    scaled.apply(manifest(scaling=scaling(1, 4)))
    (first,) = scaled.until_serving(1)

    def why(number: int) -> str:
        return str(demand(scaled, f"signals[h{number}]", "hostile").get("message", ""))

    scaled.until(
        "why there is none", lambda: all(why(n).startswith("Prometheus:") for n in range(len(hostile)))
    )
    assert "longer than 0.25 MiB" in why(HOSTILE.index(HUGE))
    assert "parse error" in why(HOSTILE.index("sum("))
    load.put(first, 25)
    scaled.until_serving(3)
    assert scaled.verdict("ScalingActive") == "True/MetricsFresh"
    assert scaled.verdict("ScalingActive", "hostile") == "False/MetricsMissing"
    assert len(scaled.pods("hostile")) == 1


def test_a_signal_wakes_a_fleet_at_zero(scaled: Lab, page: Page):
    page.text = depth(0)
    asleep(scaled, signals=[jobs(scaled)])
    scaled.until_verdict("ScalingActive", "True/MetricsFresh")
    scaled.stays("asleep while there are no jobs", lambda: not scaled.pods(live=False), 5)
    page.text = depth(7)
    scaled.until_serving(1)
    made = decision(scaled)
    assert (made["from"], made["to"], made["limitedBy"]) == (0, 1, "signals[jobs]")


def test_held_requests_wake_a_fleet_at_zero_and_count_on_top_of_those_in_flight(
    scaled: Lab, page: Page, load: HeldRequests
):
    # 30 requests wait in the picker for pool `llm`, the name of the ModelDeployment; ten per replica.
    asleep(scaled)
    page.text = EXPOSITION.read_text()
    pods = scaled.until_serving(3)
    assert scaled.until("the gateway", lambda: demand(scaled, "concurrentRequests").get("value")) == 30
    made = decision(scaled)
    assert made["limitedBy"] == "concurrentRequests"
    assert "30 of them held in the inference gateway" in made["message"]

    load.put(pods[0], 8)
    scaled.until_serving(4)
    assert "38 requests, 30 of them held" in decision(scaled)["message"]
