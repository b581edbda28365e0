"""The course of the demand in slots, and how right its forecasts were."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.outlook import (
    HOLDS_SECONDS,
    MAX_LEVELS,
    SLOT_SECONDS,
    Accuracy,
    Expectation,
    begun,
    closed,
    continues,
    fill,
    trend,
)
from tests.factories import NOW

LEVELS = st.lists(st.floats(0, 1e6), min_size=10, max_size=10)


def slot_of(*values: tuple[float, float | None]) -> float:
    """The level of a slot in which these demands began at these seconds."""
    outlook = begun("x", 0.0, NOW)
    outlook = outlook._replace(value=None)
    for second, value in values:
        outlook = fill(outlook, NOW + second)._replace(at=NOW + second, value=value)
    return closed(fill(outlook, NOW + SLOT_SECONDS)).levels[-1]


class TestLevels:
    def test_is_the_mean_over_the_time(self):
        assert slot_of((0, 10.0), (20, 40.0)) == 20

    def test_leaves_out_what_was_not_known(self):
        assert slot_of((0, 10.0), (10, None), (20, 40.0)) == 25

    def test_is_a_gap_when_less_than_half_was_known(self):
        assert math.isnan(slot_of((0, None), (16, 5.0)))

    def test_a_demand_does_not_hold_for_ever(self):
        outlook = closed(fill(begun("x", 7.0, NOW), NOW + 30))
        for n in range(2, 5):
            outlook = closed(fill(outlook, NOW + n * SLOT_SECONDS))

        assert outlook.levels[: int(HOLDS_SECONDS / SLOT_SECONDS)] == (7.0, 7.0)
        assert all(math.isnan(v) for v in outlook.levels[2:])

    def test_are_bounded(self):
        outlook = begun("x", 7.0, NOW)
        for _ in range(100):
            outlook = closed(outlook)

        assert len(outlook.levels) == MAX_LEVELS


class TestContinues:
    @pytest.mark.parametrize(
        ("unit", "after", "expected"),
        [
            ("x", 0, True),
            ("x", 300, True),
            ("", 5, True),
            ("y", 5, False),
            ("x", -1, False),
            ("x", 100_000, False),
        ],
    )
    def test_as_long_as_it_has_to_do_with_now(self, unit, after, expected):
        assert continues(begun("x", 1.0, NOW), unit, NOW + after) is expected


class TestTrend:
    def test_is_the_slope(self):
        assert trend([10.0 + 3 * n for n in range(10)]) == 3

    def test_two_wild_levels_of_ten_do_not_move_it(self):
        levels = [100.0] * 10
        levels[3] = levels[8] = 1e9

        assert trend(levels) == 0

    @given(LEVELS)
    def test_lies_between_the_steepest_slopes(self, levels):
        slopes = [b - a for a, b in pairwise(levels)]

        assert min(slopes) - 1e-6 <= trend(levels) <= max(slopes) + 1e-6

    @pytest.mark.parametrize(
        "levels",
        [[], [1.0, 2.0], [1.0] * 9 + [math.nan], [math.nan] * 5 + [1.0] * 5],
        ids=["nothing", "too few", "the last is a gap", "half are gaps"],
    )
    def test_is_not_known_with_too_little(self, levels):
        assert trend(levels) is None

    def test_takes_gaps_for_gaps(self):
        assert trend([0.0, 1.0, 2.0, math.nan, math.nan, 5.0, 6.0, 7.0, 8.0, 9.0]) == 1


class TestAccuracy:
    def test_forecasts_that_came_true_are_believed(self):
        accuracy = Accuracy()
        for _ in range(300):
            accuracy = accuracy.after(0.1, 0.1)

        assert accuracy.weight(0.5, 10) > 0.95
        assert accuracy.skill(1.0) == pytest.approx(1.0)

    def test_forecasts_of_which_half_came_are_half_believed(self):
        accuracy = Accuracy()
        for _ in range(300):
            accuracy = accuracy.after(0.05, 0.1)

        assert accuracy.weight(0.5, 10) == pytest.approx(0.5)

    @pytest.mark.parametrize("came", [0.0, -0.1])
    def test_forecasts_of_which_nothing_came_are_not(self, came):
        accuracy = Accuracy()
        for _ in range(300):
            accuracy = accuracy.after(came, 0.1)

        assert accuracy.weight(0.5, 10) < 0.05
        assert accuracy.skill(1.0) == 0

    def test_before_any_it_is_the_prior(self):
        assert Accuracy().weight(0.5, 10) == 0.5

    def test_an_old_error_is_forgotten(self):
        accuracy = Accuracy()
        for came in [0.0] * 240 + [0.1] * 2000:
            accuracy = accuracy.after(came, 0.1)

        assert accuracy.weight(0.5, 10) > 0.9

    @given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 2)), max_size=50))
    def test_weight_and_skill_are_shares(self, pairs):
        accuracy = Accuracy()
        for came, expected in pairs:
            accuracy = accuracy.after(came, expected)
        weight = accuracy.weight(0.5, 10)

        assert 0 <= weight <= 1
        assert 0 <= accuracy.skill(weight) <= 1 + 1e-9


class TestComparison:
    def test_an_expectation_meets_what_came_in_its_slot(self):
        outlook = begun("x", 30.0, NOW)
        expectation = Expectation(outlook.slot, 20.0, (10.0, 0.0, 0.0), 25.0)
        outlook = outlook._replace(pending=(expectation,))

        done = closed(fill(outlook, NOW + SLOT_SECONDS))

        assert done.pending == ()
        assert done.came == (expectation, 30.0)
        assert done.accuracy[0].weight(0.5, 0) == 1

    def test_a_gap_judges_nobody(self):
        outlook = begun("x", None, NOW)._replace(accuracy=(Accuracy(1, 2, 3, 4),) * 3)
        waiting = outlook._replace(pending=(Expectation(outlook.slot, 20.0, (10.0, 0.0, 0.0), 25.0),))

        done = closed(fill(waiting, NOW + SLOT_SECONDS))

        assert (done.accuracy, done.came, done.pending) == (outlook.accuracy, None, ())
