"""Forecasts: what they ask for, how far they are believed, and what they never do."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.api.v1alpha1 import Freshness, Season
from stoker.core.demand import Demand, FirstToken, Total
from stoker.core.faces import Face
from stoker.core.forecast import Ahead, Forecast, Measured, forecast, look, offered
from stoker.core.history import STEP_SECONDS, History, history_of
from stoker.core.outlook import MAX_AHEAD, MAX_LEVELS, SLOT_SECONDS, Accuracy, Outlook, begun
from stoker.core.readings import Fresh, Signal
from tests.factories import NOW

SLOW = Ahead(ready=600.0, rate_window=60.0, up=30.0)
CAPACITY = 1000.0


def total(value: float, covered: int = 2, expected: int = 2) -> Total:
    return Total(value, Fresh(value, NOW), covered, expected, expected)


def demand(tokens: float | None, serving: int = 2) -> Demand:
    totals = {Signal.GENERATED_TOKENS: total(tokens)} if tokens is not None else {}
    return Demand(totals, FirstToken(None, 0, 0), serving)


def present(load: float, replicas: int | None = None) -> Face:
    needs = math.ceil(load) if replicas is None else replicas
    return Face("utilization", "x", load, 1.0, needs, complete=True, blind=False, message="")


class World:
    """Looks every few seconds at a demand that is a function of the time."""

    def __init__(
        self, course: Callable[[float], float | None], *, ahead: Ahead = SLOW, history: History | None = None
    ) -> None:
        self.course = course
        self.ahead = ahead
        self.history = history
        self.now = NOW
        self.outlook: Outlook | None = None

    def tick(self, after: float = 5.0) -> Forecast:
        self.now += after
        tokens = self.course(self.now - NOW)
        load = (tokens or 0.0) / CAPACITY
        found = forecast(
            self.outlook,
            demand(tokens, serving=max(1, math.ceil(load))),
            [present(load)],
            self.ahead,
            self.history,
            why_no_history="" if self.history else "it was not asked for yet",
            now=self.now,
        )
        self.outlook = found.outlook
        return found

    def run(self, seconds: float, every: float = 5.0) -> list[Forecast]:
        return [self.tick(every) for _ in range(round(seconds / every))]


def ramp(seconds: float) -> float:
    """From two replicas' load on, one more every five minutes."""
    return CAPACITY * (2.5 + seconds / 300)


