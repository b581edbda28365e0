"""The method: everybody tunes with the same budget on one part of the traffic, and is scored on another.

Rules of this module:

* Every policy tries its `choices` once, on the traffic for tuning, with the start-up time of the experiment,
  least-loaded routing, queues in the engines and the replica model that its targets were measured on.
* `frozen` picks its settings by one rule. They are then run on the scored traffic, whatever happens there; so
  is the makers' default. Nothing is chosen by what it scored.
* Routing, queueing and replica model of a variation are met with the settings of the standard experiment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.replay.candidates import CANDIDATES, Candidate, Choice
from bench.replay.curves import Point, Seeds, cheapest, frozen
from bench.replay.experiments import Case, Job, Result, run_all, tuning_case
from bench.replay.simulation import Queueing, Routing

OBJECTIVE = 0.995
"""The attainment for which each policy's one tuned setting is chosen."""

Run = Callable[[str, Sequence[Job]], list[Result]]
"""Runs jobs under a heading; the results are in their order."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One policy's outcome.

    Attributes:
        candidate: who.
        tried: every setting on the traffic for tuning.
        tuned: the setting for `OBJECTIVE`, of those tried.
        curve: the frozen settings and what they scored, by cost on the traffic for tuning.
        runs: of the frozen settings and the default, on the scored traffic.
    """

    candidate: Candidate
    tried: Mapping[Choice, Point]
    tuned: Choice
    curve: Mapping[Choice, Seeds]
    runs: Mapping[Choice, Sequence[Result]]


def standard(case: Case) -> Case:
    """Where settings are chosen that this case is met with."""
    plain = replace(case, model=case.calibrated_on, routing=Routing.LEAST_LOADED, queueing=Queueing.ENGINE)
    return tuning_case(plain)


def carried_out(cases: Sequence[Case], policies: Iterable[str], gpus: int, run: Run) -> list[Scored]:
    """Tune, freeze, score.

    Args:
        cases: one per scored seed, alike otherwise.
        policies: names; all of them when empty.
        gpus: of a replica.
        run: runs the jobs.
    """
    chosen = [c for c in CANDIDATES if not set(policies) or c.name in set(policies)]
    tuning = [Job(standard(cases[0]), c.name, *choice) for c in chosen for choice in c.choices]
    tried: dict[str, dict[Choice, Point]] = defaultdict(dict)
    for result in run("tuning", tuning):
        tried[result.job.policy][result.job.choice] = point_of(result, gpus)
    settings = {c.name: frozen(tried[c.name]) for c in chosen}
    jobs = [Job(case, c.name, *choice) for case in cases for c in chosen for choice in _scored(c, settings)]
    results = run("scoring", jobs)
    return [_outcome(c, tried[c.name], settings[c.name], results, gpus) for c in chosen]


def _scored(one: Candidate, settings: Mapping[str, Sequence[Choice]]) -> list[Choice]:
    """The frozen settings, and the default where it is another one."""
    own = list(settings[one.name])
    return own if one.default is None or one.default in own else [*own, one.default]


def _outcome(
    one: Candidate,
    tried: Mapping[Choice, Point],
    settings: Sequence[Choice],
    results: Sequence[Result],
    gpus: int,
) -> Scored:
    runs: dict[Choice, list[Result]] = defaultdict(list)
    for result in results:
        if result.job.policy == one.name:
            runs[result.job.choice].append(result)
    curve = {s: {r.job.case.seed: point_of(r, gpus) for r in runs[s]} for s in settings}
    return Scored(one, tried, cheapest(tried, OBJECTIVE), curve, runs)


def point_of(result: Result, gpus: int) -> Point:
    """(GPU-hours, attainment) of a run."""
    return (result.score["replica_hours"] * gpus, result.score["attainment"])


def in_processes(processes: int, progress: Callable[[str, int], Callable[[Result], None]]) -> Run:
    """A `Run` with that many processes; ``progress`` is told of a heading and its number of jobs."""
    return lambda heading, jobs: run_all(jobs, processes, progress(heading, len(jobs)))


def mean_score(runs: Sequence[Result]) -> dict[str, Any]:
    """The mean of every number over the runs of one setting."""
    return {name: _mean([run.score[name] for run in runs]) for name in runs[0].score}


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list | tuple):
        return [_mean(column) for column in zip(*values, strict=True)]
    return sum(values) / len(values)
