"""What a round asks: everything now and then, and in between what decides."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from stoker.controller.rounds import EVERYTHING_SECONDS, Rounds
from stoker.core import promql
from stoker.core.readings import FOR_LEARNING, Signal
from stoker.core.signals import Failed, Sample, Samples
from tests.factories import NOW, vllm

VLLM = vllm()
EVERYTHING = set(promql.queries([VLLM]))
GONE = Failed("connection refused", unreachable=True)


@pytest.fixture
def world():
    found = SimpleNamespace(now=NOW, answer=Samples(()))
    rounds = Rounds(lambda: found.now)

    def play(**answers):
        """One round, 5 s after the last one; the queries that were asked, and what is known of it."""
        asked = rounds.queries([VLLM], [])
        told = {name: answers.get(name, found.answer) for name in asked}
        known = rounds.completed(told, [VLLM])
        found.now += 5.0
        return asked, known

    found.play = play
    return found


def of(value: float) -> Samples:
    return Samples((Sample({"namespace": "n", "pod": "p"}, value, NOW),))


def test_what_only_teaches_is_asked_for_every_fifteen_seconds(world):
    asked = [set(world.play()[0]) for _ in range(6)]

    assert EVERYTHING_SECONDS == 15.0
    assert asked == [EVERYTHING, *[EVERYTHING - FOR_LEARNING] * 2] * 2


def test_in_between_the_last_answers_stand(world):
    world.play(cacheUsage=of(0.5))

    assert world.play()[1]["cacheUsage"] == of(0.5)
    assert world.play()[1].keys() == EVERYTHING
    assert world.play(cacheUsage=of(0.7))[1]["cacheUsage"] == of(0.7)


def test_what_failed_is_not_kept_but_asked_again(world):
    world.play(cacheUsage=Failed("busy"))
    asked, _ = world.play()

    assert "cacheUsage" in asked
    assert "interTokenLatency" not in asked


def test_a_name_that_no_pod_uses_is_left_out_until_everything_is_asked_again(world):
    queries = [world.play()[0]["promptTokens"] for _ in range(4)]
    asks = ["vllm:prompt_tokens_total" in query for query in queries]

    assert asks == [True, False, False, True]


def test_answers_that_are_kept_do_not_hide_that_prometheus_is_gone(world):
    world.play()
    world.answer = GONE
    asked, known = world.play()

    assert asked.keys() == EVERYTHING - FOR_LEARNING
    assert set(known.values()) == {GONE}


def test_after_a_round_that_failed_everything_is_asked_for(world):
    world.play()
    world.answer = GONE
    world.play()
    world.answer = Samples(())

    assert world.play()[0].keys() == EVERYTHING


def test_an_engine_that_teaches_nothing_is_asked_for_all_it_has_each_time():
    series = {signal: VLLM.series[signal] for signal in VLLM.series if signal not in FOR_LEARNING}
    plain = replace(VLLM, series=series)
    rounds = Rounds(lambda: NOW)
    for _ in range(3):
        asked = rounds.queries([plain], [])
        assert Signal.RUNNING in asked
        assert " or on " in asked["promptTokens"]
        rounds.completed(dict.fromkeys(asked, Samples(())), [plain])
