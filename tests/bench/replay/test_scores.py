"""What a run is judged by."""

import pytest

from bench.replay.fleet import Fleet, StartUp
from bench.replay.scores import Ledger, reversals, target_at, wrong_way
from testbed.replica import Request
from testbed.replica_models import model_named


def request(arrival: float, ttft: float, tpot: float, *, prompt: int = 100, output: int = 101) -> Request:
    one = Request(round(arrival * 1e9), prompt, output)
    one.first_token_ns = round((arrival + ttft) * 1e9)
    one.finished_ns = one.first_token_ns + round(tpot * (output - 1) * 1e9)
    return one


def closed(ledger: Ledger) -> Ledger:
    ledger.decided(0.0, 1)
    ledger.close(Fleet(model_named("qwen3-32b-2xh100"), StartUp(60), 0))
    return ledger


def test_attainment_needs_both_objectives_and_counts_who_was_never_served():
    ledger = Ledger(10.0, 3600.0, 9)
    for arrival, ttft, tpot in ((5, 9, 9), (20, 2.0, 0.05), (20, 2.01, 0.01), (20, 0.1, 0.051)):
        ledger.finished(request(arrival, ttft, tpot), None)
    ledger.unserved(Request(round(30e9), 1, 1))
    score = closed(ledger).score()
    assert score.requests == 4
    assert score.attainment == 0.25
    assert score.ttft[1] == pytest.approx(2.01)


def test_long_prompts_have_more_time_in_the_second_attainment():
    ledger = Ledger(0.0, 3600.0, 9)
    ledger.finished(request(1, 5.9, 0.01, prompt=10_000), None)
    ledger.finished(request(1, 1.9, 0.01, prompt=100), None)
    score = closed(ledger).score()
    assert (score.attainment, score.attainment_by_length) == (0.5, 0.5)


def test_requests_that_a_grace_period_would_have_cut_are_counted():
    ledger = Ledger(0.0, 3600.0, 9)
    ledger.finished(request(0, 1, 0.45), 6.0)  # ends at 46 s, 40 s after the drain began
    assert closed(ledger).score().cut == {"30": 1, "60": 0, "300": 0, "600": 0}


def test_decisions_count_from_the_end_of_the_warm_up_and_time_at_the_bound_is_told():
    ledger = Ledger(600.0, 4200.0, 9)
    for at, target in ((0.0, 2), (100.0, 9), (900.0, 4), (1500.0, 9), (1800.0, 8)):
        ledger.decided(at, target)
    ledger.close(Fleet(model_named("qwen3-32b-2xh100"), StartUp(60), 0))
    score = ledger.score()
    assert (score.decisions, score.peak) == (3, 9)
    assert score.reversals_per_day == 2 * 24  # down, up, down within an hour
    assert score.capped_minutes == 5 + 5


def test_reversals_are_changes_of_direction():
    assert reversals([3]) == reversals([3, 4, 6, 7]) == 0
    assert reversals([3, 4, 3, 2, 5]) == 2


def test_the_target_in_force():
    targets = [(0.0, 3), (10.0, 5)]
    assert [target_at(targets, at) for at in (0.0, 9.9, 10.0, 99.0)] == [3, 3, 5, 5]


def test_a_wrong_way_move_goes_below_all_that_the_reference_wanted_around_it():
    reference = [(0.0, 8), (500.0, 7)]
    assert wrong_way([(0.0, 8), (450.0, 7)], reference, 400, 600) == (0, 0)
    assert wrong_way([(0.0, 8), (450.0, 5), (455.0, 2)], reference, 400, 600) == (2, 5)
    assert wrong_way([(0.0, 8), (100.0, 2)], reference, 400, 600) == (0, 0)
    assert wrong_way([(0.0, 8), (450.0, 9)], reference, 400, 600) == (0, 0)
