"""Faults of the metrics, one at a time, against the same run without them.

Rules of this module:

* A wrong move takes replicas below everything that the run without the fault wanted around that moment.
* Every policy that reads Prometheus is tried, with one setting; it is the same share of capacity for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench.replay.experiments import FAULT_START, Case, Job, Result, run_all
from bench.replay.faults import Fault, faults_at
from bench.replay.scores import wrong_way

AFTERWARDS = 60.0
"""Seconds after a fault in which a move still counts as its consequence."""

FAULTED: dict[str, float] = {
    "stoker, min and max only": 0.0,
    "stoker utilization, learned": 0.65,
    "stoker utilization": 0.65,
    "stoker concurrentRequests": 0.65,
    "hpa generated tokens": 0.65,
    "hpa weighted tokens": 0.65,
    "keda running+waiting": 0.65,
    "keda waiting": 2.0,
    "production-stack recipe": 5.0,
    "llm-d wva-like": 0.3,
}
"""Policies that read Prometheus, with the setting that each fault is tried with."""

RUNS_PER_POLICY = 1 + len(faults_at(FAULT_START))
"""For each seed: without a fault, and with each."""


def fault_table(
    cases: Sequence[Case],
    policies: Iterable[str] = tuple(FAULTED),
    *,
    processes: int = 1,
    done: Callable[[Result], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Each fault for each policy, over all cases."""
    plain = [Job(case, policy, FAULTED[policy]) for case in cases for policy in policies]
    faults = (None, *(fault.name for fault in faults_at(FAULT_START)))
    jobs = [replace(job, fault=fault) for job in plain for fault in faults]
    found = {result.job: result for result in run_all(jobs, processes, done)}
    return [
        _row(
            policy,
            fault,
            [(found[job], found[replace(job, fault=fault.name)]) for job in plain if job.policy == policy],
        )
        for policy in policies
        for fault in faults_at(FAULT_START)
    ]


def _row(policy: str, fault: Fault, pairs: Sequence[tuple[Result, Result]]) -> dict[str, Any]:
    """One fault's outcome, summed over the cases: (without, with) each."""
    outcomes = [
        wrong_way(faulted.targets, plain.targets, fault.start, fault.end + AFTERWARDS)
        for plain, faulted in pairs
    ]
    without, within = (sum(pair[side].score["attainment"] for pair in pairs) / len(pairs) for side in (0, 1))
    return {
        "policy": policy,
        "parameter": FAULTED[policy],
        "fault": fault.name,
        "runs": len(pairs),
        "wrong_way_moves": sum(moves for moves, _ in outcomes),
        "replicas_lost": max(lost for _, lost in outcomes),
        "attainment": within,
        "attainment_without": without,
    }
