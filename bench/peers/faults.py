"""What becomes of fleets whose metrics fail: the rows run side by side, in fleets of their own.

Every fleet has a standing load of `REPLICAS` requests at a target of one each, so at every moment the right
number of replicas is `REPLICAS`: whoever has fewer has lost them to the fault. Rules of this module:

- Stoker's `windows.down` is 2 min here, shorter than the HPA's 5 min and than every fault: no patience hides
  a wrong decision.
- Metrics that fail stay failed to the end; Prometheus comes back after `OUTAGE_SECONDS`, with its data.
- First the operators are killed and come back, while all metrics are right; then everything else breaks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bench.controller.results import Figures
from bench.peers import fleets
from bench.peers.arena import Arena, open_arena
from bench.peers.census import Counts
from bench.peers.fleets import BOTH, KEDA, Contender, Fleet, Side
from bench.peers.session import Session, session
from testbed.engine import MetricsFault
from testbed.engine_pods import EngineOptions

REPLICAS = 8
MAXIMUM = 12
TARGET = 1
SCRAPE_INTERVAL = "15s"
"""As in most clusters: after an outage Prometheus gets to know its targets one by one within it."""
REST_SECONDS = 30.0
DOWN_SECONDS = 40.0
"""How long an operator is down."""
AFTER_DOWN_SECONDS = 60.0
OUTAGE_SECONDS = 350.0
"""Longer than the HPA's window, the staleness of Prometheus, and Stoker's own idea of stale."""
WATCH_SECONDS = 450.0
"""From the beginning of the faults: an HPA drops what it believes to be too much after 300 s."""


class Fault(StrEnum):
    """What fails."""

    OPERATOR = "the autoscaler's operator killed, back after 40 s"
    NAN = "every engine's values are NaN"
    EMPTY = "every engine's series are gone"
    HALF = "half of the engines' series are gone"
    OUTAGE = "Prometheus stopped for 350 s, then back"


@dataclass(frozen=True, slots=True)
class Row:
    """A fault and who meets it, in so many fleets."""

    fault: Fault
    contender: Contender
    fleets: int


STOKER = Contender("Stoker", Side.STOKER, {"windows": {"down": "2m"}})
_STRICT = {"trigger": {"ignoreNullValues": "false"}}


def _fallback(replicas: int, **more: str) -> dict[str, object]:
    return {"fallback": {"failureThreshold": 3, "replicas": replicas, **more}}


STRICT = Contender("KEDA, ignoreNullValues false", Side.KEDA, _STRICT)
ROWS = (
    Row(Fault.NAN, KEDA, 3),
    Row(Fault.NAN, Contender("KEDA, fallback 6", Side.KEDA, _fallback(6)), 2),
    Row(Fault.NAN, STRICT, 2),
    Row(Fault.NAN, STOKER, 4),
    Row(Fault.EMPTY, KEDA, 3),
    Row(Fault.EMPTY, STRICT, 2),
    Row(
        Fault.EMPTY,
        Contender("KEDA, ignoreNullValues false, fallback 6", Side.KEDA, _STRICT | _fallback(6)),
        2,
    ),
    Row(Fault.EMPTY, STOKER, 4),
    Row(Fault.HALF, KEDA, 3),
    Row(Fault.HALF, STOKER, 4),
    Row(Fault.OUTAGE, KEDA, 6),
    Row(Fault.OUTAGE, Contender("KEDA, fallback 2", Side.KEDA, _fallback(2)), 2),
    Row(Fault.OUTAGE, STRICT, 6),
    Row(
        Fault.OUTAGE,
        Contender(
            "KEDA, ignoreNullValues false, fallback currentReplicas",
            Side.KEDA,
            _STRICT | _fallback(2, behavior="currentReplicas"),
        ),
        3,
    ),
    Row(Fault.OUTAGE, STOKER, 6),
)
OPERATOR_ROWS = (Row(Fault.OPERATOR, KEDA, 0), Row(Fault.OPERATOR, STOKER, 0))
"""Met by every fleet of the contender, before the others."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What a fleet went through: replicas, and seconds since the fault began.

    Attributes:
        before: replicas when it began.
        lowest: fewest, from then to the end of the watch.
        end: at the end of the watch.
        first_fall: when it first had fewer than it needed; None: never.
    """

    before: int
    lowest: int
    end: int
    first_fall: float | None

    @classmethod
    def of(cls, counts: Counts, since: float, until: float) -> "Fate":
        """Read it from (when, replicas); the first entry is the state at `since`."""
        seen = [(at, count) for at, count in counts if at <= until]
        before = seen[0][1]
        falls = [at for at, count in seen if count < REPLICAS]
        return cls(
            before,
            min(count for _, count in seen),
            seen[-1][1],
            round(falls[0] - since, 1) if falls else None,
        )

    @property
    def lost(self) -> bool:
        """Whether replicas were lost to the fault."""
        return self.lowest < REPLICAS


def rows(fleets: int = 0, sides: frozenset[Side] = BOTH) -> list[Row]:
    """The rows of these sides with so many fleets in each; 0: with their own numbers."""
    return [replace(row, fleets=fleets or row.fleets) for row in ROWS if row.contender.side in sides]


def measure(asked: Sequence[Row]) -> Figures:
    """Run these rows; return who lost what."""
    planned = [(row, _fleets(row, number)) for number, row in enumerate(asked)]
    groups = {
        "up": [f for row, group in planned if row.fault is not Fault.OUTAGE for f in group],
        "outage": [f for row, group in planned if row.fault is Fault.OUTAGE for f in group],
    }
    with open_arena(groups, scrape_interval=SCRAPE_INTERVAL, engines=EngineOptions(tick=0.5)) as arena:
        found, load = asyncio.run(_run(planned, arena))
    return {
        "replicas_needed": REPLICAS,
        "target_requests_in_flight": TARGET,
        "scrape_interval": SCRAPE_INTERVAL,
        "operator_down_seconds": DOWN_SECONDS,
        "prometheus_down_seconds": OUTAGE_SECONDS,
        "watched_seconds": WATCH_SECONDS,
        "load_average": load,
        "settings": {group[0].contender.name: fleets.settings(group[0]) for _, group in planned},
        "rows": [describe(row, fates) for row, fates in found],
    }


def _fleets(row: Row, number: int) -> list[Fleet]:
    name = f"{row.contender.side}-{row.fault.name.lower()}-{number}"
    return [Fleet(f"{name}-{n}", row.contender, 1, MAXIMUM, TARGET) for n in range(row.fleets)]


Planned = Sequence[tuple[Row, list[Fleet]]]


async def _run(planned: Planned, arena: Arena) -> tuple[list[tuple[Row, list[Fate]]], Figures]:
    async with session(arena) as here:
        await _grow(here)
        began = time.monotonic()
        await _operators_down(here)
        found = [
            (row, _fates(here, _everyone(planned, row.contender), began, time.monotonic()))
            for row in OPERATOR_ROWS
            if _everyone(planned, row.contender)
        ]
        await here.settle(arena.fleets, lambda _: REPLICAS, 120)
        began = time.monotonic()
        await _break(here, planned)
        here.say("metrics fail")
        await _beside(
            _outage(here),
            _until(here, began + WATCH_SECONDS, lambda: _standing(here, planned, began)),
        )
        found += [(row, _fates(here, group, began, time.monotonic())) for row, group in planned]
        loads = here.load_averages
        return found, {"mean": round(sum(loads) / len(loads), 2), "max": round(max(loads), 2)}


async def _grow(here: Session) -> None:
    everyone = here.arena.fleets
    here.say(f"{len(everyone)} fleets begin")
    await here.settle(everyone, lambda _: 1, 240)
    for fleet in everyone:
        here.load(fleet).set(REPLICAS * TARGET)
    await here.settle(everyone, lambda _: REPLICAS, 300)
    for fleet in everyone:
        await here.load(fleet).spread()
    here.say(f"all have {REPLICAS} replicas, with a request each")
    await asyncio.sleep(REST_SECONDS)


async def _operators_down(here: Session) -> None:
    arena = here.arena
    here.say("both operators are killed")
    if arena.keda is not None:
        arena.keda.kill_operator()
    for site in arena.sites.values():
        site.operator.kill()
    await asyncio.sleep(DOWN_SECONDS)
    here.say("both operators come back")
    if arena.keda is not None:
        await asyncio.to_thread(arena.keda.start_operator)
    for site in arena.sites.values():
        await asyncio.to_thread(site.operator.restart)
    await asyncio.sleep(AFTER_DOWN_SECONDS)


async def _break(here: Session, planned: Planned) -> None:
    """Let the engines' metrics fail, of the pods that there are now."""
    faults = {
        Fault.NAN: MetricsFault.NAN,
        Fault.EMPTY: MetricsFault.MISSING,
        Fault.HALF: MetricsFault.MISSING,
    }
    for row, group in planned:
        if row.fault not in faults:
            continue
        for fleet in group:
            pods = sorted(one.pod for one in here.census.gateways[fleet.namespace].endpoints)
            broken = pods[::2] if row.fault is Fault.HALF else pods
            engines = here.arena.engines[row.contender.side]
            await asyncio.to_thread(engines.break_metrics, faults[row.fault], *broken)


