"""`make demo`: a fleet that follows a recorded production trace, on a real control plane.

A real API server, controller manager, scheduler and Prometheus run on this machine; the operator runs
under the ServiceAccount and the roles of its chart. Only the nodes and the arithmetic inside the engines are
simulated. The exit code says whether the story happened (`story.checks`).
"""

import argparse
import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.syntax import Syntax

from testbed.access import Access, PlaneError
from testbed.demo import view
from testbed.demo.picture import draw
from testbed.demo.recorder import Recorder
from testbed.demo.story import DURATION, STAGES, Record
from testbed.engines import EngineFleet, EngineFleetError
from testbed.gateway import Gateway, ServicePods
from testbed.kubewatch import KubeReader
from testbed.nodes import create_nodes
from testbed.operator_access import grant, install_crds
from testbed.operator_process import Operator, OperatorError
from testbed.plane import Plane
from testbed.prometheus import Prometheus, PrometheusError
from testbed.trace import load_azure, stage
from testbed.traffic import Traffic, TrafficOptions
from testbed.traffic_report import Result

MANIFEST = Path(__file__).with_name("chat.yaml")
NAMESPACE = "default"
NODES = 4
SETTLE_SECONDS = 90.0
"""After the last arrival: for the last answers, and for the fleet to become small again."""
PLAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Options:
    output: Path
    plain: bool


def main(arguments: Sequence[str]) -> int:
    """Run the demo; 0 when the story happened, 1 when it did not, 130 after Ctrl-C."""
    options = _options(arguments)
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        record = _run(console, options)
    except (PlaneError, PrometheusError, OperatorError, EngineFleetError) as error:
        console.print(f"[bold red]The demo could not be played:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("ended")
        return 130
    happened = view.show_summary(console, record)
    console.print(f"\nPicture and kubectl's words at the peak: {options.output}/")
    console.print(f"The demo took {time.monotonic() - started:.0f} s.")
    return 0 if happened else 1


def _options(arguments: Sequence[str]) -> _Options:
    parser = argparse.ArgumentParser(prog="python -m testbed demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the picture and texts")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parsed = parser.parse_args(list(arguments))
    return _Options(parsed.output, parsed.plain)


def _run(console: Console, options: _Options) -> Record:
    directory = Path(tempfile.mkdtemp(prefix="stoker-demo-"))
    try:
        with _step(console, "control plane: etcd, API server, controllers, scheduler, kwok"):
            plane = Plane.start(directory / "plane")
        with plane:
            return _on(console, options, plane, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _on(console: Console, options: _Options, plane: Plane, directory: Path) -> Record:
    with contextlib.ExitStack() as stack:
        with _step(console, f"{NODES} nodes with 8 H100 each, and the CRD"):
            create_nodes(plane, NODES)
            install_crds(plane)
        with _step(console, "Prometheus, scraping every 2 s"):
            prometheus = stack.enter_context(
                Prometheus.start(directory / "prometheus", plane, scrape_interval="2s")
            )
        with _step(console, "simulated engines and the operator"):
            stack.enter_context(EngineFleet(plane.kubeconfig, log=directory / "engines.log"))
            kubeconfig = grant(plane, NAMESPACE)
            stack.enter_context(Operator.start(directory, kubeconfig, prometheus_url=prometheus.url))
        console.print(Syntax(MANIFEST.read_text(), "yaml", background_color="default"))
        plane.kubectl("apply", "-f", str(MANIFEST))
        with _step(console, "kubectl wait --for=condition=Ready modeldeployment/chat"):
            plane.kubectl("wait", "--for=condition=Ready", "modeldeployment/chat", "--timeout=120s")
        return asyncio.run(_play(console, options, plane))


@contextlib.contextmanager
def _step(console: Console, text: str) -> Iterator[None]:
    started = time.monotonic()
    console.print(f"[dim]…[/] {text}", end="\r" if console.is_terminal else "\n")
    yield
    console.print(f"[green]✓[/] {text} [dim]({time.monotonic() - started:.0f} s)[/]")


async def _play(console: Console, options: _Options, plane: Plane) -> Record:
    """Play the trace, record and show it."""
    requests = stage(load_azure(), STAGES, DURATION)
    console.print(
        f"Playing {len(requests):,} requests of the Azure conversation trace: "
        f"{', '.join(f'{s.copies}× from {s.start:.0f} s' for s in STAGES)}"
    )
    name = yaml.safe_load(MANIFEST.read_text())["metadata"]["name"]
    async with KubeReader(plane.kubeconfig) as reader:
        gateway = Gateway()
        traffic = Traffic(requests, gateway, TrafficOptions(model=name))
        recorder = Recorder(plane, NAMESPACE, name, traffic)
        recorder.record.ready = True
        source = ServicePods(reader, namespace=NAMESPACE, service=name)
        async with _beside(gateway.follow(source), recorder.run(), recorder.measure_lag()):
            playing = asyncio.create_task(traffic.run())
            await _show(console, options, recorder, playing, plane)
    recorder.record.results = list(traffic.results)
    draw(recorder.record, _capacity(), options.output / "demo.png")
    return recorder.record


def _capacity() -> float:
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    return float(spec["accelerators"][0]["tokensPerSecond"] * spec["scaling"]["targets"]["utilization"])


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(
    console: Console,
    options: _Options,
    recorder: Recorder,
    playing: asyncio.Task[list[Result]],
    plane: Access,
) -> None:
    """Show the run until it has ended and the fleet is small again."""
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal and not options.plain:
            live = stack.enter_context(Live(console=console, refresh_per_second=4))
        peak, printed, deadline = 0, 0.0, None
        while deadline is None or (asyncio.get_running_loop().time() < deadline and not _small(recorder)):
            await asyncio.sleep(0.5)
            record = recorder.record
            if live is not None:
                live.update(view.live(record, DURATION))
            elif record.moments and record.moments[-1].at - printed >= PLAIN_SECONDS:
                printed = record.moments[-1].at
                console.print(
                    view.line(record.moments[-1], record.decisions[-1] if record.decisions else None),
                    soft_wrap=True,
                )
            serving = record.moments[-1].serving if record.moments else 0
            if serving > peak:
                peak = serving
                await asyncio.to_thread(_write_kubectl, plane, options.output)
            if deadline is None and playing.done():
                playing.result()
                deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS


def _small(recorder: Recorder) -> bool:
    moments = recorder.record.moments
    last = moments[-1]
    return last.serving <= moments[0].wanted and sum(last.phases.values()) <= moments[0].wanted


def _write_kubectl(plane: Access, output: Path) -> None:
    """What kubectl says at the peak, for whoever reads it afterwards."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "get.txt").write_text(plane.kubectl("get", "modeldeployment", "-o", "wide"))
    (output / "describe.txt").write_text(plane.kubectl("describe", "modeldeployment", "chat"))
