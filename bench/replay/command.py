"""The benchmark's command line.

``--quick`` checks invariants alone; ``--workload azure-wave`` tunes and scores every policy on one workload;
``--faults`` tries every fault of the metrics; ``--report`` writes the page's tables. What is known already is
not run again, so an interrupted night goes on where it stopped.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.replay import results, store
from bench.replay.experiments import MODEL, START_UPS, Case, Job, Result, run_all
from bench.replay.fault_runs import FAULTED, RUNS_PER_POLICY, fault_table
from bench.replay.method import carried_out
from bench.replay.picture import draw
from bench.replay.quick import violations
from bench.replay.report import PAGE, rewritten
from bench.replay.simulation import Queueing, Routing
from bench.replay.workloads import STANDARD, workload_names

FAULTS_ON = "steady"
EVERY = 20.0
"""Seconds between two lines of progress where there is no terminal for a bar."""

app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913 - one parameter per option
    *,
    quick: Annotated[bool, typer.Option(help="Check the invariants and write nothing.")] = False,
    faults: Annotated[bool, typer.Option(help="Only the faults of the metrics.")] = False,
    report: Annotated[bool, typer.Option(help="Only write the page's tables from the results.")] = False,
    workload: Annotated[list[str] | None, typer.Option(help="Only these workloads.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="Only these policies.")] = None,
    start_up: Annotated[list[int] | None, typer.Option(help="Seconds: 60, 240 (default), 600.")] = None,
    seeds: Annotated[int, typer.Option(help="Scored runs of each setting.", min=1)] = 5,
    routing: Annotated[
        Routing, typer.Option(help="How the gateway chooses a replica.")
    ] = Routing.LEAST_LOADED,
    queueing: Annotated[Queueing, typer.Option(help="Where requests wait.")] = Queueing.ENGINE,
    traces: Annotated[Path | None, typer.Option(help="Folder of traces that are not included.")] = None,
    model: Annotated[str, typer.Option(help="Replica model of the truth.")] = MODEL,
    calibrated_on: Annotated[
        str, typer.Option(help="Replica model behind targets and tuning; empty: the truth.")
    ] = "",
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = os.cpu_count() or 1,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = results.RESULTS,
) -> None:
    """Replay autoscalers on the same traffic."""
    store.pin()
    if quick:
        raise typer.Exit(_quick(jobs))
    if report:
        raise typer.Exit(_report(output))
    start_ups, known = start_up or [240], workload_names(traces)
    _check("--start-up", start_ups, list(START_UPS))
    _check("--workload", workload or [], known)
    chosen = [] if faults and not workload else workload or [name for name in STANDARD if name in known]
    for name, seconds in product(chosen, start_ups):
        one = Case(name, seconds, 0, routing, queueing, model, calibrated_on or model, traces)
        _measure([replace(one, seed=n) for n in range(seeds)], policy or [], jobs, output)
    if faults or not workload:
        _faults(policy or [], seeds, jobs, output)
    if output == results.RESULTS:
        _report(output)


def _check(option: str, given: Sequence[object], known: Sequence[object]) -> None:
    """Refuse what there is not."""
    for one in given:
        if one not in known:
            names = ", ".join(map(str, known))
            raise typer.BadParameter(f"{option} is one of {names}, not {one}; see --traces")


def _quick(processes: int) -> int:
    found = list(violations(Case(FAULTS_ON, start_up=60), processes))
    for violation in found:
        print(f"violated: {violation}", file=sys.stderr)
    if not found:
        print("all invariants hold")
    return 1 if found else 0


def _measure(cases: Sequence[Case], policies: Sequence[str], processes: int, output: Path) -> None:
    case, gpus = cases[0], results.gpus_of(cases[0].model)

    def run(heading: str, jobs: Sequence[Job]) -> list[Result]:
        with _progress(f"{case.workload}, {case.start_up} s, {heading}", len(jobs)) as done:
            return run_all(jobs, processes, done)

    outcome = carried_out(cases, policies, gpus, run)
    document = results.document(cases, outcome, command())
    path = output / results.name_of(case)
    results.write(path.with_suffix(".json"), document)
    draw(document, path.with_suffix(".svg"))
    print(f"wrote {path.with_suffix('.json').name} and {path.with_suffix('.svg').name}")


def _faults(policies: Sequence[str], seeds: int, processes: int, output: Path) -> None:
    cases = [Case(FAULTS_ON, seed=n) for n in range(seeds)]
    chosen = [name for name in FAULTED if not policies or name in policies]
    with _progress("faults", len(cases) * len(chosen) * RUNS_PER_POLICY) as done:
        rows = fault_table(cases, chosen, processes=processes, done=done)
    made = results.provenance(command(), chosen)
    document = {
        "workload": FAULTS_ON,
        "start_up_seconds": cases[0].start_up,
        "rows": rows,
        "provenance": made,
    }
    results.write(output / "replay-faults.json", results.rounded(document))


def _report(output: Path) -> int:
    PAGE.write_text(rewritten(PAGE.read_text(), output))
    print(f"wrote the tables of {PAGE.name}")
    return 0


def command() -> str:
    """The command line as anybody would repeat it: folders of this machine are left out."""
    arguments, hidden = [], False
    for argument in sys.argv[1:]:
        arguments.append("…" if hidden else argument)
        hidden = argument in {"--traces", "--output"}
    return shlex.join(["python", "-m", "bench.replay", *arguments])


@contextmanager
def _progress(heading: str, total: int) -> Iterator[Callable[[Result], None]]:
    """A bar; a line now and then where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = told = time.monotonic()
    count = 0
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(heading, total=total)

        def done(_: Result) -> None:
            nonlocal told, count
            count += 1
            progress.advance(bar)
            now = time.monotonic()
            if progress.disable and (now - told > EVERY or count == total):
                told = now
                print(f"{heading}: {count} of {total} after {now - began:.0f} s", file=sys.stderr, flush=True)

        yield done


if __name__ == "__main__":
    app()
