"""All simulated engines of a plane in one process, and how to start, ask and end that process.

Run as ``python -m testbed.engines --kubeconfig FILE``: it follows the pods of the API server and serves each
at its own address. It prints one JSON line, ``{"control": URL}``, when it is up. The control port answers

- ``GET /testbed/stats``: what every engine does and did (`Engines.stats`);
- ``POST /testbed/faults`` ``{"pods": ["namespace/name"], "metrics": "nan"}``: let metrics misbehave
  (`MetricsFault`; no pods = all; ``none`` ends it).

`EngineFleet` is the same from Python. The process ends with whoever started it, `kill -9` included: it
watches a pipe that only its parent holds.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from testbed.engine import MetricsFault
from testbed.engine_pods import EngineOptions, Engines
from testbed.kubewatch import KubeReader
from testbed.pods import KubePods
from testbed.replica_models import MODELS

__all__ = ["EngineFleet", "EngineFleetError", "control_app", "main"]

SELECTOR = "stoker.dev/model-deployment"  # pods that have this label, whatever its value

_STARTUP_SECONDS = 30
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class _Where:
    """Which pods to serve and where to be controlled."""

    kubeconfig: Path
    namespace: str
    selector: str
    control_port: int
    stats_file: Path | None


def control_app(engines: Engines) -> web.Application:
    """The control port."""

    async def stats(_request: web.Request) -> web.Response:
        return web.json_response(engines.stats())

    async def faults(request: web.Request) -> web.Response:
        body = await request.json()
        try:
            fault = MetricsFault(body.get("metrics"))
        except ValueError:
            modes = ", ".join(MetricsFault)
            return web.json_response({"error": f"metrics must be one of {modes}"}, status=400)
        engines.inject(list(body.get("pods") or ()), fault)
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/testbed/stats", stats)
    app.router.add_post("/testbed/faults", faults)
    return app


async def _serve(where: _Where, options: EngineOptions, parent: int | None) -> None:
    engines = Engines(options)
    runner = web.AppRunner(control_app(engines), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", where.control_port)
    await site.start()
    stop = _stop_event(parent)
    try:
        async with KubeReader(where.kubeconfig) as reader:
            pods = KubePods(reader, namespace=where.namespace, selector=where.selector)
            following = asyncio.create_task(engines.follow(pods))
            stopping = asyncio.create_task(stop.wait())
            print(json.dumps({"control": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
            await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()  # a bug in following is this program's end, loudly
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
    finally:
        engines.close()
        if where.stats_file is not None:
            where.stats_file.write_text(json.dumps(engines.stats(), indent=2) + "\n")
        await runner.cleanup()


def _stop_event(parent: int | None) -> asyncio.Event:
    """Set on SIGTERM, SIGINT, and when the other end of the pipe `parent` is closed."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent is not None:
        # Nothing is ever written: that it can be read means that it was closed.
        loop.add_reader(parent, stop.set)
    return stop


def _raise_file_limit() -> None:
    # A listener per pod and a connection per stream soon pass the usual 1,024.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.engines", description=(__doc__ or "").split("\n")[0]
    )
    defaults = EngineOptions()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", default="", help="only this namespace; default: all")
    parser.add_argument(
        "--selector", default=SELECTOR, help="label selector of engine pods (default: %(default)s)"
    )
    parser.add_argument("--model", default=defaults.model, choices=MODELS, help="default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=defaults.port, help="of pods that name none (%(default)s)"
    )
    parser.add_argument(
        "--stream-interval", type=int, default=defaults.stream_interval, help="tokens per chunk"
    )
    parser.add_argument(
        "--tick", type=float, default=defaults.tick, help="seconds between looks at busy engines"
    )
    parser.add_argument("--control-port", type=int, default=0, help="default: a free one, printed")
    parser.add_argument("--stats-file", type=Path, help="write the statistics here at the end")
    parser.add_argument(
        "--parent-pipe", type=int, help="end when this file descriptor is closed at its other end"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    where = _Where(given.kubeconfig, given.namespace, given.selector, given.control_port, given.stats_file)
    _raise_file_limit()
    options = EngineOptions(given.model, given.port, given.stream_interval, given.tick)
    asyncio.run(_serve(where, options, given.parent_pipe))


class EngineFleetError(Exception):
    """The process of the engines did not start or does not answer."""


class EngineFleet:
    """The simulated engines of a plane, in a process of their own.

    Use as a context manager, or `start` and `stop`.

    Args:
        kubeconfig: of the plane.
        options: defaults for pods.
        namespace: only this one; empty = all.
        selector: label selector of engine pods.
        log: file for the process's log; default: this process's standard error.
    """

    def __init__(
        self,
        kubeconfig: Path,
        options: EngineOptions | None = None,
        *,
        namespace: str = "",
        selector: str = SELECTOR,
        log: Path | None = None,
    ) -> None:
        options = options or EngineOptions()
        self._arguments = [
            f"--kubeconfig={kubeconfig}",
            f"--namespace={namespace}",
            f"--selector={selector}",
            f"--model={options.model}",
            f"--port={options.port}",
            f"--stream-interval={options.stream_interval}",
            f"--tick={options.tick}",
        ]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._pipe: int | None = None
        self._control = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._running().pid

    def start(self) -> None:
        """Start the process and wait until it is up.

        Raises:
            EngineFleetError: it ended at once; its log says why.
        """
        theirs, self._pipe = os.pipe()
        command = [sys.executable, "-m", "testbed.engines", *self._arguments, f"--parent-pipe={theirs}"]
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, theirs)
            log = stack.enter_context(self._log.open("a")) if self._log else None
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(theirs,),
                env={**os.environ, "PYTHONPATH": path},
                text=True,
            )
        self._control = self._announced(self._process)

    def stop(self) -> None:
        """End the process; streams under way are cut."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def stats(self) -> dict[str, Any]:
        """See `Engines.stats`."""
        answer: dict[str, Any] = self._ask("/testbed/stats")
        return answer

    def break_metrics(self, fault: MetricsFault, *pods: str) -> None:
        """Let the metrics of pods (``namespace/name``; none = all) misbehave; `MetricsFault.NONE` ends it."""
        self._ask("/testbed/faults", {"pods": list(pods), "metrics": fault.value})

    def _announced(self, process: subprocess.Popen[str]) -> str:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            self.stop()
            where = self._log or "standard error"
            raise EngineFleetError(f"the process of the simulated engines ended at once; see {where}")
        return str(json.loads(line)["control"])

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        self._running()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._control + path, data, {"Content-Type": "application/json"})  # noqa: S310 - our own http URL
        with urllib.request.urlopen(request, timeout=_STARTUP_SECONDS) as answer:  # noqa: S310 - likewise
            return json.load(answer)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            raise EngineFleetError("the process of the simulated engines is not running")
        return self._process


if __name__ == "__main__":
    main()
