"""The loop and the history: read beside everything else, shown to decisions, and no failure ends it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from stoker.controller import loop
from stoker.controller.loop import Controller
from stoker.controller.store import Store
from tests.controller.loop_lab import Executor, Gatherer, Observer
from tests.factories import KEY, NOW, manifest


class Historian:
    """Notes each round; fails if it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.histories, self.why = {KEY: "a history"}, "why not"
        self.rounds, self.error = 0, error

    async def refresh(self) -> float:
        self.rounds += 1
        if self.error is not None:
            raise self.error
        return 3600.0


def controller(historian: Historian | None) -> Controller:
    store = Store(lambda: NOW)
    store.put("ModelDeployment", manifest())
    return Controller(
        store, Gatherer(), Gatherer(), Executor(), Observer(), clock=lambda: NOW, historian=historian
    )


async def test_decisions_are_shown_what_is_known_of_the_days_before(monkeypatch):
    shown = []
    monkeypatch.setattr(loop, "reconcile", lambda snapshot, _: shown.append(snapshot) or {})
    for historian in (Historian(), None):
        made = controller(historian)
        made.touch(KEY)
        made.tick()

    assert [(s.history, s.why_no_history) for s in shown] == [
        ({KEY: "a history"}, "why not"),
        ({}, "nobody reads it"),
    ]


@pytest.mark.parametrize("error", [None, OSError("boom")])
async def test_it_is_read_at_once_and_a_failure_ends_nothing(monkeypatch, error):
    logged = []
    monkeypatch.setattr(loop, "log", SimpleNamespace(exception=logged.append))
    historian = Historian(error)
    reading = asyncio.create_task(controller(historian)._remember_days())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert historian.rounds == 1
    assert not reading.done()
    assert bool(logged) == (error is not None)
    reading.cancel()
