"""What is remembered of the traffic: growth, size and stay of requests, and how much the load varies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.traffic import (
    GROWTH_SECONDS,
    LONGEST_GAP,
    PRIOR_VARIANCE,
    Growth,
    Seen,
    Traffic,
    headroom,
    observed,
)
from tests.factories import NOW

WINDOW = 60.0
CAPACITY = 1000.0


def seen(after: float, **fields: float | None) -> Seen:
    known = {"running": 0.0, "waiting": 0.0, "finished": 0.0, "work": 0.0}
    return Seen(NOW + after, **(known | fields))  # type: ignore[arg-type]


def after(*moments: Seen, start: Traffic | None = None) -> Traffic:
    traffic = start or Traffic()
    for moment in moments:
        traffic = observed(traffic, moment, WINDOW, CAPACITY)
    return traffic


class TestGrowth:
    def test_it_is_what_came_on_top_since_the_last_scrapes(self):
        traffic = after(seen(0, running=10, waiting=2))

        assert traffic.growth(NOW + 20, 30, 12) == Growth(1.0, 0.5)

    def test_what_became_less_is_negative(self):
        assert after(seen(0, running=10, waiting=20)).growth(NOW + 20, 10, 0) == Growth(0.0, -1.0)

    def test_the_latest_moment_that_is_long_enough_ago_counts(self):
        moments = [seen(t, running=t) for t in range(0, 45, 5)]

        assert after(*moments).growth(NOW + 45, 100, 0).running == pytest.approx(
            (100 - (45 - GROWTH_SECONDS)) / GROWTH_SECONDS
        )

    def test_of_a_moment_too_short_ago_nothing_is_known(self):
        assert after(seen(0)).growth(NOW + GROWTH_SECONDS - 1, 100, 0) == Growth(0.0, 0.0)

    def test_nor_of_one_too_long_ago(self):
        assert after(seen(0)).growth(NOW + LONGEST_GAP + 1, 100, 0) == Growth(0.0, 0.0)

    def test_a_gap_forgets_what_was_in_flight(self):
        traffic = after(seen(0, running=50), seen(LONGEST_GAP + 30, running=90))

        assert traffic.growth(NOW + LONGEST_GAP + 40, 100, 0) == Growth(0.0, 0.0)

    def test_the_same_scrape_asked_for_again_is_no_second_one(self):
        assert len(after(seen(0), seen(0), seen(0)).in_flight) == 1

    def test_the_memory_stays_small(self):
        assert len(after(*(seen(t) for t in range(1000))).in_flight) <= 2 * GROWTH_SECONDS + 1


class TestRequests:
    def test_the_size_is_the_work_by_the_requests_that_finish(self):
        traffic = after(*(seen(t, finished=2.0, work=300.0) for t in range(0, 120, 5)))

        assert traffic.size == pytest.approx(150.0)

    def test_the_stay_is_littles_law(self):
        traffic = after(*(seen(t, finished=2.0, running=12.0) for t in range(0, 120, 5)))

        assert traffic.stay == pytest.approx(6.0, rel=0.06)  # a stay by the time that was watched

    def test_traffic_that_has_just_begun_does_not_seem_to_stay_for_minutes(self):
        # 3 requests/s from second 90 on, 10 s each; the rate of those that finish is the last minute's mean
        def begun(t: int) -> Seen:
            arrived, gone = 3.0 * max(0, t - 90), 3.0 * max(0, t - 100)
            return seen(t, finished=(gone - 3.0 * max(0, t - 160)) / 60, running=arrived - gone)

        traffic, stays = Traffic(), []
        for t in range(0, 360, 5):
            traffic = after(begun(t), start=traffic)
            stays.append(traffic.stay)

        known = [stay for stay in stays if stay is not None]
        assert max(known) < 25.0
        assert known[-1] == pytest.approx(10.0, rel=0.2)

    def test_a_queue_leaves_the_stay_as_it_was(self):
        calm = after(*(seen(t, finished=2.0, running=12.0) for t in range(0, 120, 5)))

        queued = after(
            *(seen(t, finished=2.0, running=200.0, waiting=900.0) for t in range(120, 600, 5)), start=calm
        )

        assert queued.stay == pytest.approx(6.0, rel=0.2)

    def test_a_mix_that_shifts_is_followed_within_minutes(self):
        traffic = after(
            *(seen(t, finished=1.0, work=1000.0) for t in range(0, 3600, 5)),
            *(seen(t, finished=1.0, work=200.0) for t in range(3600, 4800, 5)),
        )

        assert traffic.size == pytest.approx(200.0, rel=0.3)

    @pytest.mark.parametrize("finished", [None, 0.0], ids=["not counted", "none"])
    def test_without_finished_requests_nothing_is_known(self, finished):
        traffic = after(*(seen(t, finished=finished, running=9.0, work=5.0) for t in range(0, 120, 5)))

        assert (traffic.size, traffic.stay) == (None, None)

    @pytest.mark.parametrize("every", [1, 5, 15])
    def test_how_often_somebody_looks_does_not_matter(self, every):
        traffic = after(*(seen(t, finished=2.0, work=100.0 + t, running=12.0) for t in range(0, 901, every)))

        assert traffic.size == pytest.approx(350.0, rel=0.03)
        assert traffic.stay == pytest.approx(6.0, rel=0.02)


class TestVariance:
    def test_before_anything_was_seen_it_is_the_prior(self):
        assert Traffic().variance(CAPACITY) == PRIOR_VARIANCE * CAPACITY

    def test_a_constant_load_has_nearly_none(self):
        traffic = after(*(seen(t, work=500.0) for t in range(0, 7200, 5)))

        assert traffic.variance(CAPACITY) < 0.1 * PRIOR_VARIANCE * CAPACITY

    def test_a_load_that_rises_steadily_has_none_either(self):
        traffic = after(*(seen(t, work=500.0 + t) for t in range(0, 7200, 5)))

        assert traffic.variance(CAPACITY) < 0.1 * PRIOR_VARIANCE * CAPACITY

    def test_it_is_that_of_independent_levels(self):
        # minutes at 400 and 600 in turn, three and three: variance 10,000 where the mean is 500
        levels = [400.0, 600.0, 500.0] * 200
        traffic = after(*(seen(60.0 * n, work=level) for n, level in enumerate(levels)))

        deviation = [(levels[n] - (levels[n - 1] + levels[n + 1]) / 2) ** 2 / 1.5 for n in (3, 4, 5)]
        assert traffic.variance(CAPACITY) == pytest.approx(sum(deviation) / 3 / 500, rel=0.1)

    def test_a_single_step_is_no_fluctuation(self):
        calm = after(*(seen(t, work=500.0) for t in range(0, 3600, 5)))

        stepped = after(*(seen(t, work=5000.0) for t in range(3600, 4200, 5)), start=calm)

        assert stepped.variance(CAPACITY) < 2 * PRIOR_VARIANCE * CAPACITY

    def test_a_gap_makes_no_deviation(self):
        traffic = after(seen(0, work=500.0), seen(60, work=500.0), seen(600, work=9000.0))

        assert traffic.deviations == 0.0

    def test_without_a_count_of_tokens_nothing_is_learned(self):
        assert after(*(seen(t, work=None) for t in range(0, 600, 5))).deviations == 0.0

    def test_head_room_grows_with_the_root_of_the_load(self):
        assert headroom(Traffic(), 400.0, CAPACITY, 2.0) == pytest.approx(
            2 * headroom(Traffic(), 100.0, CAPACITY, 2.0)
        )


def test_a_clock_that_steps_back_forgets_the_present_and_keeps_the_variance():
    calm = after(*(seen(t, work=500.0, running=9.0) for t in range(0, 3600, 5)))

    back = after(seen(-7200, running=1.0), start=calm)

    assert back.in_flight == ()
    assert back.deviations == calm.deviations


@given(
    st.lists(
        st.tuples(st.floats(-100, 200), *(st.floats(0, 1e12) for _ in range(4))), min_size=1, max_size=30
    )
)
def test_whatever_is_read_the_memory_stays_finite_and_never_negative(moments):
    traffic, at = Traffic(), 0.0
    for step, running, waiting, finished, work in moments:
        at += step
        traffic = after(
            seen(at, running=running, waiting=waiting, finished=finished, work=work), start=traffic
        )
    numbers = [traffic.variance(CAPACITY), traffic.size or 0.0, traffic.stay or 0.0]
    assert all(math.isfinite(n) and n >= 0 for n in numbers)
