"""Who is decided first: those whose requests in flight grew most."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.core.readings import Fresh, Key, Missing, Stale
from stoker.core.urgency import by_growth, in_flight, urgent
from tests.factories import KEY, NOW, load, metrics, pod, readings, silent

A, B, C = (Key("models", name) for name in "abc")


class TestInFlight:
    def test_what_runs_and_what_waits_in_every_pod_counts(self):
        found = metrics({pod(0): load(3.0, waiting=2.0), pod(1): load(4.0)})

        assert in_flight(found, KEY, [pod(0).key, pod(1).key]) == 9.0

    def test_what_a_gateway_holds_counts_for_a_fleet_at_zero(self):
        found = replace(metrics({}), held={KEY: Fresh(7.0, NOW)})

        assert in_flight(found, KEY, []) == 7.0

    @pytest.mark.parametrize(
        ("answer", "requests"),
        [(silent(), 0.0), (readings(running=Stale(9.0, NOW - 90)), 9.0)],
        ids=["missing", "stale: better than nothing, for the order alone"],
    )
    def test_what_is_not_known_adds_nothing(self, answer, requests):
        assert in_flight(metrics({pod(0): answer}), KEY, [pod(0).key]) == requests

    def test_a_pod_that_nobody_asked_for_adds_nothing(self):
        assert in_flight(replace(metrics({}), held={KEY: Missing("away")}), KEY, [pod(0).key]) == 0.0


class TestOrder:
    def test_who_grew_most_comes_first_and_who_shrank_last(self):
        assert by_growth({A: 100.0, B: 100.0, C: 100.0}, {A: 90.0, B: 101.0, C: 200.0}) == [C, B, A]

    def test_growth_is_relative(self):
        assert by_growth({A: 10_000.0, B: 10.0}, {A: 10_100.0, B: 60.0}) == [B, A]

    def test_one_request_more_is_less_than_a_real_rise(self):
        assert by_growth({A: 0.0, B: 100.0}, {A: 1.0, B: 150.0}) == [B, A]

    def test_a_fleet_that_was_not_there_had_none(self):
        assert by_growth({A: 30.0}, {A: 30.0, B: 30.0}) == [B, A]

    def test_nobody_is_lost_and_those_alike_keep_their_order(self):
        assert by_growth({A: 5.0, B: 5.0, C: 1.0}, {B: 5.0, A: 5.0}) == [B, A]


class TestUrgent:
    def test_is_whose_demand_grew_much_in_their_order(self):
        assert urgent({A: 100.0, B: 100.0, C: 100.0}, {A: 130.0, B: 119.0, C: 200.0}) == [C, A]

    def test_a_steady_fleet_is_not_however_small(self):
        assert urgent({A: 1.0, B: 50.0}, {A: 2.0, B: 45.0}) == []
