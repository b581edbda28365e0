"""The short form: invariants that must hold whatever the ranking is.

Rules of this module:

* Stoker never moves the wrong way in any fault of the metrics, with any of its ways to be set up.
* Decisions stay within the bounds, no request is cut or left without an answer, and a run can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from bench.replay.candidates import candidate
from bench.replay.experiments import Case, Job, play, prepare, run
from bench.replay.fault_runs import FAULTED, fault_table
from bench.replay.scores import Ledger
from bench.replay.simulation import simulate

STOKER = tuple(name for name in FAULTED if name.startswith("stoker"))


def violations(case: Case, processes: int = 1) -> Iterator[str]:
    """What does not hold, in words; nothing when all is well."""
    for row in fault_table([case], STOKER, processes=processes):
        if row["wrong_way_moves"]:
            yield (
                f"{row['policy']}: fault {row['fault']} took {row['replicas_lost']} replicas away in "
                f"{row['wrong_way_moves']} moves"
            )
    for policy in STOKER:
        yield from _of_one(case, policy)


def _of_one(case: Case, policy: str) -> Iterator[str]:
    job = Job(case, policy, FAULTED[policy])
    setting = prepare(case).setting
    before, again = run(job), play(job)
    outside = [n for _, n in again.targets if not setting.minimum <= n <= setting.maximum]
    if outside:
        yield f"{policy}: {outside} replicas, outside [{setting.minimum}, {setting.maximum}]"
    if before.targets != again.targets or before.score != json.loads(json.dumps(again.score().as_json())):
        yield f"{policy}: the same run gave two results"
    expected = sum(setting.warm_up <= r.arrival < setting.duration for r in setting.arrivals)
    yield from _answered(policy, again, expected)
    yield from _bounded(case, policy)


def _answered(policy: str, ledger: Ledger, expected: int) -> Iterator[str]:
    """No request is lost, and none was left when a replica went."""
    score = ledger.score()
    if score.requests != expected or ledger.unserved_requests:
        yield f"{policy}: of {expected} requests {score.requests - ledger.unserved_requests} were answered"
    if ledger.cut_requests:
        yield f"{policy}: {ledger.cut_requests} requests were in flight when their replica was deleted"


def _bounded(case: Case, policy: str) -> Iterator[str]:
    """A bound below the need is kept."""
    prepared = prepare(case)
    context = replace(prepared.context, maximum=prepared.setting.initial)
    made = candidate(policy).make(context, FAULTED[policy])
    ledger = simulate(replace(prepared.setting, maximum=context.maximum), made)
    if max(n for _, n in ledger.targets) > context.maximum:
        yield f"{policy}: more than {context.maximum} replicas"
