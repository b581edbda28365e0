"""The filter behind what is learned: what a measurement changes, and what it must not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.belief import DRIFT, FACTORS, NOISE, Belief, believe, doubted, drifted, updated
from stoker.core.latency import Costs

PRIOR = Costs(base=0.014, per_sequence=62.5e-6, full_cache=0.0143, per_prompt_token=49e-6)
BUSY = (1 / 0.03, 900.0, 0.1 / 0.03, 4500.0)
"""A window: 30 ms per token, 900 generated and 4,500 prompt tokens per second, a tenth of the cache."""
IDLE = (1 / 0.0141, 5.0, 0.001, 20.0)

rows = st.tuples(st.floats(1 / 30, 1e4), st.floats(1, 1e5), st.floats(0, 1e4), st.floats(0, 1e6))


def learned(*measured: tuple[tuple[float, ...], float], deviation: float = 0.5) -> Belief:
    belief = believe(PRIOR, deviation)
    for row, right in measured:
        belief = updated(belief, row, right - belief.predicted(row), NOISE**2)
    return belief


def test_a_measurement_is_believed_the_more_the_less_was_known():
    sure, unsure = (
        learned((BUSY, 1.3 * believe(PRIOR, 0.5).predicted(BUSY)), deviation=d) for d in (0.02, 0.5)
    )
    before = believe(PRIOR, 0.5).predicted(BUSY)

    assert before < sure.predicted(BUSY) < unsure.predicted(BUSY) < 1.3 * before


def test_what_one_mix_cannot_tell_apart_keeps_the_proportion_of_the_prior():
    half = [(BUSY, 2 * believe(PRIOR, 0.5).predicted(BUSY))] * 50

    costs = learned(*half).costs

    assert learned(*half).predicted(BUSY) == pytest.approx(half[0][1], rel=0.01)
    assert all(found > known for found, known in zip(costs, PRIOR, strict=True))


def test_windows_of_different_loads_tell_the_base_from_the_rest():
    truth = Costs(*(2 * c for c in PRIOR[:1]), *PRIOR[1:])
    exact = believe(truth, 0.5)
    # Rows whose right-hand side is what the true costs give.
    measured = [(row, exact.predicted(row)) for row in (BUSY, IDLE) for _ in range(30)]

    found = learned(*measured).costs

    assert found.base == pytest.approx(truth.base, rel=0.02)


def test_time_makes_less_sure_and_never_less_than_the_prior():
    belief = learned((BUSY, 1.0), (IDLE, 1.0))
    later = drifted(belief, 1.0)

    assert belief.variance(BUSY) < later.variance(BUSY)
    assert later.covariance[0][0] == pytest.approx(belief.covariance[0][0] + DRIFT**2)
    assert drifted(belief, 1e9).covariance[0][0] == pytest.approx(belief.ceiling)
    assert drifted(belief, 0.0) == belief


def test_doubt_keeps_what_was_found_and_forgets_how_sure_it_was():
    belief = learned(*[(BUSY, 1.5)] * 20)

    assert doubted(belief).factors == belief.factors
    assert doubted(belief).variance(BUSY) > 100 * belief.variance(BUSY)


def test_drift_is_what_an_old_measurement_yields_to():
    """Within half an hour where each window of one replica tests it; over days where none does."""
    belief, windows = believe(PRIOR, 0.5), 600
    for _ in range(windows):
        belief = drifted(updated(belief, BUSY, 0.0, NOISE**2), 1 / 60)
    gain = belief.variance(BUSY) / (belief.variance(BUSY) + NOISE**2)
    half_life = math.log(0.5) / math.log(1 - gain)  # windows

    assert 5 < half_life < 30
    assert (0.5 / DRIFT) ** 2 / 24 > 5  # days until an untested deviation of 0.5 is as open as before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(rows, st.floats(-1e3, 1e3)), max_size=30), st.floats(0, 100))
def test_whatever_is_measured_costs_stay_positive_and_bounded(measured, hours):
    belief = believe(PRIOR, 0.8)
    for row, residual in measured:
        belief = drifted(updated(belief, row, residual, NOISE**2), hours)

    low, high = FACTORS
    assert all(low <= factor <= high for factor in belief.factors)
    assert all(math.isfinite(v) for row in belief.covariance for v in row)
    assert all(-1e-9 <= belief.covariance[i][i] <= belief.ceiling * (1 + 1e-9) for i in range(4))
    assert all(
        belief.covariance[i][j] == pytest.approx(belief.covariance[j][i], abs=1e-12)
        for i in range(4)
        for j in range(4)
    )
    assert min(belief.costs) > 0
