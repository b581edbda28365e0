"""Health: only what a restart cures fails liveness."""

import asyncio

import pytest

from stoker.telemetry.health import HealthState, beat, failing


def live(state, now):
    return failing(state.live(now))


def test_a_fresh_start_is_alive_and_not_ready():
    state = HealthState()
    assert live(state, 1e9) == ()
    assert failing(state.ready(0.0)) == ("synced",)


def test_ready_once_synced():
    state = HealthState()
    state.synced()
    assert failing(state.ready(0.0)) == ()


def test_a_tick_that_fails_is_told_with_its_error():
    state = HealthState()
    state.synced()
    state.tick_finished(ok=False, error="KeyError: 'x'")
    assert failing(state.ready(0.0)) == ("decide",)
    assert "KeyError" in state.ready(0.0)[1].detail
    state.tick_finished(ok=True)
    assert failing(state.ready(0.0)) == ()


@pytest.mark.parametrize(("now", "broken"), [(280.0, ()), (281.0, ("watch",))])
def test_the_most_silent_watch_counts(now, broken):
    state = HealthState()
    state.watch_seen("Pod", 100.0)
    state.watch_seen("Service", 270.0)
    assert live(state, now) == broken
    assert "Pod was last active" in state.live(now)[1].detail
    state.watch_seen("Pod", now)
    assert live(state, now) == ()


@pytest.mark.parametrize(("now", "broken"), [(170.0, ()), (171.0, ("queue",))])
def test_a_key_that_nobody_takes(now, broken):
    state = HealthState()
    state.queue(3, oldest_seconds=50.0, at=100.0)
    assert live(state, now) == broken
    state.queue(0, oldest_seconds=0.0, at=now)
    assert live(state, 1e9) == ()


@pytest.mark.parametrize(("now", "broken"), [(220.0, ()), (221.0, ("gather",))])
def test_a_scaling_loop_that_stands_still(now, broken):
    state = HealthState()
    state.gathered(100.0)
    assert live(state, now) == broken


@pytest.mark.parametrize(
    ("lag", "now", "broken"),
    [(9.9, 100.5, ()), (10.1, 100.5, ("event-loop",)), (0.0, 111.0, ("event-loop",)), (0.0, 110.0, ())],
)
def test_a_late_event_loop(lag, now, broken):
    state = HealthState()
    state.heartbeat(lag, at=100.0)
    assert live(state, now) == broken


def test_a_failing_check_says_how_far_it_is_off():
    state = HealthState()
    state.queue(1, oldest_seconds=0.0, at=0.0)
    assert state.live(300.0)[2].detail == "the oldest key waits for 300 s, more than 120 s"


async def test_the_heartbeat_measures_how_late_the_loop_is(monkeypatch):
    now, noted = 100.0, []

    async def sleep(seconds):
        nonlocal now
        now += seconds + 0.25
        if len(noted) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("stoker.telemetry.health.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await beat(lambda lag, at: noted.append((lag, at)), clock=lambda: now)
    assert noted == [(0.25, 100.75), (0.25, 101.5)]
