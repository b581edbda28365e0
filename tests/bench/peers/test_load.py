"""A standing load: so many requests in flight, whatever breaks off."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from bench.peers.load import StandingLoad
from testbed.gateway import Gateway
from testbed.pods import Pod, PodChange


class Engine:
    """Answers no request until it is told to, and counts those under way."""

    def __init__(self):
        self.under_way = 0
        self.seen = 0
        self.release = asyncio.Event()

    async def completions(self, request):
        self.under_way += 1
        self.seen += 1
        try:
            await self.release.wait()
        finally:
            self.under_way -= 1
        return web.json_response({})


@asynccontextmanager
async def serving():
    engine = Engine()
    app = web.Application()
    app.router.add_post("/v1/completions", engine.completions)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway = Gateway()
    port = runner.addresses[0][1]
    gateway.apply(PodChange(Pod("f", "p", "u", ip="127.0.0.1", ready=True, port=port)))
    async with aiohttp.ClientSession() as session:
        load = StandingLoad(gateway, session)
        yield engine, load, gateway
        await load.close()
    await runner.cleanup()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it looks at what others count
            await asyncio.sleep(0.01)


async def test_it_grows_shrinks_and_ends():
    async with serving() as (engine, load, gateway):
        load.set(5)
        await until(lambda: engine.under_way == 5)
        assert gateway.endpoints[0].in_flight == 5
        load.set(2)
        await until(lambda: engine.under_way == 2)
        assert load.requests == 2
        await load.close()
        await until(lambda: engine.under_way == 0)


async def test_what_ends_is_sent_again():
    async with serving() as (engine, load, _):
        load.set(3)
        await until(lambda: engine.under_way == 3)
        engine.release.set()
        await until(lambda: engine.seen > 6)
        engine.release.clear()
        await until(lambda: engine.under_way == 3)


async def test_what_breaks_off_is_sent_to_a_replica_that_is_left():
    async with serving() as (engine, load, gateway):
        gateway.apply(PodChange(Pod("f", "dead", "v", ip="127.0.0.1", ready=True, port=9)))
        load.set(2)
        await until(lambda: engine.under_way >= 1)
        gateway.apply(PodChange(Pod("f", "dead", "v"), gone=True))
        await until(lambda: engine.under_way == 2)


async def test_it_is_spread_over_the_replicas_that_came_later():
    async with serving() as (engine, load, gateway), serving() as (late, _, there):
        load.set(4)
        await until(lambda: engine.under_way == 4)
        port = int(there.endpoints[0].url.rpartition(":")[2])
        gateway.apply(PodChange(Pod("f", "late", "v", ip="127.0.0.1", ready=True, port=port)))
        await load.spread()
        await until(lambda: (engine.under_way, late.under_way) == (2, 2))
        await load.close()
