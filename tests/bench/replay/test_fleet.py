"""Pods in virtual time."""

import pytest

from bench.replay.fleet import Fleet, StartUp
from tests.bench.replay.scene import MODEL


def fleet(*, ready: int = 0, seed: int = 0, start_up: StartUp | None = None) -> Fleet:
    made = Fleet(MODEL, start_up or StartUp(240, 30), seed)
    for _ in range(ready):
        made.start_serving(made.create(0.0, ready=True))
    return made


def test_the_nth_pod_has_the_nth_luck_whenever_it_is_created():
    early, late = fleet(seed=3), fleet(seed=3)
    first = [early.create(0.0) for _ in range(5)]
    second = [late.create(1000.0 * n) for n in range(5)]
    assert [p.ready_at - p.created for p in first] == pytest.approx([p.ready_at - p.created for p in second])
    assert [p.scrape_phase for p in first] == [p.scrape_phase for p in second]
    assert len({p.scrape_phase for p in first}) == 5


def test_start_up_is_spread_around_its_mean_and_bounded():
    delays = [StartUp(240, 30).draw(0, n) for n in range(500)]
    assert sum(delays) / 500 == pytest.approx(240, abs=5)
    assert min(StartUp(60, 500).draw(0, n) for n in range(200)) == 20
    assert StartUp(60).draw(0, 1) == 60


def test_who_has_not_served_leaves_first_the_youngest_before_the_others():
    made = fleet(ready=2)
    old, young = made.create(10.0), made.create(20.0)
    changes = made.scale(3, 30.0)
    assert changes.deleted == [young]
    assert young.deleted == 30.0
    assert made.pods[-1] is old


def test_of_those_that_serve_the_one_with_the_least_in_flight_drains():
    made = fleet(ready=3)
    for pod, load in zip(made.pods, (5, 1, 3), strict=True):
        pod.in_flight = load
    changes = made.scale(2, 30.0)
    assert [p.ordinal for p in changes.drained] == [1]
    assert [p.ordinal for p in made.routed] == [0, 2]
    assert len(made.pods) == 3
    assert made.live == 2


def test_draining_pods_are_taken_back_before_new_ones_start_the_latest_first():
    made = fleet(ready=3)
    made.scale(2, 10.0)
    made.scale(1, 20.0)
    latest = max(made.pods, key=lambda p: p.drain_since or 0)
    assert made.scale(2, 30.0).created == []
    assert not latest.draining
    assert latest in made.routed
    assert len(made.scale(4, 40.0).created) == 1


def test_pods_cost_from_creation_to_deletion_within_the_scored_time():
    made = fleet(ready=1)
    loading = made.create(100.0)
    made.delete(loading, 150.0)
    assert made.pod_seconds(0.0, 200.0) == 200.0 + 50.0
    assert made.pod_seconds(120.0, 200.0) == 80.0 + 30.0
    assert made.pod_seconds(120.0, 140.0) == 20.0 + 20.0