def noise(seconds: float) -> float:
    return CAPACITY * (4.5 + random.Random(int(seconds // 10)).uniform(-1, 1))


class TestWhatItAsksFor:
    def test_a_ramp_is_met_before_it_comes(self):
        world = World(ramp)
        world.run(3600)
        last = world.tick()

        expected = ramp(world.now - NOW + SLOW.seconds) / CAPACITY
        assert last.face is not None
        assert expected - 2 < last.face.replicas <= math.ceil(expected)
        assert last.face.ahead
        assert last.face.load == 0

    def test_it_says_so(self):
        world = World(ramp)
        world.run(3600)
        found = world.tick()

        assert found.face is not None
        assert "weighted tokens/s expected at" in found.face.message
        status = found.outlook.status
        assert status is not None
        assert status.part is Season.TREND
        assert status.weight is not None
        assert status.weight > 0.8
        assert status.horizon_seconds == 675
        assert status.value == pytest.approx(ramp(world.now - NOW + 675), rel=0.1)
        assert status.last is not None
        assert status.last.actual == pytest.approx(status.last.expected, rel=0.1)

    def test_a_growth_as_small_as_noise_is_none(self):
        course = lambda s: CAPACITY * (2.9 + s / 3000)  # noqa: E731 - 0.1 replicas within the horizon

        assert all(f.face is None for f in World(course).run(900))

    def test_head_room_does_not_grow_with_the_demand(self):
        world = World(ramp)
        world.run(900)
        roomy = present(3.0)._replace(headroom=4.0, replicas=7)
        tokens = demand(ramp(930))

        found = forecast(world.outlook, tokens, [roomy], SLOW, None, why_no_history="", now=NOW + 931)

        assert found.face is None or found.face.replicas <= 8

    def test_a_steady_demand_asks_for_nothing(self):
        assert all(f.face is None for f in World(lambda _: 3500.0).run(3600))

    def test_a_demand_that_does_not_grow_leaves_status_as_it_is(self):
        found = World(lambda _: 3500.0).run(1800)

        assert len({f.outlook.status.model_dump_json() for f in found[120:]}) == 1

    def test_a_falling_demand_asks_for_nothing(self):
        assert all(f.face is None for f in World(lambda s: 9000.0 - s).run(3600))

    def test_what_did_not_come_is_given_back_when_its_moment_has_passed(self):
        world = World(lambda s: ramp(min(s, 1500.0)))
        world.run(1500)
        assert world.tick().face is not None
        assert all(f.face is None for f in world.run(1800)[int((SLOW.seconds + 330) / 5) :])

    def test_queued_work_does_not_grow_with_the_demand(self):
        """A load of 20 on two replicas: what they carry is at most 2 of it."""
        world = World(ramp)
        world.run(1200)
        outlook = world.outlook

        found = forecast(
            outlook, demand(ramp(1230)), [present(20.0)], SLOW, None, why_no_history="", now=NOW + 1231
        )

        assert found.face is None or found.face.replicas <= 23

    @pytest.mark.parametrize(
        ("ready", "trend", "days"),
        [(5, 0, 0), (60, 0, 0), (90, 0, 0.5), (240, 0, 1), (300, 0, 1), (450, 0.5, 1), (600, 1, 1)],
    )
    def test_replicas_that_start_fast_need_none(self, ready, trend, days):
        found = [Ahead(ready, 60.0, 30.0).urgency(part) for part in Season]

        assert found == [trend, days, days]

    @pytest.mark.parametrize(
        ("ready", "words"),
        [
            (30, "replicas serve within 30 s: a forecast would gain nothing"),
            (240, "replicas serve within 240 s: a trend would gain nothing"),
            (600, "expected from"),
        ],
    )
    def test_then_it_says_so(self, ready, words):
        found = World(lambda s: ramp(3 * s), ahead=Ahead(ready, 60.0, 30.0)).run(1200)

        assert any(f.face for f in found) == (ready == 600)
        assert found[-1].outlook.status.message.startswith(words)

    def test_the_horizon_is_bounded(self):
        assert Ahead(1e9, 60.0, 30.0).slots == MAX_AHEAD


class TestAccuracy:
    def test_noise_is_not_believed(self):
        world = World(noise)
        world.run(6 * 3600)
        found = world.run(3600)

        assert world.outlook is not None
        assert world.outlook.accuracy[0].weight(0.5, 10) < 0.1
        assert sum(f.face is not None for f in found) < 0.05 * len(found)

    def test_a_ramp_is(self):
        world = World(ramp)
        world.run(3600)

        assert world.outlook is not None
        assert world.outlook.accuracy[0].weight(0.5, 10) > 0.8

    @pytest.mark.parametrize(("share", "weight"), [(0.05, 0), (0.3, 0.5), (0.6, 1)])
    def test_half_of_what_was_expected_is_enough(self, share, weight):
        accuracy = Accuracy()
        for _ in range(2000):
            accuracy = accuracy.after(0.1 * share, 0.1)
        outlook = begun("x", 1000.0, NOW)._replace(levels=tuple(1000.0 + 10 * n for n in range(10)))
        outlook = outlook._replace(accuracy=(accuracy, Accuracy(), Accuracy()))

        found = look(outlook, Measured("x", 1100.0), SLOW, None, NOW + 30)

        assert found.pending[-1].weight == pytest.approx(weight, abs=0.03)

    def test_it_is_found_out_what_was_right(self):
        world = World(lambda s: noise(s) if s < 4 * 3600 else ramp(s - 4 * 3600))
        world.run(4 * 3600)
        assert world.outlook is not None
        before = world.outlook.accuracy[0].weight(0.5, 10)
        world.run(7200)

        assert world.outlook.accuracy[0].weight(0.5, 10) > before + 0.3


def daily(when: float) -> float:
    """Flat nights, and a step up at 9 o'clock UTC that no trend can see."""
    return 8000.0 if 9 <= when / 3600 % 24 < 18 else 1500.0


def past(until: float, course: Callable[[float], float], days: float = 5) -> History:
    last = int(until // STEP_SECONDS)
    first = last - round(days * 144) + 1
    found = history_of(first, [course((n - 0.5) * STEP_SECONDS) for n in range(first, last + 1)])
    assert found is not None
    return found


class TestDays:
    def morning(self, course: Callable[[float], float] = daily) -> list[Forecast]:
        begin = (NOW // 86_400 + 1) * 86_400 + 8 * 3600
        world = World(lambda s: daily(NOW + s), history=past(begin, course))
        world.now = begin
        return world.run(3600 - 60)

    def test_what_came_every_morning_is_expected_today(self):
        found = self.morning()

        assert found[-1].face is not None
        assert found[-1].face.replicas > 4
        assert found[-1].outlook.status.part is Season.DAILY
        assert found[0].face is None

    def test_days_that_say_nothing_are_not_believed(self):
        def wild(when: float) -> float:
            return 1000.0 + 900 * math.sin((when // STEP_SECONDS) ** 2)

        assert sum(f.face is not None for f in self.morning(wild)) == 0

    def test_without_a_history_it_says_why(self):
        world = World(ramp)
        world.run(120)

        assert world.outlook is not None
        assert "no daily shape: it was not asked for yet" in world.outlook.status.message


class TestDemand:
    def test_is_weighted_tokens_where_they_are_counted(self):
        totals = {Signal.GENERATED_TOKENS: total(100.0), Signal.PROMPT_TOKENS: total(1000.0)}

        assert offered(Demand(totals, FirstToken(None, 0, 0), 2)) == Measured("weighted tokens/s", 400.0)

    @pytest.mark.parametrize(
        ("signals", "expected"),
        [
            ({Signal.REQUESTS: 3.0, Signal.RUNNING: 9.0}, Measured("requests/s", 3.0)),
            ({Signal.RUNNING: 9.0, Signal.WAITING: 2.0}, Measured("requests", 11.0)),
            ({Signal.RUNNING: 9.0}, Measured("requests", 9.0)),
            ({}, Measured("", None)),
        ],
    )
    def test_is_the_best_of_what_an_engine_has(self, signals, expected):
        totals = {signal: total(value) for signal, value in signals.items()}

        assert offered(Demand(totals, FirstToken(None, 0, 0), 2)) == expected

    @pytest.mark.parametrize("silent", [Signal.GENERATED_TOKENS, Signal.PROMPT_TOKENS])
    def test_of_which_a_part_is_missing_is_not_known(self, silent):
        totals = {Signal.GENERATED_TOKENS: total(1.0), Signal.PROMPT_TOKENS: total(1.0)}
        totals[silent] = total(1.0, covered=1)

        assert offered(Demand(totals, FirstToken(None, 0, 0), 2)).value is None

    def test_counts_while_a_new_replica_warms_up(self):
        totals = {Signal.GENERATED_TOKENS: total(7.0, covered=2, expected=2)._replace(serving=3)}

        assert offered(Demand(totals, FirstToken(None, 0, 0), 3)).value == 7


# --- Properties ----------------------------------------------------------------------------------

COURSES = st.lists(st.one_of(st.floats(0, 1e5), st.none(), st.just(0.0)), min_size=1, max_size=60)
"""A demand per ten seconds; None where it is not known."""


@settings(max_examples=20, deadline=None)
@given(COURSES, st.floats(60, 2000))
def test_it_only_adds_and_its_numbers_are_finite(levels, ready):
    world = World(lambda s: levels[int(s // 10) % len(levels)], ahead=Ahead(ready, 60.0, 30.0))
    for _ in range(300):
        found = world.tick()
        if found.face is not None:
            tokens = world.course(world.now - NOW)
            assert found.face.replicas > (tokens or 0) / CAPACITY
            assert found.face.complete
            assert not found.face.blind
            assert found.face.freshness is Freshness.FRESH
        status = found.outlook.status
        assert status is not None
        assert status.value is None or math.isfinite(status.value)


@settings(max_examples=10, deadline=None)
@given(COURSES)
def test_how_often_somebody_looks_does_not_matter(levels):
    def course(seconds: float) -> float | None:
        return levels[int(seconds // 10) % len(levels)]

    def after(every: float) -> Outlook:
        outlook = look(None, Measured("x", course(0)), SLOW, None, NOW)
        for n in range(1, round(1200 / every) + 1):
            value = course(n * every)
            outlook = look(outlook, Measured("x", value), SLOW, None, NOW + n * every)
        return outlook

    often, seldom = after(2.0), after(10.0)

    assert [round(v, 3) for v in often.levels] == pytest.approx(
        [round(v, 3) for v in seldom.levels], nan_ok=True
    )
    assert len(often.pending) == len(seldom.pending)


@settings(max_examples=10, deadline=None)
@given(COURSES, st.sampled_from([-86_400.0, -3600.0, -1.0, 3600.0, 1e9]))
def test_a_clock_that_steps_starts_anew(levels, step):
    world = World(lambda s: levels[int(abs(s) // 10) % len(levels)])
    world.run(600)

    found = world.tick(step)

    assert found.face is None
    assert found.outlook.levels == ()


def test_the_memory_is_bounded():
    world = World(lambda s: ramp(s % 1800), ahead=Ahead(1e9, 60.0, 30.0))
    for found in world.run(6 * 3600, every=30):
        outlook = found.outlook
        assert len(outlook.levels) <= MAX_LEVELS
        assert len(outlook.pending) <= MAX_AHEAD
        assert len(outlook.held) <= MAX_AHEAD


def test_an_outage_makes_no_forecast_and_ends_the_old_ones():
    world = World(lambda s: ramp(s) if s < 1800 else None)
    world.run(1800)
    assert world.tick().face is not None
    assert world.run(SLOW.seconds + 2 * SLOT_SECONDS)[-1].face is None


def test_another_unit_starts_anew():
    world = World(ramp)
    world.run(600)
    requests = Demand({Signal.REQUESTS: total(5.0)}, FirstToken(None, 0, 0), 2)

    found = forecast(world.outlook, requests, [], SLOW, None, why_no_history="", now=world.now + 5)

    assert (found.outlook.unit, found.outlook.levels) == ("requests/s", ())
