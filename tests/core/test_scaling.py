"""Windows, bounds and holding: each rule by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest

from stoker.api.v1alpha1 import Scaling
from stoker.core.faces import Face
from stoker.core.observed import Memory
from stoker.core.scaling import MAX_GAP, Recommendation, initial, recommend
from tests.factories import NOW

TICK = 5.0


def scaling(**fields: Any) -> Scaling:
    windows = {"up": "30s", "down": "10m", **fields.pop("windows", {})}
    return Scaling.model_validate({"maxReplicas": 20, "windows": windows, **fields})


def face(
    replicas: int = 0, *, name: str = "requestsPerSecond", load: float | None = None, **fields: Any
) -> Face:
    value = max(0.0, replicas - 0.9) if load is None else load  # so little that the tolerance is no matter
    known = {"complete": True, "blind": False, "message": f"needs {replicas}"}
    return Face(
        **({"name": name, "unit": "x", "value": value, "target": 1.0, "replicas": replicas} | known | fields)
    )


def partial(replicas: int, **fields: Any) -> Face:
    return face(replicas, complete=False, **fields)


def ahead(replicas: int, **fields: Any) -> Face:
    return face(replicas, name="forecast", ahead=True, **fields)


BLIND = Face("promptTokensPerSecond", "x", None, 1.0, 0, complete=False, blind=True, message="no series")


class Fleet:
    """Calls `recommend` tick after tick and does what it says."""

    def __init__(self, current: int, *, at: float = NOW, **spec: Any) -> None:
        self.scaling = scaling(**spec)
        self.current = current
        self.now = at
        self.memory = Memory()

    def tick(self, *faces: Face, after: float = TICK) -> Recommendation:
        self.now += after
        found = recommend(self.scaling, faces, self.memory, self.current, self.now)
        self.current, self.memory = found.replicas, found.memory
        return found

    def run(self, seconds: float, *faces: Face, every: float = TICK) -> list[int]:
        return [self.tick(*faces, after=every).replicas for _ in range(round(seconds / every))]


def settled(current: int, **spec: Any) -> Fleet:
    """A fleet whose demand has been what it is for a whole down window."""
    fleet = Fleet(current, **spec)
    fleet.run(700, face(current))
    return fleet


class TestUp:
    def test_a_higher_demand_has_to_last_for_the_window(self):
        fleet = settled(4)

        assert fleet.run(30, face(5)) == [4] * 6
        assert fleet.tick(face(5)).replicas == 5

    def test_while_it_waits_it_says_so(self):
        found = settled(4).tick(face(5))

        assert (found.limited_by) == ("windows.up")
        assert "waiting for it to last 30 s" in found.message

    def test_the_lowest_proposal_of_the_window_is_carried_out(self):
        fleet = settled(4)
        fleet.run(15, face(7))
        fleet.run(15, face(5))

        assert fleet.tick(face(7)).replicas == 5

    def test_a_dip_starts_the_window_again(self):
        fleet = settled(4)
        fleet.run(25, face(5))
        fleet.tick(face(4))

        assert fleet.run(30, face(5)) == [4] * 6

    def test_a_window_of_zero_acts_at_once(self):
        assert settled(4, windows={"up": "0s"}).tick(face(5)).replicas == 5

    @pytest.mark.parametrize(
        ("load", "goes"), [(8.0, 8), (7.9, 4)], ids=["twice the current count", "a little less"]
    )
    def test_a_burst_skips_the_window(self, load, goes):
        assert settled(4).tick(face(8, load=load)).replicas == goes

    def test_a_burst_says_that_it_is_one(self):
        assert "burst" in settled(4).tick(face(8, load=8.0)).message

    def test_a_guard_is_never_a_burst(self):
        assert settled(4).tick(face(0), face(9, load=99.0, guard=True)).replicas == 4

    def test_after_a_restart_the_demand_has_to_last_anew(self):
        fleet = settled(4)
        fleet.run(25, face(5))
        fleet.memory = Memory()

        assert fleet.tick(face(5)).replicas == 4

    def test_a_lower_bound_adds(self):
        fleet = settled(4)

        assert fleet.run(35, partial(5))[-1] == 5

    def test_the_largest_face_wins_and_is_named(self):
        fleet = settled(4)
        faces = (face(3), face(6, name="concurrentRequests"), face(5))
        fleet.run(30, *faces)

        found = fleet.tick(*faces)

        assert (found.replicas, found.limited_by) == (6, "concurrentRequests")


class TestDown:
    def test_a_lower_demand_has_to_last_for_the_window(self):
        fleet = settled(8)

        assert fleet.run(600, face(3)) == [8] * 120
        assert fleet.tick(face(3)).replicas == 3

    def test_the_highest_proposal_of_the_window_wins(self):
        fleet = settled(8)
        fleet.run(300, face(3))
        fleet.tick(face(6))

        assert fleet.run(400, face(3))[-1] == 6

    def test_what_held_it_is_said(self):
        found = settled(8).tick(face(3))

        assert (found.limited_by) == ("windows.down")
        assert "8 were needed within the last 600 s" in found.message

    def test_without_a_whole_window_of_evidence_nothing_goes(self):
        found = Fleet(8).tick(face(3))

        assert (found.replicas, found.limited_by) == (8, "windows.down")
        assert "uninterrupted" in found.message

    def test_a_window_of_zero_acts_at_once(self):
        assert settled(8, windows={"down": "0s"}).tick(face(3)).replicas == 3

    def test_a_high_lower_bound_within_the_window_counts_too(self):
        fleet = settled(2)
        fleet.tick(partial(8))
        assert fleet.current == 8

        assert fleet.run(600, face(2)) == [8] * 120

    def test_a_low_lower_bound_is_no_evidence(self):
        fleet = settled(8)

        assert fleet.run(700, partial(3))[-1] == 8

    def test_while_it_is_held_it_says_who_did_not_answer(self):
        found = settled(8).tick(partial(3, message="2 of 3 replicas answered"))

        assert found.limited_by == "onMissingMetrics"
        assert "2 of 3 replicas answered" in found.message


class TestForecast:
    def test_it_adds_after_the_up_window(self):
        fleet = settled(2)

        assert fleet.run(35, face(2), ahead(5))[-1] == 5

    def test_it_keeps_what_it_asked_for_as_long_as_it_asks(self):
        fleet = settled(2)
        fleet.run(35, face(2), ahead(5))

        assert set(fleet.run(3600, face(2), ahead(5))) == {5}

    def test_it_is_no_evidence_so_what_did_not_come_goes_at_once(self):
        fleet = settled(2)
        fleet.run(120, face(2), ahead(5))

        assert fleet.tick(face(2)).replicas == 2

    def test_what_was_needed_stays_for_the_down_window(self):
        fleet = settled(6)
        fleet.run(300, face(6))
        fleet.run(60, face(2), ahead(4))

        assert fleet.tick(face(2), ahead(4)).replicas == 6
        assert fleet.run(700, face(2), ahead(4))[-1] == 4

    def test_it_does_not_hide_a_burst_nor_is_it_one(self):
        assert settled(2).tick(face(4, load=4.0), ahead(6)).replicas == 4
        assert settled(2).tick(face(2), ahead(6, load=60.0)).replicas == 2


class TestTolerance:
    """What is left of a fleet keeps room: a tenth of the load, and 0.3 replicas at the least."""

    @pytest.mark.parametrize(
        ("load", "stays"),
        [(2.7, 3), (2.71, 4), (9.0, 10), (9.1, 11)],
        ids=["0.3 free", "less than 0.3 free", "a tenth free", "less than a tenth free"],
    )
    def test_replicas_go_when_the_rest_has_room(self, load, stays):
        fleet = settled(stays + 1)

        assert fleet.run(900, face(math.ceil(load), load=load))[-1] == stays

    def test_it_says_that_it_waits_for_room(self):
        fleet = settled(4)
        fleet.run(900, face(3, load=2.9))

        found = fleet.tick(face(3, load=2.9))

        assert (found.replicas, found.limited_by) == (4, "tolerance")
        assert "10% stay free" in found.message

    def test_a_load_that_swings_about_a_whole_replica_turns_nothing_round(self):
        fleet = settled(4)

        counts = [fleet.run(700, face(n, load=load))[-1] for n, load in ((3, 2.95), (4, 3.05)) * 5]

        assert set(counts) == {4}

    def test_above_what_there_is_there_is_none(self):
        assert settled(4, windows={"up": "0s"}).tick(face(5, load=4.05)).replicas == 5

    def test_it_is_asked_of_every_face(self):
        fleet = settled(6)

        assert fleet.run(900, face(5, load=4.1), face(3, load=4.6))[-1] == 6

    def test_a_guard_and_a_forecast_have_no_load_that_could_leave_room(self):
        fleet = settled(6)

        assert fleet.run(900, face(5, load=4.5, guard=True), face(2))[-1] == 5

    def test_no_load_at_all_leaves_nothing(self):
        assert settled(3, minReplicas=0, windows={"down": "1m", "toZero": "1m"}).run(200, face(0))[-1] == 0


class TestToZero:
    SPEC: dict[str, Any] = {"minReplicas": 0, "windows": {"down": "1m", "toZero": "10m"}}  # noqa: RUF012 - read only

    def test_the_last_replica_waits_for_its_own_window(self):
        fleet = settled(3, **self.SPEC)

        counts = fleet.run(700, face(0))

        assert counts[12] == 1
        assert counts.index(0) == 120

    def test_it_says_which_window_holds_it(self):
        fleet = settled(3, **self.SPEC)
        fleet.run(120, face(0))

        found = fleet.tick(face(0))

        assert (found.replicas, found.limited_by) == (1, "windows.toZero")

    def test_one_request_starts_the_window_again(self):
        fleet = settled(1, **self.SPEC)
        fleet.run(500, face(0))
        fleet.tick(face(1))

        assert min(fleet.run(595, face(0))) == 1

    def test_with_a_minimum_it_never_happens(self):
        fleet = settled(3, windows={"down": "1m", "toZero": "10m"})

        assert min(fleet.run(1400, face(0))) == 1

    @pytest.mark.parametrize("unknown", [BLIND, partial(0)], ids=["nothing known", "some replicas silent"])
    def test_what_is_not_known_is_not_zero(self, unknown):
        fleet = settled(1, **self.SPEC)

        assert min(fleet.run(1400, unknown)) == 1


class TestOutage:
    def test_an_outage_breaks_the_window(self):
        fleet = settled(8)
        fleet.run(300, face(3))
        fleet.run(MAX_GAP + TICK, BLIND)

        assert fleet.run(600, face(3)) == [8] * 120
        assert fleet.tick(face(3)).replicas == 3

    def test_a_short_gap_does_not(self):
        fleet = settled(8)
        fleet.run(300, face(3))
        fleet.run(MAX_GAP - TICK, BLIND)

        assert fleet.run(250, face(3))[-1] == 3

    def test_six_minutes_of_silence_and_then_partial_sums_shrink_nothing(self):
        fleet = settled(6)
        fleet.run(360, BLIND)
        fleet.run(60, partial(1))

        assert set(fleet.run(600, face(1))) == {6}

    @pytest.mark.parametrize("step", [-3600.0, -61.0, -5.5, 3600.0, 61.0], ids=lambda s: f"{s:+.0f} s")
    def test_a_clock_that_steps_takes_no_replica_away(self, step):
        fleet = settled(8)
        fleet.run(590, face(3))

        found = fleet.tick(face(3), after=step)

        assert found.replicas == 8
        assert fleet.run(595, face(3))[0] == 8


class TestMissing:
    def test_hold_keeps_the_count_whatever_the_other_signals_say(self):
        fleet = settled(4)

        assert set(fleet.run(100, face(9), BLIND)) == {4}

    def test_hold_says_why(self):
        found = settled(4).tick(face(9), BLIND)

        assert found.limited_by == "onMissingMetrics"
        assert found.message == "held at 4: promptTokensPerSecond: no series"

    def test_scale_up_only_lets_the_others_add(self):
        fleet = settled(4, onMissingMetrics="ScaleUpOnly")

        assert fleet.run(35, face(6), BLIND)[-1] == 6

    def test_scale_up_only_takes_nothing_away(self):
        fleet = settled(4, onMissingMetrics="ScaleUpOnly")

        assert set(fleet.run(1300, face(1), BLIND)) == {4}

    def test_no_face_at_all_holds(self):
        assert Fleet(4).tick().replicas == 4


class TestBounds:
    @pytest.mark.parametrize("faces", [(BLIND,), (face(0),), ()], ids=["blind", "no demand", "no face"])
    def test_the_minimum_acts_at_once_whatever_is_known(self, faces):
        found = Fleet(1, minReplicas=3).tick(*faces)

        assert (found.replicas, found.limited_by) == (3, "minReplicas")

    @pytest.mark.parametrize("faces", [(BLIND,), (face(50),)], ids=["blind", "huge demand"])
    def test_the_maximum_acts_at_once_whatever_is_known(self, faces):
        found = Fleet(30).tick(*faces)

        assert (found.replicas, found.limited_by) == (20, "maxReplicas")

    def test_a_bound_is_named_only_where_it_acts(self):
        assert settled(20).tick(face(20)).limited_by == "requestsPerSecond"

    @pytest.mark.parametrize(("existing", "start"), [(0, 2), (5, 5), (99, 20)])
    def test_without_a_decision_the_running_fleet_is_the_start(self, existing, start):
        assert initial(scaling(minReplicas=2), existing) == start


class TestMemory:
    def test_it_does_not_grow_with_a_demand_that_swings(self):
        fleet = Fleet(5, minReplicas=0, windows={"toZero": "168h"})
        for n in range(2000):
            fleet.tick(face(3 + n % 4))

        assert len(fleet.memory.evidence) <= 4
        assert len(fleet.memory.asked) <= 4

    @pytest.mark.parametrize("every", [1.0, 5.0, 15.0], ids=lambda s: f"every {s:.0f} s")
    def test_how_often_it_is_computed_does_not_matter(self, every):
        fleet = Fleet(5)
        counts: list[int] = []
        for seconds, replicas in ((900, 3), (60, 7), (30, 4), (900, 6), (1200, 2)):
            counts.append(fleet.run(seconds, face(replicas), every=every)[-1])

        assert counts == [3, 7, 7, 6, 2]


def test_the_order_of_faces_does_not_matter():
    def counts(faces: Iterable[Face]) -> list[int]:
        return settled(4).run(60, *faces)

    faces = [face(3), face(6), partial(5), face(6, name="other")]
    assert counts(faces) == counts(reversed(faces))
