"""The loop: one act per key at a time, what each outcome leads to, and that its caller alone ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from stoker.api.conditions import Reason
from stoker.clients.errors import Transient
from stoker.controller import loop
from stoker.controller.executor import Outcome, Result
from stoker.controller.loop import AGAIN_SECONDS, PUBLISHING_SHARE, Controller, Intervals
from stoker.controller.queue import FIRST_BACKOFF_SECONDS, JITTER, Queue
from stoker.controller.store import Store
from stoker.core.observed import Memory, Obstacle, Snapshot
from stoker.core.plan import Apply, DeletePod, Event, Plan
from stoker.core.readings import Key
from tests.controller.loop_lab import Executor, Gatherer, Observer
from tests.factories import KEY, NAMESPACE, NOW, manifest

OTHER = Key(NAMESPACE, "qwen")
BACKED_OFF = FIRST_BACKOFF_SECONDS * (1 + JITTER)
REFUSAL = Obstacle(Reason.QUOTA_EXCEEDED, "exceeded quota", 1, NOW + 60)


def plan(key: Key = KEY, *actions, **fields) -> Plan:
    """A plan with something to carry out: an Event, unless it has actions."""
    events = () if actions else (Event("Normal", "Said", ""),)
    return Plan(key, f"uid-{key.name}", actions, events=events, **fields)


def removal(key: Key = KEY) -> Plan:
    return plan(key, DeletePod(Key(NAMESPACE, "p"), "uid-p", "drained"))


@pytest.fixture
def world(monkeypatch):
    """A controller over two ModelDeployments; `plans` is what deciding yields, `seen` what it was shown."""
    found = SimpleNamespace(now=NOW, seen=[], obstacles=[], plans={}, error=None)
    found.store = Store(lambda: found.now)
    for key in (KEY, OTHER):
        found.store.put("ModelDeployment", manifest(key.name))

    def decide(snapshot: Snapshot, keys) -> dict[Key, Plan]:
        found.seen.append((replace(snapshot, memory=dict(snapshot.memory)), list(keys)))
        found.obstacles.append(dict(snapshot.obstacles))
        if found.error is not None:
            raise found.error
        there = [k for k in keys if k in snapshot.deployments]
        return {k: found.plans.get(k, Plan(k, f"uid-{k.name}")) for k in there}

    monkeypatch.setattr(loop, "reconcile", decide)
    monkeypatch.setattr(loop, "DEBOUNCE_SECONDS", 0.0)
    found.logged = []  # a traceback in colour takes a third of a second
    note = lambda text, **_: found.logged.append(text)  # noqa: E731
    monkeypatch.setattr(loop, "log", SimpleNamespace(exception=note, error=note))
    found.parts = (found.store, Gatherer(), Gatherer(), Executor(), Observer())
    _, found.sweeper, found.gatherer, found.executor, found.observer = found.parts
    found.make = lambda **options: controller(found, **options)
    found.loop = found.make()
    return found


def controller(world, **options) -> Controller:
    """Its clocks stand still unless the test moves them."""
    made = Controller(*world.parts, clock=lambda: world.now, **options)
    made._queue = Queue(lambda: world.now)
    return made


async def settle(world) -> None:
    """Let what was started end."""
    while world.loop._acting:
        await asyncio.wait(world.loop._acting)
        await asyncio.sleep(0)


async def tick(world, *touched: Key) -> list[Key]:
    """One tick and what it starts; the keys that were decided."""
    for key in touched:
        world.loop.touch(key)
    before = len(world.seen)
    world.loop.tick()
    await settle(world)
    return [k for _, keys in world.seen[before:] for k in keys]


class TestOneTick:
    async def test_a_burst_of_events_is_one_decision(self, world):
        assert await tick(world, KEY, KEY, OTHER, KEY) == [KEY, OTHER]

    async def test_nothing_to_do_is_noted_and_not_executed(self, world):
        await tick(world, KEY)

        assert world.executor.plans == []
        assert [(p.key, r) for p, r in world.observer.of("planned")] == [(KEY, None)]

    async def test_what_is_to_do_is_executed_and_told(self, world):
        world.plans[KEY] = plan()
        await tick(world, KEY, OTHER)

        assert world.executor.plans == [plan()]
        assert world.observer.of("planned")[-1] == (plan(), Result(Outcome.DONE))

    async def test_what_was_decided_is_remembered_for_the_next_tick(self, world):
        remembered = Memory(made_room_at=NOW)
        world.plans[KEY] = plan(memory=remembered)
        await tick(world, KEY)
        await tick(world, KEY)

        assert [s.memory for s, _ in world.seen] == [{}, {KEY: remembered}]

    async def test_of_very_many_some_go_first_and_none_is_lost(self, world, monkeypatch):
        monkeypatch.setattr(loop, "MOST_PER_TICK", 1)

        assert await tick(world, KEY, OTHER) == [KEY]
        assert await tick(world) == [OTHER]

    async def test_deciding_that_fails_is_told_and_comes_back_later(self, world):
        world.error = ValueError("boom")
        await tick(world, KEY)

        assert world.observer.of("tick_failed") == [("ValueError: boom",)]
        assert await tick(world) == []
        world.error, world.now = None, NOW + BACKED_OFF
        assert await tick(world) == [KEY]

    @pytest.mark.parametrize("made", [plan(), Plan(KEY, "uid-llama")], ids=["with a status", "told before"])
    async def test_a_bug_in_one_keys_decision_is_logged_and_comes_back_later(self, world, made):
        world.plans[KEY] = replace(made, error=ValueError("boom"))
        await tick(world, KEY)

        assert world.logged == ["deciding failed"]
        assert await tick(world) == []
        world.now += BACKED_OFF
        assert await tick(world) == [KEY]

    async def test_a_deployment_that_is_gone_is_forgotten(self, world):
        world.plans[KEY] = plan(memory=Memory(made_room_at=NOW), requeue_at=NOW + 5)
        world.executor.results[KEY] = Result(Outcome.REFUSED, REFUSAL)
        await tick(world, KEY)
        world.store.remove("uid-llama")
        await tick(world, KEY)

        assert world.observer.of("forgotten") == [(KEY,)]
        world.now += 60
        assert await tick(world, OTHER) == [OTHER]
        assert (KEY in world.seen[-1][0].memory, world.obstacles[-1]) == (False, {})

    async def test_how_much_work_waits_is_told(self, world):
        world.executor.gate.clear()
        world.plans[KEY] = plan()
        world.loop.touch(KEY)
        world.loop.tick()
        world.loop.touch(KEY)
        world.loop.tick()
        world.executor.gate.set()
        await settle(world)

        assert [length for length, _ in world.observer.of("queue")] == [0, 1]


class TestActing:
    async def test_never_two_acts_for_one_key(self, world):
        world.executor.gate.clear()
        world.plans = {KEY: plan(), OTHER: plan(OTHER)}
        for _ in range(3):
            world.loop.touch(KEY)
            world.loop.touch(OTHER)
            world.loop.tick()
            await asyncio.sleep(0)

        assert [p.key for p in world.executor.plans] == [KEY, OTHER]
        world.executor.gate.set()
        await settle(world)
        assert await tick(world) == [KEY, OTHER]

    @pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 2), (16, 2)])
    async def test_no_more_acts_at_once_than_workers(self, world, workers, most):
        world.loop = world.make(workers=workers)
        world.plans = {KEY: removal(), OTHER: removal(OTHER)}
        world.executor.gate.clear()
        asyncio.get_running_loop().call_later(0.01, world.executor.gate.set)
        await tick(world, KEY, OTHER)

        assert (world.executor.most, world.executor.finished) == (most, 2)

    async def test_plans_that_only_publish_do_not_stand_before_one_that_acts(self, world):
        third = Key(NAMESPACE, "phi")
        world.store.put("ModelDeployment", manifest(third.name))
        world.loop = world.make(workers=PUBLISHING_SHARE)
        world.plans = {KEY: plan(), OTHER: plan(OTHER), third: removal(third)}
        world.executor.gate.clear()
        for key in world.plans:
            world.loop.touch(key)
        world.loop.tick()
        await asyncio.sleep(0)

        assert [p.key for p in world.executor.plans] == [KEY, third]
        world.executor.gate.set()
        await settle(world)
        assert [p.key for p in world.executor.plans] == [KEY, third, OTHER], (
            "what found no room waits for some"
        )
        assert await tick(world) == [third], "what acted is looked at again"

    async def test_a_key_that_waits_to_be_published_can_act_meanwhile(self, world):
        world.loop = world.make(workers=PUBLISHING_SHARE)
        world.plans = {KEY: plan(), OTHER: plan(OTHER)}
        world.executor.gate.clear()
        for made in (plan(OTHER), removal(OTHER)):
            world.plans[OTHER] = made
            world.loop.touch(KEY)
            world.loop.touch(OTHER)
            world.loop.tick()
            await asyncio.sleep(0)

        assert world.executor.plans == [plan(), removal(OTHER)]
        world.executor.gate.set()
        await settle(world)

    async def test_of_what_waits_to_be_published_the_latest_decision_counts(self, world):
        world.loop = world.make(workers=PUBLISHING_SHARE)
        world.plans = {KEY: plan(), OTHER: plan(OTHER)}
        world.executor.gate.clear()
        late = plan(OTHER, memory=Memory(made_room_at=NOW))
        for made in (plan(OTHER), late):
            world.plans[OTHER] = made
            world.loop.touch(KEY)
            world.loop.touch(OTHER)
            world.loop.tick()
            await asyncio.sleep(0)
        world.executor.gate.set()
        await settle(world)

        assert world.executor.plans == [plan(), late]

    async def test_what_has_nothing_to_say_any_more_is_not_published(self, world):
        third = Key(NAMESPACE, "phi")
        world.store.put("ModelDeployment", manifest(third.name))
        world.loop = world.make(workers=PUBLISHING_SHARE)
        world.plans = {KEY: plan(), OTHER: plan(OTHER), third: plan(third)}
        world.executor.gate.clear()
        for key in (KEY, OTHER, third):
            world.loop.touch(key)
        world.loop.tick()
        await asyncio.sleep(0)
        del world.plans[OTHER]
        world.loop.touch(OTHER)
        world.loop.tick()
        world.executor.gate.set()
        await settle(world)

        assert [p.key for p in world.executor.plans] == [KEY, third]

    async def test_what_waits_and_is_about_to_be_decided_is_left_to_that_decision(self, world):
        world.loop = world.make(workers=PUBLISHING_SHARE)
        world.plans = {KEY: plan(), OTHER: plan(OTHER)}
        world.executor.gate.clear()
        world.loop.touch(KEY)
        world.loop.touch(OTHER)
        world.loop.tick()
        await asyncio.sleep(0)
        world.loop.touch(OTHER)
        world.executor.gate.set()
        await settle(world)

        assert [p.key for p in world.executor.plans] == [KEY]
        assert await tick(world) == [OTHER]
        assert [p.key for p in world.executor.plans] == [KEY, OTHER]

    @pytest.mark.parametrize(
        ("made", "outcome", "waits", "comes"),
        [
            (plan(), Outcome.DONE, 3600, None),
            (removal(), Outcome.DONE, None, 0),
            (plan(), Outcome.REFUSED, None, 0),
            (removal(), Outcome.AGAIN, AGAIN_SECONDS / 2, AGAIN_SECONDS),
            (plan(), Outcome.AGAIN, AGAIN_SECONDS / 2, AGAIN_SECONDS),
            (plan(), Outcome.FAILED, FIRST_BACKOFF_SECONDS / 2, BACKED_OFF),
            (removal(), Outcome.FAILED, FIRST_BACKOFF_SECONDS / 2, BACKED_OFF),
        ],
        ids=[
            "nothing was done to the cluster: no need to look again",
            "something was done: what is next?",
            "refused: status tells of it at once",
            "the view was out of date: soon",
            "the status was out of date: soon",
            "failed: with back-off",
            "failed although there was something to do: with back-off all the same",
        ],
    )
    async def test_when_a_key_is_looked_at_again(self, world, made, outcome, waits, comes):
        world.plans[KEY] = made
        world.executor.results[KEY] = Result(outcome)
        await tick(world, KEY)

        for pause, looked_at in ((waits, []), (comes, [KEY])):
            if pause is not None:
                world.now = NOW + pause
                assert await tick(world) == looked_at

    async def test_a_bug_in_acting_backs_off_and_harms_nobody_else(self, world):
        world.plans = {KEY: plan(), OTHER: plan(OTHER)}
        world.executor.results[KEY] = RuntimeError("boom")
        await tick(world, KEY, OTHER)

        assert [p.key for p, result in world.observer.of("planned") if result] == [OTHER]
        assert await tick(world) == []
        world.now += BACKED_OFF
        assert await tick(world) == [KEY]

    async def test_a_deadline_of_the_plan_brings_the_key_back(self, world):
        world.plans[KEY] = Plan(KEY, "uid-llama", requeue_at=NOW + 30)
        await tick(world, KEY)
        world.now = NOW + 29
        assert await tick(world) == []
        world.now = NOW + 30

        assert await tick(world) == [KEY]

    @pytest.mark.parametrize(
        ("then", "stays"),
        [(plan(KEY, Apply({"kind": "Service"})), False), (removal(), True), (plan(), True)],
        ids=["a write of its kind went through", "only a deletion went through", "nothing was tried"],
    )
    async def test_a_refusal_is_shown_until_a_write_goes_through(self, world, then, stays):
        world.plans[KEY] = plan()
        world.executor.results[KEY] = Result(Outcome.REFUSED, REFUSAL)
        await tick(world, KEY)
        world.executor.results.clear()
        world.plans[KEY] = then
        await tick(world, KEY)
        await tick(world, KEY)

        assert [KEY in obstacles for obstacles in world.obstacles] == [False, True, stays]


async def until(done: Callable[[], object]) -> None:
    """Turn the loop over until this holds; the test's time limit is the only one."""
    while not done():  # noqa: ASYNC110 - what is waited for is a fake's plain list
        await asyncio.sleep(0.001)