async def _outage(here: Session) -> None:
    prometheus = here.arena.sites["outage"].prometheus
    await asyncio.to_thread(prometheus.stop)
    await asyncio.sleep(OUTAGE_SECONDS)
    await asyncio.to_thread(prometheus.restart)
    here.say("Prometheus is back")


async def _until(here: Session, end: float, text: Callable[[], str]) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(5)
        here.say(text(), every=30)


async def _beside(*work: Awaitable[None]) -> None:
    await asyncio.gather(*work)


def _standing(here: Session, planned: Planned, began: float) -> str:
    now = time.monotonic()
    losses = [(row, sum(fate.lost for fate in _fates(here, group, began, now))) for row, group in planned]
    lost = [f"{row.contender.name} ({row.fault.name.lower()}) {count}" for row, count in losses if count]
    return f"{now - began:.0f} s into the faults; fleets that lost replicas: {', '.join(lost) or 'none'}"


def _everyone(planned: Planned, contender: Contender) -> list[Fleet]:
    return [fleet for row, group in planned if row.contender == contender for fleet in group]


def _fates(here: Session, group: Iterable[Fleet], since: float, until: float) -> list[Fate]:
    return [Fate.of(here.census.counts(fleet.namespace, since), since, until) for fleet in group]


def describe(row: Row, fates: Sequence[Fate]) -> Figures:
    """One row of the results."""
    falls = [fate.first_fall for fate in fates if fate.first_fall is not None]
    return {
        "fault": row.fault.value,
        "autoscaler": row.contender.name,
        "fleets": len(fates),
        "fleets_that_lost_replicas": sum(fate.lost for fate in fates),
        "replicas_before": [fate.before for fate in fates],
        "replicas_lowest": [fate.lowest for fate in fates],
        "replicas_at_end": [fate.end for fate in fates],
        "first_fall_seconds": {"min": min(falls), "max": max(falls)} if falls else None,
    }
