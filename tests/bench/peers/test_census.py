"""Births, departures and the bill, from what a watch of pods says."""

import pytest

from bench.peers.census import Census
from bench.peers.fleets import FLEET_LABEL


def pod(name, *, ready=True, fleet="f", serving=None, deleting=False, ip="127.16.0.1"):
    metadata = {"namespace": fleet, "name": name, "uid": name, "labels": {FLEET_LABEL: fleet}}
    if serving is not None:
        metadata["labels"]["stoker.dev/serving"] = serving
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "engine"}]},
        "status": {"podIP": ip, "conditions": conditions},
    }


@pytest.fixture
def census():
    return Census(["f", "g"])


def endpoints(census):
    return {one.pod for one in census.gateways["f"].endpoints}


def test_a_pod_counts_from_its_announcement_and_gets_requests_when_it_is_ready(census):
    census.apply(pod("a", ready=False, ip=None), 10.0)
    assert census.count("f") == 1
    assert endpoints(census) == set()
    census.apply(pod("a"), 12.0)
    assert endpoints(census) == {"f/a"}
    assert census.births("f", 0.0) == [10.0]


@pytest.mark.parametrize("leaving", [{"deleting": True}, {"serving": "false"}])
def test_a_pod_that_leaves_counts_no_more_and_gets_no_request_but_costs_until_it_is_gone(census, leaving):
    census.apply(pod("a", serving="true"), 10.0)
    census.apply(pod("a", **leaving), 20.0)
    assert census.count("f") == 0
    assert endpoints(census) == set()
    census.apply(pod("a", **leaving), 50.0, gone=True)
    assert census.pod_seconds("f", 0.0, 100.0) == 40.0


def test_a_draining_pod_that_is_taken_back_counts_again(census):
    census.apply(pod("a", serving="true"), 10.0)
    census.apply(pod("a", serving="false"), 20.0)
    census.apply(pod("a", serving="true"), 30.0)
    assert census.count("f") == 1
    assert endpoints(census) == {"f/a"}
    assert census.counts("f") == [(0.0, 0), (10.0, 1), (20.0, 0), (30.0, 1)]


def test_a_start_up_lasts_from_the_announcement_to_ready(census):
    census.apply(pod("a", ready=False), 10.0)
    census.apply(pod("b", ready=False), 20.0)
    census.apply(pod("c", ready=False), 30.0)
    for name, at in (("a", 12.0), ("b", 25.0), ("b", 28.0)):
        census.apply(pod(name), at)
    assert census.start_ups("f", 15.0) == [5.0]
    assert census.start_ups("f", 0.0) == [2.0, 5.0]


def test_the_bill_is_cut_to_the_scored_time(census):
    census.apply(pod("a"), 10.0)
    census.apply(pod("b"), 30.0)
    census.apply(pod("b"), 40.0, gone=True)
    assert census.pod_seconds("f", 20.0, 60.0) == 40.0 + 10.0
    assert census.pod_seconds("f", 50.0, 60.0) == 10.0


def test_counts_begin_with_the_state_at_that_moment(census):
    census.apply(pod("a"), 10.0)
    census.apply(pod("b"), 20.0)
    assert census.counts("f", 15.0) == [(15.0, 1), (20.0, 2)]
    assert census.births("f", 15.0) == [20.0]


def test_fleets_are_told_apart_and_strangers_are_left_out(census):
    census.apply(pod("a", fleet="g"), 10.0)
    census.apply(pod("b", fleet="stranger"), 10.0)
    assert (census.count("f"), census.count("g"), census.count("stranger")) == (0, 1, 0)
    assert census.pod_seconds("f", 0.0, 20.0) == 0.0
