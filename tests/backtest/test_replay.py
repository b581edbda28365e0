"""Both fleets through the same time: what is decided, what serves when, and what was known."""

from dataclasses import replace
from typing import ClassVar

import pytest

from stoker.backtest.history import OWN_QUERY
from stoker.backtest.recorded import Days
from stoker.backtest.replay import Replay, stretches
from stoker.core import gateway
from stoker.core.faces import Face
from stoker.core.history import STEP_SECONDS
from stoker.core.readings import Metrics, Signal
from stoker.core.signals import Failed, Sample, Samples
from tests.backtest.lab import START, answers, life
from tests.factories import deployment

STEP = 15.0


def replay(start_up=240.0, days=None, **scaling):
    known = {"maxReplicas": 9, "targets": {"concurrentRequests": 40}, "windows": {"up": "30s", "down": "5m"}}
    llama = deployment(scaling={**known, "forecast": "Disabled", **scaling})
    return Replay(llama, llama.metrics, start_up, 60.0, days or Days())


def through(run, load, lives, count, first=0):
    """Steps with a load (of requests in flight, by seconds since the start), all of it known."""
    for number in range(first, first + count):
        at = START + number * STEP
        there = [one for one in lives if one.start <= at < one.end]
        known = {Signal.RUNNING: load(at - START), Signal.WAITING: 0.0}
        run.step(at, there, answers(run.names, there, at, known))
    return run.outcome


def test_it_begins_with_the_replicas_that_ran_within_the_bounds():
    outcome = through(replay(), lambda at: 100.0, [life(n) for n in range(4)], 1)
    assert (outcome.moments[0].wanted, outcome.moments[0].serving, outcome.moments[0].recorded) == (4, 4, 4)
    bounded = through(replay(maxReplicas=3), lambda at: 100.0, [life(n) for n in range(4)], 1)
    assert bounded.moments[0].wanted == 3


def test_a_new_replica_is_paid_at_once_and_serves_after_its_start_up():
    outcome = through(replay(), lambda at: 70.0 if at < 60 else 90.0, [life(0), life(1)], 30)
    (change,) = outcome.changes
    assert (change.at - START, change.before, change.after) == (90, 2, 3)
    assert change.limited_by == "concurrentRequests"
    assert "90 requests at 40 per replica needs 3" in change.message
    at = {m.at - START: m for m in outcome.moments}
    assert (at[75].wanted, at[90].wanted) == (2, 3)
    assert (at[90].serving, at[315].serving, at[330].serving) == (2, 2, 3)
    assert outcome.started == 1


def test_replicas_that_leave_serve_no_more():
    outcome = through(replay(), lambda at: 5.0, [life(0), life(1)], 80)
    assert [(c.before, c.after) for c in outcome.changes] == [(2, 1)]
    assert outcome.moments[-1].serving == 1
    assert outcome.removed == 1


def test_the_load_is_the_recorded_one_whatever_the_simulated_fleet_does():
    outcome = through(replay(maxReplicas=2), lambda at: 200.0, [life(n) for n in range(5)], 20)
    assert {m.needed for m in outcome.moments} == {5}
    assert {m.load for m in outcome.moments} == {5.0}
    assert outcome.moments[-1].serving == 2


def test_no_answer_is_a_gap_and_not_an_idle_fleet():
    run = replay()
    through(run, lambda at: 150.0, [life(n) for n in range(4)], 10)
    for number in range(10, 200):
        at = START + number * STEP
        run.step(at, [life(n) for n in range(4)], {Signal.RUNNING.value: Failed("gone")})
    assert {m.wanted for m in run.outcome.moments} == {4}
    last = run.outcome.moments[-1]
    assert (last.needed, last.known) == (None, False)
    tally = run.outcome.tallies["concurrentRequests"]
    assert (tally.known, tally.unknown) == (10, 190)
    assert "Prometheus: gone" in tally.why


