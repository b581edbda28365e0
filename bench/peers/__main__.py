"""The command line: `python -m bench.peers reaction | faults | confirm | all | predict | tables | build`."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.controller.results import Figures
from bench.peers import confirm as confirmation
from bench.peers import faults as failing
from bench.peers import ramp, results, tables
from bench.peers import reaction as reacting
from bench.peers.fleets import BOTH, Contender, Side
from testbed.access import PlaneError
from testbed.binaries import BuildError, ensure_all
from testbed.engines import EngineFleetError
from testbed.keda import KEDA_PROGRAMS, KedaError
from testbed.operator_process import OperatorError
from testbed.prometheus import PrometheusError

FAILURES = (PlaneError, BuildError, OperatorError, PrometheusError, KedaError, EngineFleetError)

app = typer.Typer(
    help="Stoker beside the real KEDA, on one control plane, in real time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Output = Annotated[Path, typer.Option(help="The JSON file to put the results into.")]
Alone = Annotated[
    bool,
    typer.Option("--without-keda", help="Stoker alone."),
]
Seed = Annotated[int, typer.Option(help="Of the traffic.")]
Samples = Annotated[int, typer.Option(min=0, help="Of each step; 0: as many as are meant to be checked in.")]

Fleets = Annotated[int, typer.Option(min=0, help="In each row; 0: as many as are meant to be checked in.")]


@app.command()
def build() -> None:
    """Build KEDA: about 10 minutes once, then nothing."""
    _guarded(lambda: ensure_all(KEDA_PROGRAMS))


@app.command()
def reaction(output: Output = results.FILE, samples: Samples = 0, alone: Alone = False) -> None:
    """Measure the time from a demand in Prometheus to pods."""
    _section("reaction", output, lambda: reacting.measure(reacting.steps(samples), _sides(alone)))


@app.command()
def faults(output: Output = results.FILE, fleets: Fleets = 0, alone: Alone = False) -> None:
    """Let metrics and operators fail, and count who loses replicas."""
    _section("faults", output, lambda: failing.measure(failing.rows(fleets, _sides(alone))))


@app.command()
def confirm(output: Output = results.FILE, seed: Seed = 0, alone: Alone = False) -> None:
    """Play a ramp in real time, and put it beside the replay's prediction."""
    _section("ramp", output, lambda: _confirmed(seed, _contenders(alone)))


@app.command()
def predict(seed: Seed = 0, alone: Alone = False) -> None:
    """Print the prediction alone: a matter of seconds."""
    plan = ramp.Ramp(seed=seed)
    print(f"target: {plan.target} requests in flight per replica; {len(plan.arrivals)} requests")
    for contender in _contenders(alone):
        print(contender.name, confirmation.predict(plan, contender))


@app.command("tables")
def show(output: Output = results.FILE) -> None:
    """Print what is in the file as the tables of the documentation."""
    for name, section in json.loads(output.read_text())["sections"].items():
        print(f"{tables.TABLES[name](section)}\n")


@app.command("all")
def everything(output: Output = results.FILE) -> None:
    """Measure all of it: about 40 minutes."""
    reaction(output)
    faults(output)
    confirm(output)


def _sides(alone: bool) -> frozenset[Side]:
    return frozenset({Side.STOKER}) if alone else BOTH


def _contenders(alone: bool) -> Sequence[Contender]:
    return [one for one in ramp.CONTENDERS if one.side in _sides(alone)]


def _confirmed(seed: int, contenders: Sequence[Contender]) -> Figures:
    plan = ramp.Ramp(seed=seed)
    predictions = {contender: confirmation.predict(plan, contender) for contender in contenders}
    runs, machine = ramp.measure(plan, contenders)
    return confirmation.report(plan, runs, predictions, machine)


def _section(name: str, output: Path, measure: Callable[[], Figures]) -> None:
    _guarded(lambda: results.save(name, measure(), output))
    print(f"{name}: written to {output}")


def _guarded(work: Callable[[], object]) -> None:
    try:
        work()
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app(prog_name="python -m bench.peers")
