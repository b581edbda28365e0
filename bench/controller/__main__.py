"""The benchmark's command line: `python -m bench.controller --sizes 100,1000,10000`."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from bench.controller import bulk, fleet, phases, reaction, results, seed
from bench.controller.kubelets import Kubelets
from bench.controller.phases import LARGE, Bench, Say
from bench.controller.relay import Relay
from bench.controller.results import Figures
from testbed.access import PlaneError
from testbed.binaries import BuildError
from testbed.components import PlaneOptions
from testbed.nodes import create_nodes
from testbed.operator_access import RELEASE, grant, install_crds
from testbed.operator_process import OperatorError
from testbed.plane import Plane
from testbed.prometheus import PrometheusError

FAILURES = (PlaneError, BuildError, OperatorError, PrometheusError)
GPUS_PER_NODE = 128
"""Far more than a real node's: the operator watches no nodes, and the scheduler is not what is measured."""
LINE_SECONDS = 15.0
"""Between two lines of progress where there is no terminal."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.command()
def main(
    sizes: Annotated[str, typer.Option(help="ModelDeployments, with commas between.")] = "100,1000,10000",
    repeat: Annotated[int, typer.Option(min=1, help=f"Repetitions of sizes below {LARGE}.")] = 3,
    seconds: Annotated[float, typer.Option(min=10, help="How long quiet and tick look.")] = 60.0,
    samples: Annotated[int, typer.Option(min=0, help="Reactions to measure; 0 leaves them out.")] = 15,
    sow: Annotated[
        bool, typer.Option("--seed", help="Copy a small fleet in etcd instead of measuring create.")
    ] = False,
    scaling: Annotated[
        bool, typer.Option(help="Also measure tick and reaction: every model is switched to scaling.")
    ] = True,
    output: Annotated[Path, typer.Option(help="The JSON file to put the results into.")] = results.FILE,
) -> None:
    """Measure the operator on a real control plane, a fresh one for each repetition."""
    try:
        for size in [int(text) for text in sizes.split(",")]:
            times = 1 if size >= LARGE else repeat
            plan = Measuring(size, seconds, samples, sow, scaling)
            runs = [_run(plan, f"{number + 1}/{times}") for number in range(times)]
            entry = results.entry(size, size * fleet.REPLICAS, runs)
            results.save(entry, output)
            console.print(_table(entry))
    except FAILURES as error:
        console.print(f"[red]bench: {error}[/]")
        sys.exit(1)


class Measuring(NamedTuple):
    """What is measured of one size, as the options say."""

    size: int
    seconds: float
    samples: int
    sow: bool
    scaling: bool


def _run(plan: Measuring, which: str) -> dict[str, Figures]:
    """One repetition: every phase on one fresh plane."""
    size = plan.size
    with (
        _progress(f"{size} ModelDeployments, run {which}") as bar,
        _furnished(size, seed.ORIGINALS if plan.sow else size, bar) as (plane, kubeconfig),
    ):
        bench = Bench(plane, kubeconfig, size, plan.seconds, _sayer(bar))
        found: dict[str, Figures] = {}
        with Kubelets(plane, fleet.MANAGED):
            if plan.sow:
                _sow(bench, plane)
            else:
                _note(bar, found, "create", phases.create(bench))
            started = time.monotonic()
            with bench.operator() as operator:
                _note(bar, found, "restart", phases.restart(bench, operator, started))
                phases.settle(bench, operator)
                _note(bar, found, "quiet", phases.quiet(bench, operator))
            if plan.scaling:
                _scaling(bench, bar, found, plan.samples)
        return found


def _sow(bench: Bench, plane: Plane) -> None:
    """Let the operator make a few, copy those, and wait until it has taken the copies for its own."""
    phases.create(replace(bench, size=seed.ORIGINALS))
    bench.say("copying")
    etcd = f"http://127.0.0.1:{plane._layout.etcd_port}"  # noqa: SLF001 - nobody else goes behind the API server
    seed.put(etcd, seed.copies(plane, bench.size))
    started = time.monotonic()
    with bench.operator() as operator:
        phases.restart(bench, operator, started)
        phases.settle(bench, operator)


def _sayer(bar: Progress) -> Say:
    """What goes on: beside the bar in a terminal, else a line now and then."""
    last = 0.0

    def say(text: str) -> None:
        nonlocal last
        bar.update(bar.task_ids[0], what=text)
        if not bar.console.is_terminal and time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            bar.console.print(f"  {text}", highlight=False)

    return say


def _scaling(bench: Bench, bar: Progress, found: dict[str, Figures], samples: int) -> None:
    """The phases in which the fleet follows Prometheus; what fails in one leaves the others' figures."""
    try:
        _measure_scaling(bench, bar, found, samples)
    except FAILURES as error:
        bar.console.print(f"[red]not measured: {error}[/]")


