"""A ramp of recorded traffic in real time, for each side the same: GPU-seconds, and answers in time.

The traffic is Azure's conversation trace, superposed in stages and played by a load generator of each fleet's
own, with the same arrivals. Whether a replica more is added is a matter of when who was scraped, and one more
is a tenth of the bill: every contender has several fleets, and what counts is their mean. Scored as in the
replay: every request that arrived after the warm-up, and pods from creation to deletion within the scored
time. On a busy machine the load generator itself is late: latencies are therefore given from a request's
arrival and from its sending, with how late it was sent.
"""

import asyncio
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.controller.results import Figures
from bench.peers.arena import Arena, open_arena
from bench.peers.fleets import GPUS_PER_REPLICA, KEDA, NAME, STOKER, Contender, Fleet, Side
from bench.peers.session import Session, session
from bench.replay.calibration import Capacity, calibrate
from bench.replay.scores import TPOT_SECONDS, TTFT_SECONDS
from testbed.engine_pods import EngineOptions
from testbed.replica_models import model_named
from testbed.trace import Stage, TraceRequest, load_azure, stage
from testbed.traffic import Traffic, TrafficOptions
from testbed.traffic_report import Outcome, Result, percentile

MODEL = "llama-3.1-70b-fp8-1xh200"
"""The slowest replicas that there are coefficients of: the fewest requests to play for a fleet of ten."""
LOAD_SECONDS = 60
"""From the start of a container to Ready."""
SCRAPE_INTERVAL = "15s"
STREAM_INTERVAL = 32
"""Tokens per chunk after the first: writing chunks is what the simulated engines spend this machine on."""
LEAST, MOST = 4, 16
CALIBRATION_SECONDS = 600.0
REPEATS = 3
"""Fleets of every contender."""
SHARE = 0.65
"""Of what a replica carries at the objective: the middle of the replay's settings."""
STOKER_UNTOLD = Contender("Stoker, min and max only", Side.STOKER, targeted=False)
CONTENDERS = (KEDA, STOKER, STOKER_UNTOLD)


