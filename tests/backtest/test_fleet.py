"""Replicas that start late, and leave in the right order."""

from stoker.backtest.fleet import Fleet


def test_a_fleet_begins_with_replicas_that_serve():
    fleet = Fleet(240.0)
    fleet.begin(3, 1000.0)
    assert fleet.serving(1000.0) == 3
    assert (fleet.started, fleet.removed) == (0, 0)


def test_a_new_replica_serves_after_its_start_up():
    fleet = Fleet(240.0)
    fleet.begin(1, 0.0)
    fleet.scale(3, 100.0)
    assert [fleet.serving(at) for at in (100.0, 339.0, 340.0)] == [1, 1, 3]
    assert fleet.started == 2


def test_those_that_do_not_serve_yet_leave_first():
    fleet = Fleet(240.0)
    fleet.begin(2, 0.0)
    fleet.scale(3, 100.0)
    fleet.scale(2, 200.0)
    assert fleet.serving(200.0) == 2
    assert fleet.removed == 0
    fleet.scale(1, 300.0)
    assert (fleet.serving(300.0), fleet.removed) == (1, 1)


def test_without_a_start_up_time_replicas_serve_at_once():
    fleet = Fleet(0.0)
    fleet.begin(0, 0.0)
    fleet.scale(2, 10.0)
    assert fleet.serving(10.0) == 2