def test_a_partly_known_demand_is_a_lower_bound():
    run, lives = replay(), [life(n) for n in range(4)]
    half = answers(run.names, lives[:2], START, {Signal.RUNNING: 100.0, Signal.WAITING: 0.0})
    moment = run.step(START, lives, half)
    assert (moment.needed, moment.known) == (3, False)
    assert run.outcome.tallies["concurrentRequests"].partly == 1


def test_a_replica_that_just_began_to_serve_is_not_held_against_the_metrics():
    run = replay()
    lives = [life(0), life(1, start=START - 10, began=True)]
    known = answers(run.names, lives[:1], START, {Signal.RUNNING: 30.0, Signal.WAITING: 0.0})
    assert run.step(START, lives, known).known


def test_nobody_there_counts_against_no_target():
    run = replay()
    moment = run.step(START, [], {})
    assert (moment.recorded, moment.needed, moment.known) == (0, None, False)
    assert run.outcome.tallies == {}


def test_held_requests_and_own_queries_count_as_they_do_live():
    signals = [{"name": "jobs", "query": "sum(jobs)", "target": 10}]
    run, lives = replay(signals=signals), [life(0)]
    known = answers(run.names, lives, START, {Signal.RUNNING: 10.0, Signal.WAITING: 0.0})
    held = Sample({"namespace": "models", "inference_pool": "llama"}, 70.0, START)
    known[gateway.NAME] = Samples((held,))
    known[f"{OWN_QUERY}sum(jobs)"] = Samples((Sample({}, 45.0, START),))
    moment = run.step(START, lives, known)
    faces = {face.name: face for face in run.outcome.last.faces}
    assert (faces["concurrentRequests"].value, faces["signals[jobs]"].replicas) == (80.0, 5)
    assert (moment.needed, moment.load) == (5, 4.5)


def test_forecasts_know_the_days_before_and_none_of_the_days_after(monkeypatch):
    first = int(START // STEP_SECONDS) - 10
    days = Days(first, [100.0] * 11 + [1e9] * 10)
    run, asked = replay(days=days, forecast="Auto"), []
    decide = run._decider.decide

    def note(now, pods, metrics, history=None):
        asked.append(history)
        return decide(now, pods, metrics, history)

    monkeypatch.setattr(type(run._decider), "decide", lambda self, *args: note(*args))
    through(run, lambda at: 30.0, [life(0)], 2)
    assert [list(known.values) for known in asked] == [[100.0] * 11] * 2


def test_the_days_before_are_looked_at_every_hour():
    class Counted(Days):
        looks: ClassVar[list] = []

        def until(self, at):
            self.looks.append(at - START)

    through(replay(days=Counted()), lambda at: 30.0, [life(0)], 2 * 240 + 1)
    assert Counted.looks == [0.0, 3600.0, 7200.0]


def test_neither_a_guard_nor_a_forecast_is_a_need():
    def face(name, replicas, **fields):
        return Face(name, "requests", 40.0 * replicas, 40.0, replicas, True, False, "", **fields)

    def asks(run, *faces):
        decided = run._decider.decide(START, [], Metrics(START))
        return run._moment(START, replace(decided, faces=faces), 1)

    need, guard, ahead = face("a", 2), face("b", 9, guard=True), face("c", 8, ahead=True)
    assert asks(replay(), need, guard).needed == 2
    assert asks(replay(), need, ahead).needed == 2
    assert asks(replay(), need, ahead).load == 2.0


@pytest.mark.parametrize(
    ("holds", "found"),
    [
        ([False] * 4, []),
        ([True] * 4, [(0, 3)]),
        ([True, False, True, True], [(0, 0), (2, 3)]),
        ([False, True, False, True], [(1, 1), (3, 3)]),
    ],
)
def test_stretches(holds, found):
    moments = through(replay(), lambda at: 30.0, [life(0)], 4).moments
    numbers = {m.at: n for n, m in enumerate(moments)}
    assert [(numbers[a.at], numbers[b.at]) for a, b in stretches(moments, holds)] == found
