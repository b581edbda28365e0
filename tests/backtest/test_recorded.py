"""Which replicas there were: from nothing but the times of their samples."""

import math

import pytest

from stoker.backtest.recorded import Days, Life, interval_of, recorded
from stoker.clients.answers import Span
from stoker.core.history import KEPT_STEPS, STEP_SECONDS
from stoker.core.readings import Key

A, B = Key("models", "llama-a-0"), Key("models", "llama-a-1")
SPAN = Span(0.0, 7200.0, 15.0)


def scraped(*stretches, every=15.0):
    return [
        at
        for since, until in stretches
        for at in (since + every * n for n in range(int((until - since) / every)))
    ]


def lives(seen, span=SPAN, interval=15.0):
    return [(life.pod, life.start, life.end, life.began) for life in recorded(seen, span, interval).lives]


def test_a_replica_counts_from_its_first_sample_to_one_interval_after_its_last():
    seen = {A: scraped((0, 7200)), B: scraped((1000, 2000))}
    assert lives(seen) == [(A, 0, math.inf, False), (B, 1000, 1975 + 15, True)]


def test_a_replica_that_is_there_at_the_end_stays():
    assert lives({A: scraped((1000, 7000))}) == [(A, 1000, math.inf, True)]


@pytest.mark.parametrize("hole", [100, 300])
def test_a_short_hole_is_a_gap_in_the_metrics(hole):
    seen = {A: scraped((0, 2000), (2000 + hole, 7200)), B: scraped((0, 7200))}
    assert lives(seen)[0] == (A, 0, math.inf, False)


def test_a_long_hole_in_one_replica_is_another_replica_of_that_name():
    seen = {A: scraped((0, 2000), (3000, 7200)), B: scraped((0, 7200))}
    assert lives(seen) == [(A, 0, 1980 + 15, False), (B, 0, math.inf, False), (A, 3000, math.inf, True)]


def test_a_long_hole_in_all_of_them_is_an_outage_of_the_metrics():
    seen = {A: scraped((0, 2000), (3000, 7200)), B: scraped((5, 2005), (3005, 7200))}
    found = recorded(seen, SPAN, 15.0)
    assert [life.end for life in found.lives] == [math.inf, math.inf]
    assert found.gaps == ((1980, 3000),)


def test_the_replicas_of_each_instant():
    found = recorded({A: scraped((0, 7200)), B: scraped((1000, 2000))}, SPAN, 15.0)
    instants = [0.0, 999.0, 1000.0, 1989.0, 1990.0]
    present = {at: [life.pod for life in there] for at, there in found.present(instants)}
    assert present == {0: [A], 999: [A], 1000: [A, B], 1989: [A, B], 1990: [A]}


def test_hours_count_start_ups_within_the_period_alone():
    first, second = Life(A, 600.0, math.inf, began=False), Life(B, 3600.0, 5400.0, began=True)
    found = recorded({A: [0.0]}, SPAN, 15.0)
    found = type(found)((first, second), 15.0, ())
    assert found.hours(0.0, 7200.0, start_up=0.0) == pytest.approx(6600 / 3600 + 0.5)
    assert found.hours(0.0, 7200.0, start_up=600.0) == pytest.approx(6600 / 3600 + 0.5 + 600 / 3600)
    assert found.hours(3600.0, 7200.0, start_up=600.0) == pytest.approx(1.0 + 0.5)


def test_the_scrape_interval_is_told_by_how_many_samples_a_window_has():
    assert interval_of([20, 20, 19, 3], 300.0) == pytest.approx(300 / 19.5)
    assert interval_of([], 300.0) is None
    assert interval_of([0.0], 300.0) is None


def test_nobody_knows_the_days_after():
    values = [float(n) for n in range(KEPT_STEPS + 50)]
    days = Days(100, values)
    known = days.until((100 + 10) * STEP_SECONDS)
    assert known is not None
    assert (known.first, list(known.values)) == (100, values[:11])
    late = days.until((100 + KEPT_STEPS + 20) * STEP_SECONDS)
    assert late is not None
    assert len(late.values) == KEPT_STEPS
    assert late.values[-1] == values[KEPT_STEPS + 20]
    assert days.until(50 * STEP_SECONDS) is None
    assert Days().until(1e9) is None