@dataclass(frozen=True)
class Ramp:
    """The traffic, seconds.

    Attributes:
        stages: how many copies of the trace play from when on.
        duration: of the arrivals.
        warm_up: at the beginning, not scored.
        idle: before the arrivals, with every replica ready: what is known of the present starts from rest.
        seed: of the copies' shifts.
    """

    stages: tuple[tuple[float, int], ...] = ((0, 1), (150, 2), (450, 1))
    duration: float = 660.0
    warm_up: float = 60.0
    idle: float = 90.0
    seed: int = 0

    @cached_property
    def arrivals(self) -> list[TraceRequest]:
        """Every request."""
        stages = [Stage(start, copies) for start, copies in self.stages]
        return stage(load_azure(), stages, self.duration, seed=self.seed)

    @cached_property
    def capacity(self) -> Capacity:
        """What one replica carries at the objective, on this mix."""
        early = [request for request in self.arrivals if request.arrival < CALIBRATION_SECONDS]
        return calibrate(model_named(MODEL), early)

    @property
    def target(self) -> int:
        """Requests in flight per replica: what both sides are told."""
        return max(1, round(self.capacity.in_flight * SHARE))

    def fleet(self, contender: Contender, number: int = 0) -> Fleet:
        """One of a contender's fleets."""
        name = contender.name.lower().replace(", ", "-").replace(" ", "-")
        return Fleet(f"ramp-{name}-{number}", contender, LEAST, MOST, self.target, LOAD_SECONDS)


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one fleet; seconds since the first arrival."""

    contender: Contender
    results: Sequence[Result]
    replicas: Sequence[tuple[float, int]]
    pod_seconds: float
    start_ups: Sequence[float] = ()
    """From the announcement of a pod to Ready, seconds."""


def measure(ramp: Ramp, contenders: Sequence[Contender]) -> tuple[list[Run], Figures]:
    """Play the ramp at all fleets of every contender at once; return their runs and how the machine was."""
    group = [ramp.fleet(contender, number) for contender in contenders for number in range(REPEATS)]
    engines = EngineOptions(MODEL, stream_interval=STREAM_INTERVAL)
    with open_arena({"ramp": group}, scrape_interval=SCRAPE_INTERVAL, engines=engines) as arena:
        return asyncio.run(_play(ramp, group, arena))


async def _play(ramp: Ramp, group: Sequence[Fleet], arena: Arena) -> tuple[list[Run], Figures]:
    async with session(arena) as here:
        await here.settle(group, lambda fleet: fleet.minimum, LOAD_SECONDS + 180)
        await asyncio.sleep(ramp.idle)
        here.say(f"{len(ramp.arrivals)} requests for each of {len(group)} fleets, in {ramp.duration:.0f} s")
        here.lag, here.load_averages = 0.0, []
        players = {
            fleet: Traffic(ramp.arrivals, here.census.gateways[fleet.namespace], TrafficOptions(NAME))
            for fleet in group
        }
        began = time.monotonic()
        telling = asyncio.create_task(_tell(here, players))
        await asyncio.gather(*(player.run() for player in players.values()))
        telling.cancel()
        runs = [_run(ramp, here, fleet, player, began) for fleet, player in players.items()]
        loads = here.load_averages
        machine = {
            "worst_lag_seconds": round(here.lag, 3),
            "load_average": {"mean": round(sum(loads) / len(loads), 2), "max": round(max(loads), 2)},
        }
        return runs, machine


def _run(ramp: Ramp, here: Session, fleet: Fleet, player: Traffic, began: float) -> Run:
    census, name = here.census, fleet.namespace
    counts = [(at - began, count) for at, count in census.counts(name, began)]
    pods = census.pod_seconds(name, began + ramp.warm_up, began + ramp.duration)
    return Run(fleet.contender, player.results, counts, pods, census.start_ups(name, began))


async def _tell(here: Session, players: dict[Fleet, Traffic]) -> None:
    while True:
        await asyncio.sleep(30)
        parts = [
            f"{fleet.namespace}: {here.census.count(fleet.namespace)} replicas, "
            f"{player.counters.in_flight} in flight, {player.counters.cut} cut"
            for fleet, player in players.items()
        ]
        here.say(f"lag {here.lag:.2f} s; {' | '.join(parts)}")


def figures(ramp: Ramp, runs: Sequence[Run]) -> Figures:
    """The scores of a contender's runs: of a fleet in the mean, and of all their requests."""
    scored = [r for run in runs for r in run.results if ramp.warm_up <= r.arrival < ramp.duration]
    used = [round(run.pod_seconds * GPUS_PER_REPLICA) for run in runs]
    return {
        "gpu_seconds": round(statistics.mean(used)),
        "gpu_seconds_of_each": used,
        "attainment": round(attainment(scored, late=True), 5),
        "attainment_from_arrival": round(attainment(scored), 5),
        "sent_late_seconds": _percentiles(r.queued for r in scored),
        "requests": len(scored),
        "not_served": {
            outcome.value: sum(r.outcome is outcome for r in scored)
            for outcome in (Outcome.CUT, Outcome.REFUSED, Outcome.ABANDONED)
        },
        "ttft_seconds": _percentiles(_from_sending(r) for r in scored),
        "ttft_from_arrival_seconds": _percentiles(r.ttft for r in scored),
        "tpot_seconds": _percentiles(r.tpot for r in scored),
        "start_up_seconds": _percentiles(seconds for run in runs for seconds in run.start_ups),
        "peak_replicas": [max(count for _, count in run.replicas) for run in runs],
        "replicas": [
            [(round(at), count) for at, count in run.replicas if at <= ramp.duration] for run in runs
        ],
    }


def attainment(results: Sequence[Result], *, late: bool = False) -> float:
    """Share of requests that were served with the first token within 2 s and 50 ms per further one.

    Args:
        results: all that count.
        late: count from the sending of a request, not from when it was to arrive.
    """
    good = sum(_good(result, _from_sending(result) if late else result.ttft) for result in results)
    return good / len(results) if results else 1.0


def _good(result: Result, ttft: float | None) -> bool:
    served = result.outcome is Outcome.SERVED
    return served and ttft is not None and ttft <= TTFT_SECONDS and (result.tpot or 0.0) <= TPOT_SECONDS


def _from_sending(result: Result) -> float | None:
    """The time to the first token without the load generator's own delay: there always is an endpoint."""
    return None if result.ttft is None else result.ttft - result.queued


def _percentiles(values: Iterable[float | None]) -> list[float | None]:
    """p50, p95 and p99."""
    known = sorted(value for value in values if value is not None)
    found = (percentile(known, rank) for rank in (50, 95, 99))
    return [None if value is None else round(value, 4) for value in found]
