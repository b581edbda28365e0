"""Engines' own gauges: what counts as requests in flight, and that a fault is never zero."""

import asyncio
import gzip
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from stoker.clients.engine import Endpoint, EngineClient, in_flight
from stoker.core.readings import Fresh, Missing

RUNNING = ("vllm:num_requests_running",)
WAITING = ("vllm:num_requests_waiting",)
VLLM = Endpoint("127.0.0.1", 8000, "/metrics", RUNNING, WAITING)
REAL = (Path(__file__).parent.parent / "fixtures" / "vllm-metrics-real.txt").read_text()


def scrape(running, waiting):
    return f"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
"""


# --- Reading a scrape ----------------------------------------------------------------------------


def test_a_real_scrape_of_vllm_under_load():
    assert in_flight(REAL, VLLM, 5.0) == Fresh(48.0, 5.0)


def test_zero_is_a_reading():
    assert in_flight(scrape(0, 0), VLLM, 5.0) == Fresh(0.0, 5.0)


def test_all_engine_cores_are_added_up():
    text = scrape(3, 2) + 'vllm:num_requests_running{engine="1",model_name="m"} 4.0\n'
    assert in_flight(text, VLLM, 5.0) == Fresh(9.0, 5.0)


def test_a_name_that_only_begins_alike_is_not_counted():
    text = scrape(1, 1) + 'vllm:num_requests_waiting_by_reason{reason="capacity"} 1.0\n'
    assert in_flight(text, VLLM, 5.0) == Fresh(2.0, 5.0)


def test_an_old_or_a_new_name_will_do():
    endpoint = Endpoint("127.0.0.1", 1, "/", ("old", "new"), ("queue",))
    assert in_flight("new 2\nqueue 1\n", endpoint, 5.0) == Fresh(3.0, 5.0)
    assert in_flight("old 4\nqueue 1\n", endpoint, 5.0) == Fresh(5.0, 5.0)


def test_an_engine_without_a_queue_is_read_by_its_running_requests():
    assert in_flight("busy 2\n", Endpoint("127.0.0.1", 1, "/", ("busy",), ()), 5.0) == Fresh(2.0, 5.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "have no vllm:num_requests_running"),
        ("<html>sign in</html>", "have no vllm:num_requests_running"),
        (scrape(0, 0).replace("_waiting", "_queued"), "have no vllm:num_requests_waiting"),
        (scrape("NaN", 0), "numbers that cannot be"),
        (scrape(0, "+Inf"), "numbers that cannot be"),
        (scrape(3, -3), "numbers that cannot be"),
        (scrape("abc", 0), "cannot be read"),
        (scrape("", 0), "cannot be read"),
        ('vllm:num_requests_running{engine="0 1\n', "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_missing_never_zero(text, why):
    reading = in_flight(text, VLLM, 5.0)
    assert isinstance(reading, Missing)
    assert why in reading.why


def test_an_engine_without_known_metrics_is_missing():
    assert isinstance(in_flight(REAL, Endpoint("127.0.0.1", 1, "/", (), ()), 5.0), Missing)


# --- Over the wire -------------------------------------------------------------------------------


async def load(url, *, path="/metrics", **options):
    async with EngineClient(lambda: 7.0, **options) as engines:
        where = urlsplit(url)
        return await engines.load(where.hostname, where.port, path, RUNNING, WAITING)


async def test_an_engine_is_asked_at_its_path(serve):
    async def handler(request):
        assert request.headers["User-Agent"].startswith("stoker/")
        return web.Response(text=scrape(2, 1) if request.path_qs == "/prometheus/metrics" else "")

    assert await load(await serve(handler), path="/prometheus/metrics") == Fresh(3.0, 7.0)


async def test_nobody_there(refused):
    reading = await load(refused)
    assert isinstance(reading, Missing)
    assert "cannot be asked" in reading.why


@pytest.mark.parametrize("address", ["", "not-an-ip", "127.0.0.1/evil"])
async def test_a_pod_without_a_usable_address(address):
    async with EngineClient(lambda: 7.0) as engines:
        reading = await engines.load(address, 8000, "/metrics", RUNNING, WAITING)
    assert isinstance(reading, Missing)
    assert "no usable address" in reading.why


async def test_a_pod_with_an_ipv6_address_is_asked_in_brackets():
    async with EngineClient(lambda: 7.0) as engines:
        reading = await engines.load("::1", 1, "/metrics", RUNNING, WAITING)
    assert isinstance(reading, Missing)
    assert "http://[::1]:1/metrics cannot be asked" in reading.why


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
async def test_another_status_is_missing(serve, status):
    async def handler(request):
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    reading = await load(await serve(handler))
    assert isinstance(reading, Missing)
    assert str(status) in reading.why


async def test_a_silent_engine_costs_the_timeout(serve):
    done = asyncio.Event()

    async def handler(request):
        await done.wait()
        return web.Response(text=scrape(0, 0))

    reading = await load(await serve(handler), timeout=0.2)
    done.set()
    assert isinstance(reading, Missing)


async def test_a_dripping_engine_costs_the_timeout(serve):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\n")
            await asyncio.sleep(0.02)

    reading = await load(await serve(handler), timeout=0.3)
    assert isinstance(reading, Missing)
    assert "did not answer" in reading.why


async def test_a_huge_body_is_not_read_to_its_end(serve):
    sent = 0

    async def handler(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(512):
            await response.write(b"\n" * 1024 * 1024)
            sent += 1
        return response

    reading = await load(await serve(handler), max_bytes=2 * 1024 * 1024, timeout=30)
    assert isinstance(reading, Missing)
    assert "more than" in reading.why
    assert sent < 512


async def test_compression_is_never_unpacked(serve):
    async def handler(request):
        assert request.headers["Accept-Encoding"] == "identity"
        packed = gzip.compress(scrape(0, 0).encode())
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    assert isinstance(await load(await serve(handler)), Missing)


async def test_a_connection_that_breaks(serve):
    async def handler(request):
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        await response.write(scrape(0, 0).encode())
        request.transport.close()
        return response

    assert isinstance(await load(await serve(handler)), Missing)


async def test_many_are_asked_at_a_time_but_not_more_than_allowed(serve):
    inside, most = 0, 0

    async def handler(request):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1
        return web.Response(text=scrape(int(request.path.rsplit("/", 1)[1]), 0))

    where = urlsplit(await serve(handler))
    endpoints = {i: Endpoint(where.hostname, where.port, f"/{i}", RUNNING, WAITING) for i in range(12)}
    async with EngineClient(lambda: 7.0, concurrency=3) as engines:
        readings = await engines.load_all(endpoints)
    assert readings == {i: Fresh(float(i), 7.0) for i in range(12)}
    assert most == 3
