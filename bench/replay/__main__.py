"""The benchmark's command line.

``python -m bench.replay --quick`` checks invariants alone; ``--workload azure-wave`` replays one workload
with every setting of every policy, ``--faults`` every fault of the metrics; without options, all of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.replay.candidates import CANDIDATES
from bench.replay.experiments import (
    GPUS_PER_REPLICA,
    MODEL,
    START_UPS,
    Case,
    Result,
    cost_at,
    fault_table,
    prepare,
    run_all,
    sweep,
)
from bench.replay.picture import draw
from bench.replay.quick import violations
from bench.replay.simulation import Routing
from bench.replay.workloads import WORKLOADS

RESULTS = Path(__file__).parents[1] / "results"
COMPARED_AT = (0.95, 0.98, 0.99, 0.995)
FAULTS_ON = "steady"

app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913 - one parameter per option
    *,
    quick: Annotated[bool, typer.Option(help="Check the invariants and write nothing.")] = False,
    faults: Annotated[bool, typer.Option(help="Only the faults of the metrics.")] = False,
    workload: Annotated[list[str] | None, typer.Option(help="Only these workloads.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="Only these policies.")] = None,
    start_up: Annotated[int, typer.Option(help=f"Seconds: {', '.join(map(str, START_UPS))}.")] = 240,
    seeds: Annotated[int, typer.Option(help="Runs of each setting.")] = 1,
    routing: Annotated[
        Routing, typer.Option(help="How the gateway chooses a replica.")
    ] = Routing.LEAST_LOADED,
    traces: Annotated[Path | None, typer.Option(help="Folder of traces that are not included.")] = None,
    model: Annotated[str, typer.Option(help="Replica model of the truth.")] = MODEL,
    calibrated_on: Annotated[str, typer.Option(help="Replica model behind the targets.")] = MODEL,
    jobs: Annotated[int, typer.Option(help="Processes.")] = max(1, (os.cpu_count() or 2) - 1),
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Replay autoscalers on the same traffic."""
    if start_up not in START_UPS:
        raise typer.BadParameter(f"--start-up is one of {', '.join(map(str, START_UPS))}, not {start_up}")
    if quick:
        raise typer.Exit(_quick())
    output.mkdir(parents=True, exist_ok=True)
    for name in [] if faults else workload or [w for w in WORKLOADS if w != FAULTS_ON]:
        cases = [Case(name, start_up, n, routing, model, calibrated_on, traces) for n in range(seeds)]
        _measure(cases, policy or [], jobs, output)
    if faults or not workload:
        _faults(output)


def _quick() -> int:
    found = list(violations(Case(FAULTS_ON, start_up=60)))
    for violation in found:
        print(f"violated: {violation}", file=sys.stderr)
    if not found:
        print("all invariants hold")
    return 1 if found else 0


def _measure(cases: Sequence[Case], policies: Sequence[str], processes: int, output: Path) -> None:
    jobs = [job for case in cases for job in sweep(case, policies)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(cases[0].workload, total=len(jobs))
        results = run_all(jobs, processes, lambda _: progress.advance(bar))
    _write(cases, results, output)


def _write(cases: Sequence[Case], results: Sequence[Result], output: Path) -> None:
    case, prepared = cases[0], prepare(cases[0])
    curves = _curves(results)
    name = f"replay-{case.workload}-{case.start_up}s"
    name += "" if case.routing is Routing.LEAST_LOADED else f"-{case.routing}"
    name += "" if case.model == MODEL else f"-{case.model}"
    name += "" if case.calibrated_on == MODEL else f"-calibrated-on-{case.calibrated_on}"
    document = {
        "workload": case.workload,
        "description": prepared.workload.description,
        "start_up_seconds": case.start_up,
        "routing": case.routing,
        "model": case.model,
        "calibrated_on": case.calibrated_on,
        "gpus_per_replica": GPUS_PER_REPLICA,
        "seeds": len(cases),
        "initial_replicas": prepared.setting.initial,
        "max_replicas": prepared.setting.maximum,
        "capacity_of_a_replica": prepared.context.capacity.as_json(),
        "gpu_hours_at_attainment": _costs(curves),
        "runs": [_run(result) for result in results],
    }
    _dump(output / f"{name}.json", document)
    title = f"{prepared.workload.description}\nstart-up {case.start_up} s, routing {case.routing}"
    draw(title, curves, output / f"{name}.svg")
    _table(curves)


def _run(result: Result) -> dict[str, Any]:
    job = result.job
    head: dict[str, Any] = {"policy": job.policy, "parameter": job.parameter, "seed": job.case.seed}
    return {**head, **_rounded(result.score)}


def _rounded(value: Any) -> Any:
    """Five digits after the point: more is noise, and results are compared line by line."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _curves(results: Sequence[Result]) -> dict[str, list[tuple[float, float]]]:
    """(GPU-hours, attainment) of each setting, the mean over seeds."""
    found: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for result in results:
        score = result.score
        point = (score["replica_hours"] * GPUS_PER_REPLICA, score["attainment"])
        found[result.job.policy, result.job.parameter].append(point)
    curves: dict[str, list[tuple[float, float]]] = {}
    for candidate in CANDIDATES:
        for setting in candidate.settings:
            if points := found.get((candidate.name, float(setting))):
                mean = tuple(sum(values) / len(points) for values in zip(*points, strict=True))
                curves.setdefault(candidate.name, []).append((mean[0], mean[1]))
    return curves


def _costs(curves: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {f"{at}": _rounded(cost_at(points, at)) for at in COMPARED_AT}
        for name, points in curves.items()
    }


def _table(curves: dict[str, list[tuple[float, float]]]) -> None:
    print(
        f"{'GPU-hours at attainment':44}" + "".join(f"{at:>9.1%}" for at in COMPARED_AT) + "   best reached"
    )
    for name, points in curves.items():
        costs = [cost_at(points, at) for at in COMPARED_AT]
        shown = "".join(f"{'-' if cost is None else f'{cost:.1f}':>9}" for cost in costs)
        hours, reached = max(points, key=lambda point: (point[1], -point[0]))
        print(f"{name:44}{shown}   {reached:.2%} at {hours:.1f}")


def _faults(output: Path) -> None:
    case = Case(FAULTS_ON)
    rows = fault_table(case)
    document = {"workload": FAULTS_ON, "start_up_seconds": case.start_up, "rows": _rounded(rows)}
    _dump(output / "replay-faults.json", document)
    for row in rows:
        print(
            f"{row['policy']:28}{row['fault']:18}{row['wrong_way_moves']:3} wrong moves,"
            f"{row['replicas_lost']:3} replicas lost, attainment {row['attainment']:.2%}"
            f" ({row['attainment_without']:.2%} without)"
        )


def _dump(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    app()
