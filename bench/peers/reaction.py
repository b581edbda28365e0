"""From a demand that is visible in Prometheus to the pods that answer it.

A step lets so many requests in flight begin at once at a fleet without traffic. Both sides take it at the
same moment, each sample with fleets of its own: an HPA's window would keep the replicas of an earlier one for
five minutes. The samples of a step are spread evenly over the phases of everybody's clocks, at random within
their share, for most of a reaction is the wait for the next look.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.controller.results import Figures, spread
from bench.controller.usage import load_average
from bench.peers import fleets
from bench.peers.arena import Arena, open_arena
from bench.peers.fleets import BOTH, KEDA, STOKER, Fleet, Side
from bench.peers.session import Session, session
from testbed.access import PlaneError
from testbed.engine_pods import EngineOptions

TARGET = 10
"""Requests in flight per replica."""
TOLERANCE = 0.1
"""Of the HPA: what is visible is judged beyond it, so that both sides have to act."""
SCRAPE_INTERVAL = "1s"
"""So that a step becomes visible as a whole; from then on the clock runs."""
POLL_SECONDS = 0.03
PATIENCE_SECONDS = 100.0
PHASE_SECONDS = 15.0
"""The longest of the periods that samples are spread over, and a multiple of the others: the HPA's sync."""
AT_ONCE = 2
"""Samples under way at the same time: more would be a load test of this machine."""
GOALS = {"median": 3.0, "max": 7.0}
"""Stoker's, with its default interval of 5 s; seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the demand, in replicas that it needs."""

    before: int
    after: int
    samples: int

    @property
    def name(self) -> str:
        """In results."""
        return f"{self.before} to {self.after}"


STEPS = (Step(2, 20, 10), Step(4, 6, 12))


def steps(samples: int) -> tuple[Step, ...]:
    """Every step with so many samples; 0: with its own."""
    return tuple(replace(step, samples=samples or step.samples) for step in STEPS)


@dataclass(frozen=True, slots=True)
class Reaction:
    """One sample of one side, in seconds since the demand was visible; None: not within the patience.

    Attributes:
        first: until the first new pod was announced.
        enough: until as many were announced as the step needs.
        replicas: at the end.
        load_average: of the machine, at the beginning.
    """

    side: Side
    first: float | None
    enough: float | None
    replicas: int
    load_average: float


def measure(planned: Sequence[Step] = STEPS, sides: frozenset[Side] = BOTH) -> Figures:
    """Take every sample of every step; return the figures of the sides."""
    pairs = [
        (step, phase(step, number), _pair(step, number, sides))
        for step in planned
        for number in range(step.samples)
    ]
    everyone = [fleet for *_, pair in pairs for fleet in pair]
    with open_arena(
        {"reaction": everyone}, scrape_interval=SCRAPE_INTERVAL, engines=EngineOptions(tick=0.2)
    ) as arena:
        taken = asyncio.run(_samples(pairs, arena))
    return {
        "target_requests_in_flight": TARGET,
        "scrape_interval": SCRAPE_INTERVAL,
        "settings": {str(one.contender.side): fleets.settings(one) for one in pairs[0][-1]},
        "stoker_goals_seconds": GOALS,
        "steps": {step.name: _figures(r for s, r in taken if s == step) for step in planned},
    }


def phase(step: Step, number: int) -> float:
    """When within `PHASE_SECONDS` the sample of this number begins, seconds."""
    return (number + random.random()) * PHASE_SECONDS / step.samples


def _pair(step: Step, number: int, sides: frozenset[Side] = BOTH) -> tuple[Fleet, ...]:
    return tuple(
        Fleet(f"{one.side}-{step.before}-{step.after}-{number}", one, step.before, step.after + 10, TARGET)
        for one in (KEDA, STOKER)
        if one.side in sides
    )


async def _samples(
    pairs: Sequence[tuple[Step, float, tuple[Fleet, ...]]], arena: Arena
) -> list[tuple[Step, Reaction]]:
    taken: list[tuple[Step, Reaction]] = []
    async with session(arena) as here:
        everyone = [fleet for *_, pair in pairs for fleet in pair]
        here.say(f"{len(everyone)} fleets begin")
        await here.settle(everyone, lambda fleet: fleet.minimum, 180)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(step: Step, at: float, pair: tuple[Fleet, ...]) -> None:
            async with gate:
                await asyncio.sleep((at - time.monotonic()) % PHASE_SECONDS)
                found = await asyncio.gather(*(_sample(here, fleet, step) for fleet in pair))
            taken.extend((step, reaction) for reaction in found)
            here.say(f"{len(taken)} of {len(everyone)}: {step.name}: {' | '.join(map(_line, found))}")

        await asyncio.gather(*(one(*sample) for sample in pairs))
    return taken


async def _sample(here: Session, fleet: Fleet, step: Step) -> Reaction:
    busy, began, load = load_average(), time.monotonic(), here.load(fleet)
    load.set(step.after * TARGET)
    visible = await _visible(here, fleet, TARGET * step.before * (1 + TOLERANCE))
    wanted = step.after - step.before
    while len(here.census.births(fleet.namespace, began)) < wanted:
        if time.monotonic() > visible + PATIENCE_SECONDS:
            break
        await asyncio.sleep(POLL_SECONDS)
    after = [max(0.0, at - visible) for at in here.census.births(fleet.namespace, began)]
    replicas = here.census.count(fleet.namespace)
    await load.close()
    with contextlib.suppress(PlaneError):  # it goes away with the plane at the latest
        await asyncio.to_thread(
            here.arena.plane.kubectl, "delete", "namespace", fleet.namespace, "--wait=false"
        )
    enough = after[wanted - 1] if len(after) >= wanted else None
    return Reaction(fleet.contender.side, after[0] if after else None, enough, replicas, busy)


async def _visible(here: Session, fleet: Fleet, above: float) -> float:
    """When Prometheus first answered with more than `above`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        value = await here.in_flight(fleet)
        if value is not None and value > above:
            return time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
    raise PlaneError(f"{fleet.namespace}: the load is not in Prometheus after {PATIENCE_SECONDS:.0f} s")


def _line(reaction: Reaction) -> str:
    first, enough = (
        "never" if value is None else f"{value:.1f} s" for value in (reaction.first, reaction.enough)
    )
    return f"{reaction.side}: first pod {first}, all {enough}"


def _figures(taken: Iterable[Reaction]) -> Figures:
    """Both sides' spreads, and whether Stoker's goals are met."""
    reactions = list(taken)
    by_side = {side: [r for r in reactions if r.side is side] for side in Side}
    figures: Figures = {side.value: _side(found) for side, found in by_side.items() if found}
    first = figures[Side.STOKER]["visible_to_first_pod_seconds"]
    figures["stoker_goals_met"] = (
        first is not None
        and not figures[Side.STOKER]["without_reaction"]
        and all(first[name] < limit for name, limit in GOALS.items())
    )
    return figures


def _side(reactions: Sequence[Reaction]) -> Figures:
    first = [r.first for r in reactions if r.first is not None]
    enough = [r.enough for r in reactions if r.enough is not None]
    return {
        "samples": len(reactions),
        "visible_to_first_pod_seconds": spread(first) if first else None,
        "visible_to_all_pods_seconds": spread(enough) if enough else None,
        "first_and_all_seconds": [
            [None if value is None else round(value, 2) for value in (r.first, r.enough)] for r in reactions
        ],
        "without_reaction": sum(r.enough is None for r in reactions),
        "replicas_at_end": sorted(r.replicas for r in reactions),
        "load_average": spread([r.load_average for r in reactions]) if reactions else None,
    }
