"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP.

On aiohttp, which kopf and the Kubernetes client bring along anyway: a web server of one's own on bare streams
would have to learn about slow and hostile clients what aiohttp knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stoker.telemetry.health import Check, HealthState, failing


class Server:
    """Serves metrics and health; ``async with Server(…) as server: …``.

    Args:
        registry: what ``/metrics`` shows.
        health: what ``/healthz`` and ``/readyz`` show.
        address: to listen on.
        port: likewise; 0 takes a free one, and ``port`` tells which.
        clock: monotonic seconds.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        health: HealthState,
        address: str,
        port: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self._registry = registry
        self._health = health
        self._address = address
        self._clock = clock
        # A line per probe and scrape would be most of the log.
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._address, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # With thousands of objects this takes a good part of a second: not in the event loop.
        body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(self._health.live(self._clock()))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self._health.ready(self._clock()))


def _verdict(checks: tuple[Check, ...]) -> web.Response:
    broken = failing(checks)
    body = {
        "status": "failing" if broken else "ok",
        "failing": list(broken),
        "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
    }
    return web.json_response(body, status=503 if broken else 200)
