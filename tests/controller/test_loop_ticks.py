"""A fleet is decided in parts, so that the loop has time for others."""

from types import SimpleNamespace

import pytest

from stoker.controller.loop import MOST_PER_TICK, Controller
from stoker.controller.store import Store
from stoker.core.readings import Key, Metrics


@pytest.fixture
def forgotten():
    return []


@pytest.fixture
def controller(forgotten):
    observer = SimpleNamespace(
        tick=lambda phase, seconds: None,
        queue=lambda length, oldest: None,
        forgotten=forgotten.append,
    )
    gatherer = SimpleNamespace(metrics=lambda: Metrics(at=0.0), loads={})
    return Controller(Store(lambda: 0.0), None, gatherer, None, observer)


async def test_a_tick_takes_its_part_and_says_how_much(controller, forgotten):
    keys = [Key("ml", f"model-{number}") for number in range(2 * MOST_PER_TICK + 1)]
    for key in keys:
        controller.touch(key)

    assert [controller.tick() for _ in range(4)] == [MOST_PER_TICK, MOST_PER_TICK, 1, 0]
    assert forgotten == keys


async def test_a_part_in_which_deciding_fails_counts_too(controller, monkeypatch):
    failures = []
    controller._observer.tick_failed = failures.append
    monkeypatch.setattr("stoker.controller.loop.reconcile", lambda *_: 1 / 0)
    controller.touch(Key("ml", "model"))

    assert controller.tick() == 1
    assert failures == ["ZeroDivisionError: division by zero"]


async def test_whose_demand_grew_does_not_wait_for_what_is_left_of_the_round_before(controller, forgotten):
    keys = [Key("ml", f"model-{number}") for number in range(2 * MOST_PER_TICK)]
    for key in keys:
        controller.touch(key)
    controller.tick()

    async def measure():
        return [keys[-1], *keys[:-1]]

    controller._gatherer.measure, controller._gatherer.urgent = measure, [keys[-1]]
    await controller._measure()
    controller.tick()

    assert forgotten[MOST_PER_TICK] == keys[-1]
