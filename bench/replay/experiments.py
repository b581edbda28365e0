"""One run: a workload, a start-up time, a seed, a setting of a policy; and many of them, in processes.

Rules of this module:

* All settings of a seed see the same arrivals, the same start-up luck and the same scrape phases.
* What one replica carries is measured once, on the traffic for tuning: never on what is scored.
* A result that is known already is not computed again (`bench.replay.store`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.replay.calibration import Capacity, calibrate
from bench.replay.candidates import Choice, Context, candidate
from bench.replay.faults import faults_at
from bench.replay.fleet import StartUp
from bench.replay.policies.reference import weighted_demand
from bench.replay.scores import Ledger
from bench.replay.simulation import Queueing, Routing, Setting, simulate
from bench.replay.store import Store
from bench.replay.workloads import WORKLOADS, Workload, from_files
from testbed.replica_models import model_named
from testbed.trace import TraceRequest

MODEL = "qwen3-32b-2xh100"
START_UPS = {60: StartUp(60), 240: StartUp(240, 30), 600: StartUp(600, 75)}

HEADROOM = 3.0
"""The bound on replicas is so many times the peak's need: it hides no overshoot; who ran into it is told."""

TUNING_SEED = 1000
"""Of the traffic that targets are measured and settings are chosen on; scored seeds count from 0."""

FAULT_START = 1500.0


@dataclass(frozen=True, slots=True)
class Case:
    """All of an experiment but the policies; small, so that it can be sent to another process."""

    workload: str
    start_up: int = 240
    seed: int = 0
    routing: Routing = Routing.LEAST_LOADED
    queueing: Queueing = Queueing.ENGINE
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
    variant: str = ""
    fault: str | None = None

    @property
    def choice(self) -> Choice:
        """The setting."""
        return Choice(self.parameter, self.variant)


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


def tuning_case(case: Case) -> Case:
    """The traffic that this case's policies are tuned on: another day, or the same kind with another seed."""
    day = workload_of(case).tuned_on
    return replace(case, workload=day or case.workload, seed=TUNING_SEED)


@lru_cache(maxsize=1)
def prepare(case: Case) -> Prepared:
    """Arrivals, capacity, bounds and the initial fleet."""
    workload, start_up = workload_of(case), START_UPS[case.start_up]
    arrivals = workload.arrivals(case.seed)
    capacity = capacity_for(case)
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
        queueing=case.queueing,
        leak=workload.leak,
        seed=case.seed,
    )
    horizon = start_up.mean + 2 * start_up.deviation
    kv_capacity = setting.model.kv_capacity_tokens
    context = Context(capacity, setting.minimum, setting.maximum, demand, horizon, kv_capacity)
    return Prepared(setting, context, workload)


def capacity_for(case: Case) -> Capacity:
    """What one replica carries, on the lengths at the beginning of the traffic for tuning."""
    tuning = tuning_case(case)
    return measured(tuning.workload, tuning.calibrated_on, tuning.traces)


@lru_cache(maxsize=8)
def measured(workload: str, model: str, traces: Path | None) -> Capacity:
    """`calibrate`, once per workload and model: kept like a result, since it takes as long as one."""
    store, key = Store(), f"capacity/{workload}/{model}"
    if (known := store.load(key)) is not None:
        return Capacity(**known)
    found = calibrate(model_named(model), _beginning(Case(workload, seed=TUNING_SEED, traces=traces)))
    store.save(key, found.as_json())
    return Capacity(**found.as_json())


def _beginning(case: Case) -> list[TraceRequest]:
    workload = workload_of(case)
    early = [r for r in workload.arrivals(case.seed) if r.arrival < workload.initial_seconds]
    return early[:4000]


def run(job: Job) -> Result:
    """One run, or what the store knows of it."""
    store, key = Store(policy=job.policy), key_of(job)
    known = store.load(key)
    if known is None:
        ledger = play(job)
        known = {"score": ledger.score().as_json(), "targets": ledger.targets}
        store.save(key, known)
    return Result(job, known["score"], [(at, n) for at, n in known["targets"]])


def key_of(job: Job) -> str:
    """What tells this run from all others of the same code; where traces lie on this machine does not."""
    return repr(replace(job, case=replace(job.case, traces=None)))


def play(job: Job) -> Ledger:
    """One run, with everything that was booked."""
    prepared = prepare(job.case)
    faults = tuple(f for f in faults_at(FAULT_START) if f.name == job.fault)
    policy = candidate(job.policy).policy(prepared.context, job.choice)
    return simulate(replace(prepared.setting, faults=faults), policy)


def run_all(jobs: Sequence[Job], processes: int, done: Callable[[Result], None]) -> list[Result]:
    """Run jobs; ``done`` is told of each as it ends.

    Jobs of one case should stand together: a process prepares a case once.

    Returns:
        The results in the order of the jobs.
    """
    if processes <= 1:
        results = []
        for job in jobs:
            results.append(run(job))
            done(results[-1])
        return results
    with ProcessPoolExecutor(processes) as pool:
        pending = {pool.submit(run, job): number for number, job in enumerate(jobs)}
        found: dict[int, Result] = {}
        for future in as_completed(pending):
            found[pending[future]] = future.result()
            done(future.result())
    return [found[number] for number in range(len(jobs))]
