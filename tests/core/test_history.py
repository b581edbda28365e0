"""Two weeks of demand: the query, and the shape of the days before."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.v1alpha1 import Season
from stoker.core.engines import engine_for
from stoker.core.history import KEPT_STEPS, STEP_SECONDS, History, history_of, query, whose
from stoker.core.readings import Key, MetricNames, Series, Signal
from tests.factories import NOW, deployment, vllm

DAY = 144
LAST = int(NOW // STEP_SECONDS)


def shape(step: int) -> float:
    """A day with a valley at midnight UTC and a peak at noon."""
    return 1000.0 - 800.0 * math.cos(2 * math.pi * step / DAY)


def days(count: float, value=shape, last: int = LAST) -> History:
    first = last - round(count * DAY) + 1
    found = history_of(first, [value(first + n) for n in range(last - first + 1)])
    assert found is not None
    return found


def middle(step: int) -> float:
    return (step - 0.5) * STEP_SECONDS


class TestShape:
    def test_a_step_is_known_at_its_middle_and_lines_join_them(self):
        history = History(LAST - 1, [10.0, 20.0], 15.0)

        assert history.at(middle(LAST - 1)) == 10
        assert history.at((LAST - 1) * STEP_SECONDS) == 15

    @pytest.mark.parametrize("when", [NOW - 1e9, NOW + 1e9])
    def test_beyond_its_ends_nothing_is_known(self, when):
        assert math.isnan(days(2).at(when))

    @pytest.mark.parametrize("hour", range(0, 24, 3))
    def test_growth_is_that_of_the_days_before(self, hour):
        step = LAST - LAST % DAY + hour * 6
        now = middle(step)
        history = days(3, last=step - 1)

        found = history.growth(Season.DAILY, now, 3600.0)

        assert found == pytest.approx(shape(step + 6) / shape(step) - 1, abs=1e-3)

    def test_one_strange_day_of_five_does_not_count(self):
        strange = days(5, lambda n: 1e6 if DAY < LAST - n < 2 * DAY else shape(n))
        plain = days(5)
        now = NOW + 6 * 3600

        for ahead in (600.0, 3600.0):
            expected = plain.growth(Season.DAILY, now, ahead)
            assert strange.growth(Season.DAILY, now, ahead) == pytest.approx(expected, abs=0.05)

    def test_a_week_ago_is_another_thing_than_yesterday(self):
        def weekly(step: int) -> float:
            return shape(step) if (step // DAY) % 7 == (LAST // DAY + 1) % 7 else 500.0

        history = days(9, weekly)
        now = middle(LAST - LAST % DAY + DAY + 36)

        assert history.growth(Season.WEEKLY, now, 3600.0) > 0.2
        assert history.growth(Season.DAILY, now, 3600.0) == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize("count", [0.1, 0.9])
    def test_less_than_a_day_knows_no_day(self, count):
        assert days(count).growth(Season.DAILY, NOW, 600.0) is None

    def test_a_level_near_zero_does_not_make_growth_endless(self):
        history = days(3, lambda n: 0.0 if n % DAY < 72 else 100.0)
        morning = middle(LAST - LAST % DAY + DAY + 71)

        assert history.growth(Season.DAILY, morning, 3600.0) == pytest.approx(100 / (0.05 * 100))

    @given(st.lists(st.sampled_from([math.nan, math.inf, -1.0, 0.0, 5.0]), min_size=1, max_size=400))
    def test_nonsense_is_a_gap(self, values):
        history = history_of(LAST - len(values), values)

        if history is not None:
            growth = history.growth(Season.DAILY, NOW, 600.0)
            assert growth is None or math.isfinite(growth)
            assert all(v in (0.0, 5.0) for v in history.values if not math.isnan(v))
        else:
            assert 5.0 not in values


class TestTrackRecord:
    def test_days_that_repeat_are_believed_from_the_start(self):
        assert days(4).record[Season.DAILY].believed() > 0.7

    def test_days_that_have_nothing_in_common_are_not(self):
        noise = days(4, lambda n: 1000.0 + 500.0 * math.sin(n * n))

        assert noise.record[Season.DAILY].believed() < 0.2

    def test_of_one_day_is_none(self):
        assert days(1).record[Season.DAILY].believed() == 0

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_clocks_that_change_lower_the_weight_and_not_more(self, hours):
        """The last day lies an hour off the days before, as after a change of daylight saving."""
        shifted = days(4, lambda n: shape(n + hours * 6 if LAST - n < DAY else n))

        assert 0 < shifted.record[Season.DAILY].believed() <= days(4).record[Season.DAILY].believed()


class TestQuery:
    def test_weighs_the_tokens_of_every_model_that_speaks_vllm(self):
        found = query([vllm(), vllm()])

        assert found.count("vllm:generation_tokens_total") == 2
        assert "+ 0.3 * " in found
        assert "sum by (namespace, model)" in found

    def test_takes_what_an_engine_has(self):
        running = Series("my:running")

        only_running = query([MetricNames("/m", {Signal.RUNNING: (running,)}, None, 60.0)])
        requests = {Signal.RUNNING: (running,), Signal.REQUESTS: (Series("my:done"),)}

        assert "avg_over_time(my:running[10m])" in only_running
        assert "rate(my:done[10m])" in query([MetricNames("/m", requests, None, 60.0)])

    def test_is_one_for_all_engines_and_none_without_any(self):
        spec = deployment(
            engine={"type": "Custom", "image": "a/b", "metrics": {"running": "my:running"}}
        ).spec
        assert spec is not None

        assert " or " in query([vllm(), engine_for(spec).metrics])
        assert query([]) == ""

    @pytest.mark.parametrize(
        ("pod", "model"),
        [
            ("llama-0a1b2c3d-0", "llama"),
            ("llama-3-8b-0a1b2c3d-12", "llama-3-8b"),
            ("a-0a1b2c3d-1-deadbeef-3", "a-0a1b2c3d-1"),
            ("llama-7d9f8b6c5-x2x4z", None),
        ],
    )
    def test_a_pod_of_the_past_is_known_by_its_name(self, pod, model):
        pattern = re.search(r'"pod", "([^"]+)"', query([vllm()]))
        assert pattern is not None
        found = re.fullmatch(pattern[1], pod)  # Prometheus anchors the pattern, too

        assert (found[1] if found else None) == model

    def test_an_answer_tells_whose_it_is(self):
        assert whose({"namespace": "models", "model": "llama"}) == Key("models", "llama")
        assert whose({"namespace": "models"}) is None


def test_two_weeks_of_a_thousand_models_are_a_few_megabytes():
    history = days(14)

    assert len(history.values) == KEPT_STEPS
    assert memoryview(history.values).nbytes * 1000 < 10e6
