"""What the loop works with, as recorders: each notes what it is asked and fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stoker.controller.executor import Outcome, Result
from stoker.core.plan import Plan
from stoker.core.readings import Key, Metrics
from tests.factories import NOW


class Executor:
    """Notes the plans; ends each as told by key, and not before the gate opens."""

    def __init__(self) -> None:
        self.results: dict[Key, Result | Exception] = {}
        self.plans: list[Plan] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.most = self.finished = 0

    async def execute(self, plan):
        self.plans.append(plan)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        self.finished += 1
        result = self.results.get(plan.key, Result(Outcome.DONE))
        if isinstance(result, Exception):
            raise result
        return result


class Gatherer:
    """Nothing is known; each round can be made to fail, and says that it was."""

    def __init__(self) -> None:
        self.loads: dict = {}
        self.rounds: list[str] = []
        self.error: Exception | None = None
        self.touches: list[Key] = []
        self.urgent: list[Key] = []

    def metrics(self) -> Metrics:
        return Metrics(at=NOW)

    async def _round(self, name: str) -> list[Key]:
        self.rounds.append(name)
        if self.error is not None:
            raise self.error
        return self.touches

    async def measure(self) -> list[Key]:
        return await self._round("measure")

    async def poll_draining(self) -> list[Key]:
        return await self._round("drain")

    async def sweep(self) -> set[Key]:
        return set(await self._round("sweep"))


class Observer:
    """Notes (what, …) of everything that it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.told.append((name, *arguments))

    def of(self, name: str) -> list[tuple]:
        return [tuple(rest) for what, *rest in self.told if what == name]
