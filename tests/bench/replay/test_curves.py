"""Curves: what is frozen, and what one costs beside another."""

import math

import pytest

from bench.replay.candidate import Choice
from bench.replay.curves import cheapest, cost_at, front, frozen, mean_curve, ratio


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0.9, 10.0),
        (0.95, 15.0),
        (0.99, 20.0 + 10.0 * math.log(0.019 / 0.010) / math.log(0.019 / 0.009)),
        (0.995, None),
        (0.8, None),
    ],
)
def test_cost_at_equal_attainment_is_read_off_the_efficient_settings(at, expected):
    points = [(20.0, 0.981), (10.0, 0.9), (30.0, 0.991), (40.0, 0.97), (15.0, 0.95)]
    found = cost_at(points, at)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_front_leaves_out_what_another_setting_beats_in_both():
    assert front([(3.0, 0.9), (1.0, 0.5), (2.0, 0.95), (1.0, 0.6)]) == [(1.0, 0.6), (2.0, 0.95)]


def test_the_efficient_settings_are_frozen_from_useless_to_more_than_enough():
    tried = {
        Choice(0.2): (30.0, 1.0),
        Choice(0.35): (20.0, 0.9995),
        Choice(0.5): (15.0, 0.9985),
        Choice(0.5, "shorter"): (13.0, 0.996),
        Choice(0.65): (14.0, 0.992),
        Choice(0.8): (10.0, 0.97),
        Choice(0.95): (9.0, 0.6),
        Choice(1.05): (8.0, 0.5),
    }
    expected = [Choice(0.95), Choice(0.8), Choice(0.5, "shorter"), Choice(0.5), Choice(0.35)]
    assert frozen(tried) == expected
    assert cheapest(tried, 0.9982) == Choice(0.5)


def test_of_settings_that_give_the_same_the_first_is_frozen():
    tried = {Choice(1.0): (9.0, 0.7), Choice(2.0): (5.0, 0.7), Choice(5.0): (5.0, 0.7)}
    assert frozen(tried) == [Choice(2.0)]


def test_where_no_setting_reaches_the_objective_the_best_there_is_stands_for_it():
    assert cheapest(
        {Choice(1.0): (9.0, 0.8), Choice(2.0): (5.0, 0.8), Choice(5.0): (1.0, 0.4)}, 0.995
    ) == Choice(2.0)


def seeds(cost: float, *, spread: float = 0.0) -> list[dict[int, tuple[float, float]]]:
    """Two settings around 99 %, for five seeds; a seed that is dear is dear for everybody."""
    return [
        {n: (cost * hours * (1 + spread * n), reached) for n in range(5)}
        for hours, reached in ((10.0, 0.98), (12.0, 1.0))
    ]


def test_a_ratio_is_taken_at_equal_attainment_over_paired_seeds():
    found = ratio(seeds(1.1, spread=0.2), seeds(1.0, spread=0.2), 0.99)
    assert found.value == pytest.approx(1.1)
    assert (found.low, found.high) == (pytest.approx(1.1), pytest.approx(1.1))  # the luck is the same


def test_the_interval_widens_where_seeds_differ_in_one_curve_alone():
    found = ratio(seeds(1.0, spread=0.1), seeds(1.0), 0.99)
    assert found.low < found.value - 0.05
    assert found.high > found.value + 0.05


def test_without_seeds_in_common_or_where_a_curve_does_not_reach_there_is_no_ratio():
    assert ratio(seeds(1.0), [], 0.99).value is None
    assert ratio(seeds(1.0), seeds(1.0)[:1], 0.99).value is None
    two = [{n: one[n] for n in (0, 1)} for one in seeds(1.0)]
    assert ratio(two, two, 0.99).value == 1.0
    assert ratio(two, two, 0.99).low is None


def test_the_mean_of_a_setting_counts_a_seed_as_often_as_it_was_drawn():
    assert mean_curve([{0: (10.0, 0.9), 1: (20.0, 1.0)}], [0, 1, 1]) == [
        (pytest.approx(50 / 3), pytest.approx(2.9 / 3))
    ]
