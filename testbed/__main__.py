"""The testbed's command line: `python -m testbed build | up | shell | demo`.

One function per command; what a command needs is imported when it runs, so that `build` works before anything
else does.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from testbed import binaries

app = typer.Typer(
    help="A real Kubernetes control plane with simulated GPU nodes, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
    """Start a plane with GPU nodes and Prometheus, print how to use it, and wait for Ctrl-C."""
    with _testbed(nodes) as environment:
        for name in ("KUBECONFIG", "PROMETHEUS_URL", "PATH"):
            print(f"export {name}={environment[name]}", flush=True)
        print("# Ctrl-C ends it", file=sys.stderr, flush=True)
        _wait_for_interrupt()


@app.command()
def shell(nodes: Nodes = 4) -> None:
    """Start the same, then your shell with kubectl on PATH and KUBECONFIG set; it ends with the shell."""
    with _testbed(nodes) as environment:
        print("testbed: try `kubectl get nodes`; Prometheus is at $PROMETHEUS_URL; `exit` ends all of it")
        # Ctrl-C is for what runs in the shell. A handler, since the shell would inherit SIG_IGN.
        signal.signal(signal.SIGINT, lambda *_: None)
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment, check=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def demo(context: typer.Context) -> None:
    """Play a production trace at a fleet that Stoker scales, and show it live."""
    from testbed import demo as story  # noqa: PLC0415 - plots and live views are slow to import

    raise typer.Exit(story.main(context.args))


@contextmanager
def _testbed(nodes: int) -> Iterator[dict[str, str]]:
    """Run a plane, nodes and Prometheus; yield the environment in which to use them."""
    from testbed.access import PlaneError  # noqa: PLC0415 - `build` needs none of it
    from testbed.nodes import create_nodes  # noqa: PLC0415
    from testbed.plane import Plane  # noqa: PLC0415
    from testbed.prometheus import Prometheus, PrometheusError  # noqa: PLC0415

    programs = binaries.ensure_all()
    try:
        with Plane.start() as plane:
            create_nodes(plane, nodes)
            with Prometheus.start(plane.directory / "prometheus", plane) as prometheus:
                folders = dict.fromkeys(str(path.parent) for path in programs.values())
                yield {
                    **os.environ,
                    "KUBECONFIG": str(plane.kubeconfig),
                    "PROMETHEUS_URL": prometheus.url,
                    "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")]),
                }
    except (PlaneError, PrometheusError) as error:
        print(f"testbed: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("testbed: ending", file=sys.stderr)


if __name__ == "__main__":
    app(prog_name="python -m testbed")