@pytest.fixture
async def running(world):
    """The loop at work, with short intervals and a clock that moves; it has decided once."""
    world.loop = Controller(*world.parts, intervals=Intervals(scaling=0.002, resync=0.002))
    world.listed = asyncio.Event()
    world.task = asyncio.create_task(world.loop.run(world.listed.wait))
    yield world
    world.executor.gate.set()
    while not world.task.done():  # that one call suffices is for the queue's tests to say
        world.task.cancel()
        await asyncio.wait([world.task], timeout=0.1)


class TestRunning:
    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch):
        monkeypatch.setattr(loop, "DRAIN_POLL_SECONDS", 0.002)

    async def test_half_a_view_decides_nothing(self, running):
        running.loop.touch(KEY)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (running.seen, running.observer.told) == ([], [])

        running.listed.set()
        await until(lambda: running.seen)
        assert ("synced",) in running.observer.told

    async def test_the_first_decision_knows_what_prometheus_says(self, running):
        running.loop.touch(KEY)
        running.listed.set()
        await until(lambda: running.seen)

        kinds = [what for what, *_ in running.observer.told]
        assert kinds.index("tick") < kinds.index("synced")
        assert running.observer.of("tick")[0][0] == "gather"

    async def test_a_prometheus_that_hangs_holds_up_the_start_only_so_long(self, running, monkeypatch):
        monkeypatch.setattr(loop, "FIRST_MEASUREMENT_SECONDS", 0.01)
        monkeypatch.setattr(running.gatherer, "measure", asyncio.Event().wait)
        running.loop.touch(KEY)
        running.listed.set()

        await until(lambda: running.seen)

    @pytest.mark.parametrize("source", ["gatherer", "sweeper"])
    async def test_an_error_of_a_timer_does_not_end_the_loop(self, running, source):
        part = getattr(running, source)
        part.error = Transient("away")
        running.listed.set()
        await until(lambda: len(part.rounds) > 3)
        part.error = None
        before = len(running.seen)
        running.loop.touch(OTHER)

        await until(lambda: len(running.seen) > before)
        assert set(running.logged) == {"a timer's work failed"}

    @pytest.mark.parametrize("round_", ["measure", "drain"])
    async def test_whom_the_answers_concern_is_looked_at(self, running, monkeypatch, round_):
        monkeypatch.setattr(running.sweeper, "error", Transient("away"))
        running.gatherer.touches = [OTHER]
        other = "poll_draining" if round_ == "measure" else "measure"
        monkeypatch.setattr(running.gatherer, other, lambda: asyncio.sleep(0, []))
        running.listed.set()

        await until(lambda: running.seen)
        assert {k for _, keys in running.seen for k in keys} == {OTHER}

    async def test_a_resync_looks_at_every_deployment(self, running):
        running.listed.set()
        await until(lambda: {k for _, keys in running.seen for k in keys} == {KEY, OTHER})
        assert running.sweeper.rounds

    async def test_a_tick_that_raises_does_not_end_the_loop(self, running):
        running.error = ValueError("boom")
        running.listed.set()
        await until(lambda: running.observer.of("tick_failed"))
        running.error = None
        running.loop.touch(OTHER)

        await until(lambda: running.observer.of("planned"))

    async def test_its_end_finishes_the_writes_under_way_and_starts_none(self, running):
        running.plans[KEY] = plan()
        running.executor.gate.clear()
        running.listed.set()
        await until(lambda: running.executor.plans)
        running.task.cancel()
        await asyncio.sleep(0.01)
        assert not running.task.done()
        running.executor.gate.set()
        await asyncio.wait([running.task])

        assert running.task.cancelled()
        assert (running.executor.finished, len(running.executor.plans)) == (1, 1)
