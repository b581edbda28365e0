"""What the loop tells becomes metrics and health, each thing once."""

from types import SimpleNamespace

import pytest

from stoker.api.status import Decision, ModelDeploymentStatus, ScalingStatus
from stoker.core.plan import CreatePod, DeletePod, Plan
from stoker.core.readings import Key
from stoker.telemetry.health import HealthState, failing
from stoker.telemetry.metrics import Metrics
from stoker.telemetry.observer import Observer

KEY = Key("ml", "llama")
START = 1_700_000_000.0
DONE = SimpleNamespace(outcome="done")


@pytest.fixture
def observer():
    made = Observer(Metrics(), HealthState(), monotonic=lambda: 50.0, clock=lambda: START)
    made.count = lambda name, **labels: made._metrics.registry.get_sample_value(name, labels)
    return made


def decided(at, reason="TokenRate"):
    decision = Decision.model_validate(
        {"time": at, "from": 1, "to": 2, "limitedBy": "x", "reason": reason}, by_alias=True
    )
    return Plan(
        KEY, "u", status=ModelDeploymentStatus(scaling=ScalingStatus(mode="Active", last_decision=decision))
    )


def test_a_plan_counts_when_it_ends(observer):
    plan = Plan(KEY, "u", actions=(CreatePod({}, "x"), DeletePod(KEY, "u", "x"), DeletePod(KEY, "v", "x")))
    observer.planned(plan, None)
    assert observer.count("stoker_reconciles_total", result="unchanged") is None
    observer.planned(plan, DONE)
    assert observer.count("stoker_reconciles_total", result="done") == 1
    assert observer.count("stoker_actions_total", action="create_pod") == 1
    assert observer.count("stoker_actions_total", action="delete_pod") == 2


def test_a_plan_that_fails_carried_nothing_out_for_sure(observer):
    observer.planned(Plan(KEY, "u", actions=(CreatePod({}, "x"),)), SimpleNamespace(outcome="failed"))
    assert observer.count("stoker_reconciles_total", result="failed") == 1
    assert observer.count("stoker_actions_total", action="create_pod") is None


def test_a_plan_that_asks_for_nothing_is_unchanged(observer):
    observer.planned(Plan(KEY, "u"), None)
    assert observer.count("stoker_reconciles_total", result="unchanged") == 1


def test_a_decision_counts_once_however_often_status_repeats_it(observer):
    for at in ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z", "2023-11-14T22:13:50Z"):
        observer.planned(decided(at), DONE)
    assert observer.count("stoker_scaling_decisions_total", reason="TokenRate") == 2


def test_a_decision_from_before_the_start_does_not_count(observer):
    observer.planned(decided("2023-11-14T22:10:00Z"), DONE)
    assert observer.count("stoker_scaling_decisions_total", reason="TokenRate") is None


def test_what_is_gone_is_forgotten(observer):
    observer.planned(decided("2023-11-14T22:13:20Z"), DONE)
    observer.forgotten(KEY)
    assert observer._counted == {}
    observer.forgotten(KEY)


def test_ticks_feed_metrics_and_health(observer):
    observer.synced()
    observer.tick_failed("KeyError: 'x'")
    assert failing(observer._health.ready(50.0)) == ("decide",)
    assert observer.count("stoker_reconciles_total", result="error") == 1
    observer.tick("decide", 0.1)
    assert failing(observer._health.ready(50.0)) == ()
    assert observer.count("stoker_last_tick_timestamp_seconds") == START
    observer.tick("gather", 0.1)
    assert failing(observer._health.live(50.0 + 121)) == ("gather",)


def test_the_queue_feeds_metrics_and_health(observer):
    observer.queue(2, 10.0)
    assert observer.count("stoker_queue_depth") == 2
    assert failing(observer._health.live(50.0 + 111)) == ("queue",)
