"""One operator process: the parts, put together, from start to end.

Rules of this module:

* Everything that is opened is closed, in reverse order, however the process ends.
* SIGTERM and SIGINT stop deciding first and let the writes under way finish.
* What must not fail silently ends the process with a message and a non-zero code: Kubernetes starts it again.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from stoker import __version__
from stoker.clients.engine import EngineClient
from stoker.clients.errors import ClientError
from stoker.clients.kube import Kube, Limits
from stoker.clients.prometheus import Prometheus, access_from
from stoker.controller.executor import Executor
from stoker.controller.gather import Gatherer
from stoker.controller.history import Historian
from stoker.controller.loop import Controller, Intervals
from stoker.controller.store import Store
from stoker.controller.sweep import Sweeper
from stoker.handlers import Deliver, Watcher
from stoker.settings import Settings
from stoker.telemetry.events import Recorder
from stoker.telemetry.health import HealthState, beat
from stoker.telemetry.logs import configure
from stoker.telemetry.metrics import FleetRow, Metrics
from stoker.telemetry.observer import Observer
from stoker.telemetry.server import Server

HISTORY_SECONDS = 60.0
"""Time-out of a query for a day of the whole fleet: nobody waits for it."""

USER_QUERY_BYTES = 256 * 1024
"""Longest answer to a query of a user's: one element is expected, some hundred bytes."""

log = structlog.get_logger(__name__)


class UnusableAddressError(Exception):
    """The address for metrics and health cannot be listened on."""


async def run(settings: Settings, unknown: Mapping[str, str | None]) -> int:
    """Run the operator until a signal or a failure ends it.

    Args:
        settings: From the environment.
        unknown: Variables that look like settings and are none, each with the one that was probably meant.

    Returns:
        The process's exit code: 0 after SIGTERM or SIGINT.
    """
    configure(settings.log_format, settings.log_level)
    for name, meant in unknown.items():
        log.warning("unknown setting", variable=name, meant=meant)
    gc.set_threshold(50_000, 50, 100)  # long-lived records by the ten thousand: look at the young ones alone
    log.info("starting", version=__version__, namespaces=settings.namespaces or "all")
    try:
        async with AsyncExitStack() as stack:
            operator = await _assemble(stack, settings)
            return await _until_stopped(operator)
    except (ClientError, UnusableAddressError) as error:
        log.error("cannot start", error=str(error))  # noqa: TRY400 - the message says it all
        return 1


@dataclass(frozen=True, slots=True)
class _Operator:
    """The parts that run."""

    controller: Controller
    watcher: Watcher
    recorder: Recorder
    health: HealthState
    metrics: Metrics


async def _assemble(stack: AsyncExitStack, settings: Settings) -> _Operator:
    """Open the connections and put the parts together."""
    metrics, health, store = Metrics(), HealthState(), Store(time.time)
    limits = Limits(
        settings.kube_qps, settings.kube_burst, settings.kube_concurrency, settings.kube_timeout_seconds
    )
    kube = await stack.enter_async_context(
        Kube(
            settings.kubeconfig,
            context=settings.kube_context or None,
            limits=limits,
            on_request=metrics.kube_request,
        )
    )
    prometheus = await stack.enter_async_context(_prometheus(settings, metrics))
    users = await stack.enter_async_context(_prometheus(settings, metrics, max_bytes=USER_QUERY_BYTES))
    past = await stack.enter_async_context(_prometheus(settings, metrics, timeout=HISTORY_SECONDS))
    engines = await stack.enter_async_context(EngineClient(time.time))
    recorder = Recorder(kube, on_event=metrics.event)
    controller = Controller(
        store,
        Sweeper(kube, store, settings.namespaces),
        Gatherer(store, prometheus, engines, time.time, settings.stale_after_seconds, users),
        Executor(kube, store, recorder, time.time),
        Observer(metrics, health),
        historian=Historian(store, past, time.time),
        intervals=Intervals(settings.scaling_interval_seconds, settings.resync_seconds),
        workers=settings.workers,
    )
    metrics.fleet(lambda: _fleet(store))
    await stack.enter_async_context(_server(settings, metrics, health))
    watcher = Watcher(
        _deliver(store, controller),
        lambda kind: health.watch_seen(kind, time.monotonic()),
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context or None,
        namespaces=settings.namespaces,
    )
    return _Operator(controller, watcher, recorder, health, metrics)


@asynccontextmanager
async def _server(settings: Settings, metrics: Metrics, health: HealthState) -> AsyncIterator[None]:
    """Serve metrics and health.

    Raises:
        UnusableAddressError: The address cannot be listened on.
    """
    server = Server(metrics.registry, health, settings.listen_address, settings.listen_port)
    try:
        await server.__aenter__()
    except OSError as error:
        where = f"{settings.listen_address}:{settings.listen_port}"
        message = f"cannot listen on {where} ({error}): set STOKER_LISTEN_ADDRESS and STOKER_LISTEN_PORT"
        raise UnusableAddressError(message) from error
    try:
        yield
    finally:
        await server.__aexit__(None, None, None)


def _prometheus(
    settings: Settings, metrics: Metrics, *, timeout: float | None = None, max_bytes: int = 64 * 1024 * 1024
) -> Prometheus:
    return Prometheus(
        settings.prometheus_url,
        access=access_from(settings),
        timeout=settings.prometheus_timeout_seconds if timeout is None else timeout,
        max_bytes=max_bytes,
        on_query=metrics.prometheus_query,
    )


def _deliver(store: Store, controller: Controller) -> Deliver:
    """What a watch event does: change the store, and have the ModelDeployment looked at if it matters."""

    def deliver(kind: str, event: str | None, obj: Mapping[str, Any]) -> None:
        metadata = obj["metadata"]
        if event == "DELETED":
            key = store.remove(metadata["uid"], metadata.get("resourceVersion"))
        else:
            key = store.put(kind, obj)
        if key is not None:
            controller.touch(key)

    return deliver


def _fleet(store: Store) -> Iterator[FleetRow]:
    for deployment in list(store.deployments.values()):
        draining = sum(pod.draining for pod in store.pods(deployment.key))
        yield FleetRow(deployment.key, deployment.status, draining)


async def _until_stopped(operator: _Operator) -> int:
    """Run all parts until a signal comes (0) or one of them ends by itself (1)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [
        asyncio.create_task(operator.controller.run(operator.watcher.listed.wait), name="controller"),
        asyncio.create_task(operator.recorder.run(), name="events"),
        asyncio.create_task(operator.watcher.run(), name="watches"),
        asyncio.create_task(beat(_heartbeat(operator)), name="heartbeat"),
    ]
    stopped = asyncio.create_task(stop.wait(), name="signal")
    await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in tasks if task.done()]
    for task in failed:
        why = "cancelled" if task.cancelled() else str(task.exception())
        log.error("a part of the operator ended", part=task.get_name(), error=why)
    for task in tasks:  # the controller first: its last Events are then sent
        task.cancel()
        await asyncio.wait([task])
    stopped.cancel()
    log.info("stopped")
    return 1 if failed else 0


def _heartbeat(operator: _Operator) -> Callable[[float, float], None]:
    def note(lag: float, at: float) -> None:
        operator.health.heartbeat(lag, at)
        operator.metrics.loop_lag(lag)

    return note
