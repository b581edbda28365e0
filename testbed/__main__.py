"""The testbed's command line: `python -m testbed build | up | shell | demo`.

One function per command; what a command needs is imported when it runs, so that `build` works before anything
else does.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed import binaries

if TYPE_CHECKING:
    from testbed.plane import Plane

app = typer.Typer(
    help="A real Kubernetes control plane with simulated GPU nodes, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SCRAPE_INTERVAL = "2s"
"""So that one sees what happens; clusters usually have 15 s or 30 s."""

Nodes = Annotated[int, typer.Option(min=0, help="GPU nodes (8 GPUs each).")]


@app.command()
def build() -> None:
    """Build every program into the user's cache: about 15 minutes once, then nothing."""
    try:
        paths = binaries.ensure_all()
    except binaries.BuildError as error:
        print(f"testbed: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    for path in paths.values():
        print(path)


@app.command()
def up(nodes: Nodes = 4) -> None:
    """Start a plane with everything that a fleet needs, print how to use it, and wait for Ctrl-C."""
    with _testbed(nodes) as environment:
        for name in _SHOWN:
            print(f"export {name}={shlex.quote(environment[name])}", flush=True)
        print("# Ctrl-C ends it", file=sys.stderr, flush=True)
        _wait_for_interrupt()


@app.command()
def shell(nodes: Nodes = 4) -> None:
    """Start the same, then your shell with kubectl on PATH and KUBECONFIG set; it ends with the shell."""
    with _testbed(nodes) as environment:
        print(_BANNER.format(nodes=nodes), flush=True)
        # Ctrl-C is for what runs in the shell. A handler, since the shell would inherit SIG_IGN.
        signal.signal(signal.SIGINT, lambda *_: None)
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment, check=False)
    print("testbed: ended; nothing is left behind", file=sys.stderr)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def demo(context: typer.Context) -> None:
    """Play a production trace at a fleet that Stoker scales, and show it live."""
    from testbed import demo as story  # noqa: PLC0415 - plots and live views are slow to import

    raise typer.Exit(story.main(context.args))


_SHOWN = ("KUBECONFIG", "PROMETHEUS_URL", "STOKER_LOG", "PATH")

_BANNER = """
A Kubernetes control plane with {nodes} simulated GPU nodes, and Stoker at work in it.

  kubectl get nodes                                       the nodes: 8 GPUs each
  kubectl apply -f manifests/samples/six-lines.yaml       a fleet
  kubectl get mdep                                        how it is
  docs/tutorial/first-fleet.md                            what to do next

Prometheus answers at $PROMETHEUS_URL, the operator logs to $STOKER_LOG. `exit` ends everything.
"""


@contextmanager
def _testbed(nodes: int) -> Iterator[dict[str, str]]:
    """Run a plane with everything that a fleet needs; yield the environment in which to use it."""
    from testbed.access import PlaneError  # noqa: PLC0415 - `build` needs none of it
    from testbed.engines import EngineFleetError  # noqa: PLC0415
    from testbed.operator_process import OperatorError  # noqa: PLC0415
    from testbed.plane import Plane  # noqa: PLC0415
    from testbed.prometheus import PrometheusError  # noqa: PLC0415

    programs = binaries.ensure_all()
    try:
        with ExitStack() as stack:
            print("testbed: starting the control plane", file=sys.stderr, flush=True)
            plane = stack.enter_context(Plane.start())
            prometheus_url, log = _furnish(stack, plane, nodes)
            yield _environment(plane, programs.values()) | {
                "PROMETHEUS_URL": prometheus_url,
                "STOKER_LOG": str(log),
            }
    except (PlaneError, PrometheusError, OperatorError, EngineFleetError) as error:
        print(f"testbed: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _furnish(stack: ExitStack, plane: "Plane", nodes: int) -> tuple[str, Path]:
    """Start what a fleet needs; return the address of Prometheus and the operator's log.

    The operator has the ServiceAccount and the roles of its chart, as where it is installed.
    """
    from testbed.engines import EngineFleet  # noqa: PLC0415 - as above
    from testbed.nodes import create_nodes  # noqa: PLC0415
    from testbed.operator_access import RELEASE, grant, install_crds  # noqa: PLC0415
    from testbed.operator_process import Operator  # noqa: PLC0415
    from testbed.prometheus import Prometheus  # noqa: PLC0415

    print(f"testbed: {nodes} GPU nodes, Prometheus, engines, the operator", file=sys.stderr, flush=True)
    create_nodes(plane, nodes)
    install_crds(plane)
    directory, namespace = plane.directory, f"{RELEASE}-system"
    prometheus = stack.enter_context(
        Prometheus.start(directory / "prometheus", plane, scrape_interval=SCRAPE_INTERVAL)
    )
    stack.enter_context(EngineFleet(plane.kubeconfig, log=directory / "engines.log"))
    plane.kubectl("create", "namespace", namespace)
    operator = Operator.start(directory, grant(plane, namespace), prometheus_url=prometheus.url)
    stack.enter_context(operator)
    return prometheus.url, operator.log


def _environment(plane: "Plane", programs: Iterable[Path]) -> dict[str, str]:
    """The user's environment: the plane's kubectl first, and this Python for `python -m testbed.traffic`."""
    folders = dict.fromkeys([*(str(path.parent) for path in programs), str(Path(sys.executable).parent)])
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    return {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "PATH": path}


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("testbed: ending", file=sys.stderr)


if __name__ == "__main__":
    app(prog_name="python -m testbed")
