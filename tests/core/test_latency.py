"""The law of an iteration, and what a replica carries by it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.latency import FULL, LEAST_LOAD, Costs, Mix, capacity, slope_of

COSTS = Costs(base=0.014, per_sequence=62.5e-6, full_cache=0.0143, per_prompt_token=49e-6)
MIX = Mix(prompt=5.0, cache=0.004)
MANY = math.inf

costs = st.builds(
    Costs, st.floats(1e-3, 0.1), st.floats(1e-7, 1e-3), st.floats(1e-5, 0.1), st.floats(1e-7, 1e-2)
)
mixes = st.builds(Mix, st.floats(0, 100), st.floats(0, 1))


def test_at_the_load_of_the_mean_a_token_takes_the_objective():
    generated = (1 - COSTS.base / 0.05) / slope_of(COSTS, MIX)
    in_batch = generated * 0.05
    iteration = (
        COSTS.base
        + COSTS.per_sequence * in_batch
        + COSTS.full_cache * MIX.cache * in_batch
        + COSTS.per_prompt_token * generated * MIX.prompt * 0.05
    )
    assert iteration == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("cost", "tokens", "measured", "off"),
    [
        # One replica, Poisson arrivals, 99 % of requests within 50 ms per token and 2 s to the first:
        # bench.replay.calibration on the testbed's engines.
        (COSTS, (1155, 211), 1268, 0.05),
        (COSTS, (1024, 1024), 3486, 0.2),  # all alike, so that they leave less to chance
        (COSTS, (4096, 128), 230, 0.2),
        (COSTS, (512, 256), 3293, 0.15),
        (Costs(0.01102, 54.7e-6, 0.018135, 44.57e-6), (1155, 211), 1668, 0.05),
        (Costs(0.01102, 54.7e-6, 0.018135, 44.57e-6), (1024, 1024), 5036, 0.15),
        (Costs(0.01102, 54.7e-6, 0.018135, 44.57e-6), (4096, 128), 325, 0.25),
    ],
)
def test_less_what_chance_takes_it_is_what_one_replica_was_measured_to_carry(cost, tokens, measured, off):
    """Chance: work that comes as Poisson arrivals do, in sizes that spread like exponential ones, varies over
    a request's life by √(x·2/R) of a replica with R requests in its batch; the share x of the load that keeps
    99 % of requests within the objective solves x + 2.33·√(x·2/R) = 1.
    """
    prompt, output = tokens
    cache = 290_000 if cost is COSTS else 650_000
    mix = Mix(prompt / output, (prompt + output / 2) / cache)

    found = capacity(cost, mix, 0.05, MANY)

    chance = 2.326 * math.sqrt(2 / found.in_flight)
    alone = ((math.sqrt(chance**2 + 4) - chance) / 2) ** 2
    assert alone * found.weighted / (1 + found.weight * mix.prompt) == pytest.approx(measured, rel=off)


def test_a_weighted_token_is_the_same_work_whatever_the_mix():
    more_prompts = capacity(COSTS, Mix(20.0, MIX.cache), 0.05, MANY)
    fewer = capacity(COSTS, Mix(1.0, MIX.cache), 0.05, MANY)

    assert more_prompts.weight == fewer.weight == COSTS.per_prompt_token / slope_of(COSTS, Mix(0, MIX.cache))
    assert more_prompts.load / more_prompts.weighted == pytest.approx(fewer.load / fewer.weighted)


def test_an_objective_out_of_reach_is_given_up_not_bought():
    out_of_reach = capacity(COSTS, MIX, COSTS.base / 2, MANY)

    assert out_of_reach.load == pytest.approx(LEAST_LOAD)


def test_the_cache_and_the_batch_bound_what_fits():
    assert capacity(COSTS, Mix(0.1, 0.1), 0.5, MANY).in_flight == pytest.approx(FULL / 0.1)
    assert capacity(COSTS, MIX, 0.5, 7).in_flight == 7


def test_at_a_bound_the_load_is_that_of_the_bound():
    found = capacity(COSTS, MIX, 0.5, 7)
    generated = found.load / slope_of(COSTS, MIX)
    assert found.in_flight == pytest.approx(generated * COSTS.base / (1 - found.load))


@given(costs, mixes, st.floats(1e-3, 10), st.floats(1, 1024))
def test_a_replica_always_carries_something_and_never_without_end(cost, mix, objective, most):
    found = capacity(cost, mix, objective, most)

    assert 0 < found.weighted < math.inf
    assert 1 <= found.in_flight <= max(1.0, most)
    assert 0 < found.weight < math.inf
    assert 0 < found.load < 1


@given(costs, mixes, st.floats(0.001, 1), st.floats(1.01, 5))
def test_a_longer_objective_never_leaves_less(cost, mix, objective, longer):
    tight, loose = (capacity(cost, mix, t, MANY) for t in (objective, objective * longer))

    assert loose.weighted >= tight.weighted * (1 - 1e-9)
    assert loose.in_flight >= tight.in_flight * (1 - 1e-9)
