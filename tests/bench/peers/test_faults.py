"""What counts as lost, and which rows there are."""

import pytest

from bench.peers import faults
from bench.peers.faults import KEDA, REPLICAS, ROWS, STOKER, Fate, Fault, Row, describe, rows
from bench.peers.fleets import Side


def test_a_fleet_that_keeps_its_replicas_lost_none():
    fate = Fate.of([(100.0, 8)], 100.0, 500.0)
    assert (fate.before, fate.lowest, fate.end, fate.first_fall, fate.lost) == (8, 8, 8, None, False)


def test_a_fleet_that_fell_and_came_back_lost_replicas():
    fate = Fate.of([(100.0, 8), (390.0, 1), (420.0, 8)], 100.0, 500.0)
    assert (fate.before, fate.lowest, fate.end, fate.first_fall, fate.lost) == (8, 1, 8, 290.0, True)


def test_what_is_more_than_needed_is_not_lost():
    fate = Fate.of([(100.0, 10), (200.0, 8)], 100.0, 500.0)
    assert (fate.first_fall, fate.lost) == (None, False)


def test_what_comes_after_the_watch_does_not_count():
    assert not Fate.of([(100.0, 8), (600.0, 1)], 100.0, 500.0).lost


def test_a_row_tells_each_fleet_s_fate():
    fates = [Fate(8, 1, 8, 290.0), Fate(8, 8, 8, None), Fate(8, 2, 2, 295.0)]
    row = describe(Row(Fault.NAN, KEDA, 3), fates)
    assert row["fleets_that_lost_replicas"] == 2
    assert row["replicas_lowest"] == [1, 8, 2]
    assert row["first_fall_seconds"] == {"min": 290.0, "max": 295.0}
    assert describe(Row(Fault.NAN, KEDA, 1), [Fate(8, 8, 8, None)])["first_fall_seconds"] is None


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.OPERATOR])
def test_every_fault_is_met_by_both_sides_with_keda_s_defaults_among_them(fault):
    contenders = [row.contender for row in ROWS if row.fault is fault]
    assert KEDA in contenders
    assert STOKER in contenders


def test_no_patience_of_stoker_s_hides_a_wrong_decision():
    assert STOKER.settings["windows"]["down"] == "2m"
    assert faults.WATCH_SECONDS > faults.OUTAGE_SECONDS > 300


def test_the_fleets_of_a_row_have_names_and_settings_of_their_own():
    names = [fleet.namespace for n, row in enumerate(ROWS) for fleet in faults._fleets(row, n)]
    assert len(names) == len(set(names)) == sum(row.fleets for row in ROWS)
    assert all(name.startswith(("keda-", "stoker-")) and name == name.lower() for name in names)
    (fleet, *_) = faults._fleets(Row(Fault.OUTAGE, STOKER, 1), 0)
    assert fleet.contender.side is Side.STOKER
    assert fleet.maximum > REPLICAS


def test_rows_can_be_run_with_fewer_fleets_and_on_one_side_alone():
    few = rows(1, frozenset({Side.STOKER}))
    assert {row.fleets for row in few} == {1}
    assert [row.fault for row in few] == [row.fault for row in ROWS if row.contender.side is Side.STOKER]
    assert rows() == list(ROWS)
