"""What a measurement makes of Prometheus' answers."""

from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.peers.census import Census
from bench.peers.fleets import KEDA, Fleet
from bench.peers.session import Session
from testbed.addresses import free_ports

FLEET = Fleet("f", KEDA, 1, 10, 10)


async def asked(url: str) -> float | None:
    async with aiohttp.ClientSession() as client:
        arena = SimpleNamespace(prometheus_of=lambda fleet: SimpleNamespace(url=url))
        return await Session(arena, Census(["f"]), client).in_flight(FLEET)


@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [(200, [{"value": [0, "12"]}], 12.0), (200, [], None), (503, [], None)],
    ids=["a number", "nothing", "an error"],
)
async def test_the_fleets_query_is_asked_and_only_an_answer_is_a_number(status, result, expected):
    queries = []

    async def query(request: web.Request) -> web.Response:
        queries.append(request.query["query"])
        return web.json_response({"data": {"result": result}}, status=status)

    app = web.Application()
    app.router.add_get("/api/v1/query", query)
    async with TestServer(app) as server:
        assert await asked(str(server.make_url(""))) == expected
    assert queries == [FLEET.query]


async def test_a_prometheus_that_cannot_be_reached_has_no_answer():
    (port,) = free_ports(1)
    assert await asked(f"http://127.0.0.1:{port}") is None
