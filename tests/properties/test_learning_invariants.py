"""Whatever the metrics say, what was learned stays sane, and no order or repetition changes it."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.learning import published, window_number
from stoker.core.readings import Fresh, Missing, PodMetrics, Signal, Stale
from testbed.replica_models import model_named
from tests.core.learning_lab import CHAT, WINDOW, Fleet, costs_of, mix_of, window
from tests.factories import NOW

MODEL = model_named("qwen3-32b-2xh100")
COSTS, CHATS = costs_of(MODEL), mix_of(MODEL, CHAT)
LEARNING = (
    Signal.GENERATED_TOKENS,
    Signal.PROMPT_TOKENS,
    Signal.INTER_TOKEN_LATENCY,
    Signal.CACHE_USAGE,
    Signal.RUNNING,
)

NUMBERS = st.sampled_from([0.0, 1e-300, 1e-9, 0.01, 0.05, 1.0, 900.0, 1e6, 1e12, math.nan, math.inf, -1.0])
ANSWERS = (
    NUMBERS.map(lambda v: Fresh(v, NOW))
    | NUMBERS.map(lambda v: Stale(v, NOW))
    | st.just(Missing("no series"))
)
PODS = st.lists(st.fixed_dictionaries(dict.fromkeys(LEARNING, ANSWERS)), min_size=4, max_size=4)


@settings(max_examples=60)
@given(st.lists(PODS, max_size=8), st.sampled_from([0, 10]))
def test_no_metrics_can_make_a_capacity_absurd(rounds, before):
    fleet = Fleet(4)
    fleet.run(COSTS, CHATS, before)
    for answers in rounds:
        fleet.look({p: PodMetrics(r) for p, r in zip(fleet.pods, answers, strict=True)})

        found = fleet.capacity
        assert 0 < found.tokens_per_second < math.inf
        assert 1 <= found.concurrent_requests <= 256
        assert 0 < found.prompt_token_weight < math.inf
        assert 0 <= found.confidence <= 1
        assert published(fleet.deployment.spec, fleet.learned).tokens_per_second >= 0


@settings(max_examples=30)
@given(PODS, st.integers(1, 5))
def test_one_window_of_anything_does_not_move_a_fleet_that_knows(answers, hostile):
    """At most half of the fleet says whatever it likes, once."""
    fleet = Fleet(10)
    fleet.run(COSTS, CHATS, 40)
    before = fleet.capacity
    good = {p: window(COSTS, CHATS, 0.4, fleet.luck) for p in fleet.pods}
    odd = {p: PodMetrics(answers[n % 4]) for n, p in enumerate(fleet.pods[:hostile])}

    fleet.look(good | odd)

    assert abs(fleet.capacity.concurrent_requests / before.concurrent_requests - 1) < 0.25


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.lists(PODS, min_size=1, max_size=4))
def test_the_order_of_pods_and_of_readings_changes_nothing(luck: random.Random, rounds):
    straight, shuffled = Fleet(4), Fleet(4)
    for answers in rounds:
        read = {p: PodMetrics(r) for p, r in zip(straight.pods, answers, strict=True)}
        straight.look(read)
        luck.shuffle(shuffled.pods)
        items = list(read.items())
        luck.shuffle(items)
        shuffled.look(dict(items))

    assert straight.learned == shuffled.learned


@settings(max_examples=30)
@given(st.lists(PODS, min_size=1, max_size=4), st.lists(st.integers(0, 11), max_size=10))
def test_how_often_it_is_looked_at_changes_nothing(rounds, looks):
    seldom, often = Fleet(4), Fleet(4)
    key = often.deployment.key
    for answers in rounds:
        read = {p: PodMetrics(r) for p, r in zip(seldom.pods, answers, strict=True)}
        seldom.look(read)
        often.look(read, WINDOW)
        moment = often.now
        for step in sorted(looks):
            often.now = moment
            later = moment + step * 5.0
            same = window_number(key, later, WINDOW) == window_number(key, moment, WINDOW)
            often.look(read, later - moment if same else 0.0)
        often.now = moment

    assert seldom.learned == often.learned
