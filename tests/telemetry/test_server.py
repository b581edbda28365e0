"""The server for metrics and probes."""

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stoker.telemetry.health import HealthState
from stoker.telemetry.metrics import Metrics
from stoker.telemetry.server import Server


@pytest.fixture
async def get():
    """(path) -> (status, content type, body), of a server whose clock stands at 1000 s."""
    get.metrics, get.health = Metrics(), HealthState()
    async with (
        Server(get.metrics.registry, get.health, "127.0.0.1", 0, clock=lambda: 1000.0) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
    ):

        async def ask(path, **headers):
            async with session.get(path, headers=headers) as response:
                body = await response.json() if "json" in response.content_type else await response.text()
                return response.status, response.headers["Content-Type"], body

        ask.metrics, ask.health = get.metrics, get.health
        yield ask


async def test_metrics(get):
    get.metrics.kube_request("get", "pods", "200", 0.01)
    status, content_type, text = await get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    samples = {s.name: s for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["stoker_kube_requests_total"].labels == {"verb": "get", "resource": "pods", "code": "200"}


async def test_open_metrics_when_asked(get):
    _, content_type, text = await get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


async def test_alive(get):
    status, _, body = await get("/healthz")
    assert (status, body["status"], body["failing"]) == (200, "ok", [])


async def test_not_alive_names_the_check(get):
    get.health.watch_seen("Pod", 1.0)
    status, _, body = await get("/healthz")
    assert (status, body["status"], body["failing"]) == (503, "failing", ["watch"])
    assert body["checks"]["watch"] == {
        "ok": False,
        "detail": "Pod was last active 999 s ago, more than 180 s",
    }


async def test_ready(get):
    status, _, body = await get("/readyz")
    assert (status, body["failing"]) == (503, ["synced"])
    get.health.synced()
    status, _, body = await get("/readyz")
    assert (status, body["failing"]) == (200, [])


async def test_nothing_else(get):
    assert (await get("/"))[0] == 404


async def test_a_port_that_is_taken():
    metrics = Metrics()
    async with Server(metrics.registry, HealthState(), "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match="address already in use"):
            async with Server(metrics.registry, HealthState(), "127.0.0.1", server.port):
                pass
