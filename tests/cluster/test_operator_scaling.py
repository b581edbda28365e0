"""Replicas follow the requests in flight, and leave without cutting one."""

import pytest

from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_lab import Json, Lab, draining, in_routing, manifest, names, scaling, uids
from tests.cluster.operator_load import HeldRequests


@pytest.fixture
def scaled(lab: Lab, engines: EngineFleet, prometheus: Prometheus) -> Lab:
    """The lab with an operator that sees engines through Prometheus."""
    lab.start(prometheus_url=prometheus.url)
    return lab


def fleet_of_three(lab: Lab, load: HeldRequests, **spec: object) -> list[Json]:
    """Three serving replicas with requests for two, and the tolerance free: three of them in the last one."""
    lab.apply(manifest(scaling=scaling(1, 6), **spec))
    load.put(lab.until_serving(1)[0], 10)
    load.put(lab.serving()[0], 20)
    pods = lab.until_serving(3)
    load.release()
    load.put(pods[0], 7)
    load.put(pods[1], 6)
    load.put(pods[2], 3)
    return pods


def drained(lab: Lab) -> list[Json]:
    """Pods that are out of routing to finish their requests."""
    return [pod for pod in lab.pods() if draining(pod)]


def test_load_adds_replicas_and_its_end_removes_them(scaled: Lab, load: HeldRequests):
    scaled.apply(manifest(scaling=scaling(1, 4)))
    (first,) = scaled.until_serving(1)
    load.put(first, 25)
    scaled.until_serving(3)
    decision = scaled.status()["scaling"]["lastDecision"]
    assert (decision["from"], decision["to"]) == (1, 3)
    assert decision["limitedBy"] == "concurrentRequests"
    assert "25 requests at 10 per replica needs 3" in decision["message"]
    assert scaled.until("the decision's Event", lambda: scaled.events("ScaledUp"))
    scaled.until_verdict("ScalingActive", "True/MetricsFresh")

    load.put(first, 75)
    scaled.until_serving(4)
    assert scaled.status()["scaling"]["lastDecision"]["limitedBy"] == "maxReplicas"

    load.release()
    scaled.until_serving(1)
    scaled.until("no pod left behind", lambda: len(scaled.pods(live=False)) == 1)
    assert [d["to"] for d in scaled.status()["scaling"]["history"]][:3] == [1, 4, 3]


def test_a_leaving_replica_finishes_its_requests_first(scaled: Lab, load: HeldRequests, engines: EngineFleet):
    pods = fleet_of_three(scaled, load)
    (victim,) = scaled.until("a replica that drains", lambda: drained(scaled))
    assert names([victim]) == names([pods[2]]), "the one with the fewest requests goes"
    assert not in_routing(victim)
    scaled.until("the Service serves without it", lambda: names(scaled.serving()) == names(pods[:2]))
    # Far longer than routers are given, and than an idle replica would need to go.
    scaled.stays("kept while it has requests", lambda: names(drained(scaled)) == names([victim]), 10)
    assert scaled.verdict("Progressing") == "True/Draining"
    assert load.on(victim["metadata"]["name"]) == 3

    load.release(victim["metadata"]["name"])
    scaled.until("gone once it is idle", lambda: len(scaled.pods(live=False)) == 2)
    assert load.cut == 0
    assert engines.stats()["totals"]["cut"] == 0
    assert not scaled.events("DrainDeadlineExceeded")


def test_requests_beyond_the_drain_timeout_are_cut_and_told(scaled: Lab, load: HeldRequests):
    pods = fleet_of_three(scaled, load, drain={"timeout": "8s"})
    victim = pods[2]["metadata"]["name"]
    scaled.until("gone at the deadline", lambda: victim not in names(scaled.pods(live=False)))
    (event,) = scaled.until("the Event", lambda: scaled.events("DrainDeadlineExceeded"))
    assert event["type"] == "Warning"
    assert f"{victim} is deleted with 3 requests in flight" in event["note"]
    assert "Raise spec.drain.timeout" in event["note"]
    scaled.until("their streams cut", lambda: load.cut == 3)


def test_demand_that_returns_takes_draining_replicas_back(scaled: Lab, load: HeldRequests):
    pods = fleet_of_three(scaled, load)
    (victim,) = scaled.until("a replica that drains", lambda: drained(scaled))
    load.put(pods[0], 10)
    scaled.until("back in routing", lambda: uids(scaled.serving()) == uids(pods))
    (back,) = [p for p in scaled.pods() if p["metadata"]["uid"] == victim["metadata"]["uid"]]
    assert not draining(back)
    assert "stoker.dev/drain-reason" not in back["metadata"]["annotations"]
    scaled.stays("the same replicas", lambda: uids(scaled.pods(live=False)) == uids(pods), 8)
    assert load.cut == 0


def test_a_replica_that_loads_counts_as_supply(scaled: Lab, load: HeldRequests):
    slow = {"testbed.stoker.dev/load-seconds": "12"}
    scaled.apply(manifest(scaling=scaling(1, 8), annotations=slow))
    (first,) = scaled.until_serving(1)
    load.put(first, 28)
    scaled.until("two more", lambda: len(scaled.pods()) == 3)
    scaled.stays("the same demand asks once", lambda: len(scaled.pods(live=False)) <= 3, 8)
    scaled.until_serving(3)
    assert len(scaled.pods(live=False)) == 3


def test_a_fleet_without_demand_goes_to_zero_after_its_window(scaled: Lab):
    section = scaling(0, 4)
    section["windows"]["toZero"] = "1m"
    scaled.apply(manifest(scaling=section))
    scaled.until("a first replica", scaled.pods)
    scaled.stays("kept for its window", lambda: scaled.pods(live=False), 30)
    scaled.until("nothing left", lambda: scaled.status() and not scaled.pods(live=False), 150)
    message = scaled.until_verdict("Available", "False/ScaledToZero")
    assert message
