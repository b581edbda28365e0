"""Runs, many of them: a workload, a start-up time, a seed, and every setting of every policy.

Rules of this module:

* All settings of a seed see the same arrivals, the same start-up luck and the same scrape phases.
* Cost is compared at equal attainment, between the settings of a curve and never beyond its ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.replay.calibration import Capacity, calibrate
from bench.replay.candidates import CANDIDATES, Context, candidate
from bench.replay.faults import faults_at
from bench.replay.fleet import StartUp
from bench.replay.policies.reference import weighted_demand
from bench.replay.scores import Ledger, wrong_way
from bench.replay.simulation import Routing, Setting, simulate
from bench.replay.workloads import WORKLOADS, Workload, from_files
from testbed.replica_models import model_named
from testbed.trace import TraceRequest

MODEL = "qwen3-32b-2xh100"
GPUS_PER_REPLICA = 2
START_UPS = {60: StartUp(60), 240: StartUp(240, 30), 600: StartUp(600, 75)}

HEADROOM = 3.0
"""The bound on replicas is so many times the peak's need: it hides no overshoot."""

FAULT_START = 1500.0
AFTERWARDS = 60.0
"""Seconds after a fault in which a move still counts as its consequence."""


@dataclass(frozen=True, slots=True)
class Case:
    """All of an experiment but the policies; small, so that it can be sent to another process."""

    workload: str
    start_up: int = 240
    seed: int = 0
    routing: Routing = Routing.LEAST_LOADED
    model: str = MODEL
    calibrated_on: str = MODEL
    """The model behind the targets: another one than ``model`` is an error that every policy has."""
    traces: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    case: Case
    policy: str
    parameter: float
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all runs of a case share."""

    setting: Setting
    context: Context
    workload: Workload


@dataclass(slots=True)
class Result:
    """One run's outcome."""

    job: Job
    score: dict[str, Any]
    targets: list[tuple[float, int]] = field(default_factory=list)


def workload_of(case: Case) -> Workload:
    """The workload of a case.

    Raises:
        ValueError: no such workload, or its trace was not given.
    """
    known = WORKLOADS | (from_files(case.traces) if case.traces is not None else {})
    if case.workload not in known:
        raise ValueError(
            f"workload {case.workload!r} is not known; known are {', '.join(known)}; give --traces"
        )
    return known[case.workload]


@lru_cache(maxsize=1)
def prepare(case: Case) -> Prepared:
    """Arrivals, capacity, bounds and the initial fleet."""
    workload, start_up = workload_of(case), START_UPS[case.start_up]
    arrivals = workload.arrivals(case.seed)
    early = [r for r in arrivals if r.arrival < workload.initial_seconds]
    capacity = measured(case.calibrated_on, tuple(early[:4000]))
    demand = weighted_demand(arrivals, workload.duration)
    peak = float(demand.max()) / capacity.weighted
    first = float(demand[: int(workload.initial_seconds)].max()) / capacity.weighted
    setting = Setting(
        model=model_named(case.model),
        arrivals=arrivals,
        duration=workload.duration,
        start_up=start_up,
        initial=max(1, int(np.ceil(first / 0.7))),
        maximum=max(4, int(np.ceil(HEADROOM * peak))),
        routing=case.routing,
        leak=workload.leak,
        seed=case.seed,
    )
    horizon = start_up.mean + 2 * start_up.deviation
    kv_capacity = setting.model.kv_capacity_tokens
    context = Context(capacity, setting.minimum, setting.maximum, demand, horizon, kv_capacity)
    return Prepared(setting, context, workload)


@lru_cache(maxsize=4)
def measured(model: str, mix: tuple[TraceRequest, ...]) -> Capacity:
    """`calibrate`, once per process and mix."""
    return calibrate(model_named(model), mix)


def run(job: Job) -> Result:
    """One run."""
    ledger = play(job)
    return Result(job, ledger.score().as_json(), ledger.targets)


def play(job: Job) -> Ledger:
    """One run, with everything that was booked."""
    prepared = prepare(job.case)
    faults = tuple(f for f in faults_at(FAULT_START) if f.name == job.fault)
    policy = candidate(job.policy).make(prepared.context, job.parameter)
    return simulate(replace(prepared.setting, faults=faults), policy)


def sweep(case: Case, policies: Sequence[str] = ()) -> list[Job]:
    """Every setting of the policies, of all by default."""
    chosen = [c for c in CANDIDATES if not policies or c.name in policies]
    return [Job(case, c.name, float(setting)) for c in chosen for setting in c.settings]


def run_all(jobs: Sequence[Job], processes: int, done: Callable[[Result], None]) -> list[Result]:
    """Run jobs, in their order; ``done`` is told of each as it ends."""
    results = []
    if processes <= 1:
        for job in jobs:
            results.append(run(job))
            done(results[-1])
        return results
    with ProcessPoolExecutor(processes) as pool:
        for result in pool.map(run, jobs):
            results.append(result)
            done(result)
    return results


# --- Curves --------------------------------------------------------------------------------------


def cost_at(points: Iterable[tuple[float, float]], attainment: float) -> float | None:
    """GPU-hours of a curve at an attainment.

    Args:
        points: (GPU-hours, attainment) of each setting.
        attainment: to compare at.

    Returns:
        Linear between neighbours of the efficient settings (those that no other beats in both); None where
        the curve does not reach, or begins above: what it would cost there is not known.
    """
    front: list[tuple[float, float]] = []
    for hours, reached in sorted(points):
        if not front or reached > front[-1][1]:
            front.append((hours, reached))
    if front and front[0][1] == attainment:
        return front[0][0]
    for (low, worse), (high, better) in pairwise(front):
        if worse < attainment <= better:
            return low + (high - low) * (attainment - worse) / (better - worse)
    return None


# --- Faults --------------------------------------------------------------------------------------

FAULTED: dict[str, float] = {
    "stoker, min and max only": 0.0,
    "stoker utilization": 0.65,
    "stoker concurrentRequests": 0.65,
    "hpa weighted tokens": 0.65,
    "keda running+waiting": 0.65,
    "keda waiting": 2.0,
    "production-stack recipe": 5.0,
}
"""Policies that read Prometheus, with the setting that each fault is tried with."""


def fault_table(case: Case, policies: Iterable[str] = FAULTED) -> list[dict[str, Any]]:
    """Each fault for each policy, against the same run without it."""
    rows = []
    for policy in policies:
        job = Job(case, policy, FAULTED[policy])
        reference = play(job)
        for fault in faults_at(FAULT_START):
            ledger = play(replace(job, fault=fault.name))
            moves, lost = wrong_way(ledger.targets, reference.targets, fault.start, fault.end + AFTERWARDS)
            rows.append(
                {
                    "policy": policy,
                    "parameter": job.parameter,
                    "fault": fault.name,
                    "wrong_way_moves": moves,
                    "replicas_lost": lost,
                    "attainment": ledger.score().attainment,
                    "attainment_without": reference.score().attainment,
                }
            )
    return rows
