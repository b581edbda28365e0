"""Grants: what the scheduler has said of the pods decides how many there may be."""

from __future__ import annotations

import pytest

from stoker.core.capacity import SCHEDULING_GRACE, Grant, allocate, review_at
from stoker.core.observed import Pod
from tests.factories import KEY, NOW, draining, failed, pending, pod, unschedulable


def grant(wanted: int, *pods: Pod) -> Grant:
    return allocate({KEY: wanted}, {KEY: pods}, NOW)[KEY]


@pytest.mark.parametrize(
    "pods",
    [(), (pod(0), pending(1)), (pod(0), unschedulable(1, since=NOW - SCHEDULING_GRACE + 1))],
    ids=["no pods yet", "one not looked at", "one refused a moment ago"],
)
def test_without_a_refusal_everything_is_granted(pods):
    assert grant(5, *pods) == Grant(5, 5)


def test_after_a_refusal_one_replica_more_than_fits_may_ask():
    found = grant(5, pod(0), pod(1), unschedulable(2))

    assert (found.replicas, found.start_up_to) == (2, 3)
    assert found.shortage is not None
    assert found.shortage.message.startswith("2 of 5 replicas have a place.")


def test_a_surge_replica_that_waits_is_no_shortage():
    assert grant(2, pod(0), pod(1), unschedulable(2)) == Grant(2, 2)


@pytest.mark.parametrize("gone", [draining(1), failed(1)], ids=["leaving", "failed"])
def test_what_is_on_its_way_out_is_no_place(gone):
    assert grant(2, pod(0), gone, unschedulable(2)).replicas == 1


def test_a_refusal_is_looked_at_again_when_it_counts():
    refused = unschedulable(0, since=NOW - 1)

    assert review_at([refused], NOW) == NOW - 1 + SCHEDULING_GRACE