def _measure_scaling(bench: Bench, bar: Progress, found: dict[str, Figures], samples: int) -> None:
    with phases.scaled(bench) as (exposition, prometheus):
        with phases.scaling_operator(bench, prometheus.url) as operator:
            _note(bar, found, "tick", phases.tick(bench, operator))
        if samples:
            with Relay(prometheus.url) as relay, phases.scaling_operator(bench, relay.url):
                figures = reaction.measure(bench, exposition, relay, prometheus.url, samples)
                _note(bar, found, "reaction", figures)


@contextmanager
def _furnished(size: int, made: int, bar: Progress) -> Iterator[tuple[Plane, Path]]:
    """A fresh plane with nodes for `size` and `made` ModelDeployments, and all that the operator needs."""
    bar.update(bar.task_ids[0], what="starting the control plane")
    with Plane.start(options=PlaneOptions.large()) as plane:
        try:
            install_crds(plane)
            # Room for scaling out, and for the surge that nobody asks for.
            create_nodes(plane, size * fleet.MOST_REPLICAS // GPUS_PER_NODE + 2, gpus=GPUS_PER_NODE)
            system = f"{RELEASE}-system"
            for namespace in (system, *fleet.namespaces()):
                plane.kubectl("create", "namespace", namespace)
            kubeconfig = grant(plane, system)
            created = bar.add_task("objects", total=made, what="")
            bulk.send_all(plane, fleet.creations(made), lambda: bar.advance(created))
            bar.remove_task(created)
            yield plane, kubeconfig
        except BaseException:
            _keep_logs(plane)
            raise


def _keep_logs(plane: Plane) -> None:
    """Save what explains a failure before the plane's folder goes away."""
    where = Path("out") / "bench-controller"
    where.mkdir(parents=True, exist_ok=True)
    for log in (plane.directory / "operator.log", *(plane.directory / "logs").glob("*.log")):
        if log.exists():
            shutil.copy(log, where)
    console.print(f"logs are in {where}")


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as bar:
        bar.add_task(title, total=5, what="")
        yield bar


def _note(bar: Progress, found: dict[str, Figures], phase: str, figures: Figures) -> None:
    found[phase] = figures
    bar.advance(bar.task_ids[0])
    bar.console.print(f"[bold]{phase}[/] {figures}", highlight=False)


def _table(entry: Figures) -> Table:
    """The goals of one size."""
    table = Table(title=f"{entry['model_deployments']} ModelDeployments, {entry['pods']} pods")
    for column in ("goal", "limit", "worst", "share", ""):
        table.add_column(column)
    for goal in entry["goals"]:
        share = "" if goal["share_of_limit"] is None else f"{goal['share_of_limit']:.0%}"
        verdict = "[green]met[/]" if goal["met"] else "[red]missed[/]"
        table.add_row(goal["goal"], f"{goal['limit']:g}", f"{goal['worst']:g}", share, verdict)
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench.controller")
