"""What every measurement does on an arena: follow pods, send load, ask Prometheus, wait, say what goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.controller.usage import load_average
from bench.peers.arena import Arena
from bench.peers.census import Census
from bench.peers.fleets import Fleet
from bench.peers.load import StandingLoad
from testbed.access import PlaneError
from testbed.kubewatch import KubeReader

POLL_SECONDS = 0.2
SAY_SECONDS = 20.0


@dataclass(slots=True)
class Session:
    """A measurement under way.

    Attributes:
        arena: where.
        census: of all pods.
        client: for load and for questions to Prometheus; without time-outs of its own.
        load_averages: of the machine, once a second.
        lag: longest delay of this process' event loop since the last reset, seconds.
    """

    arena: Arena
    census: Census
    client: aiohttp.ClientSession
    load_averages: list[float] = field(default_factory=list)
    lag: float = 0.0
    _loads: dict[str, StandingLoad] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _said: float = 0.0

    def load(self, fleet: Fleet) -> StandingLoad:
        """The fleet's standing load; none at first."""
        if fleet.namespace not in self._loads:
            gateway = self.census.gateways[fleet.namespace]
            self._loads[fleet.namespace] = StandingLoad(gateway, self.client)
        return self._loads[fleet.namespace]

    async def in_flight(self, fleet: Fleet) -> float | None:
        """What Prometheus answers now to the fleet's query; None for nothing, and when it does not answer."""
        url = f"{self.arena.prometheus_of(fleet).url}/api/v1/query"
        try:
            async with self.client.get(url, params={"query": fleet.query}) as answer:
                answer.raise_for_status()
                result = (await answer.json())["data"]["result"]
        except (aiohttp.ClientError, TimeoutError):
            return None
        return float(result[0]["value"][1]) if result else None

    async def settle(self, fleets: Iterable[Fleet], replicas: Callable[[Fleet], int], seconds: float) -> None:
        """Wait until each fleet has at least so many replicas, all Ready, and its metrics are being read.

        Raises:
            PlaneError: they had not after `seconds`; the message names a few.
        """
        missing, deadline = list(fleets), time.monotonic() + seconds
        while missing:
            active = await asyncio.to_thread(self.arena.active)
            missing = [one for one in missing if not self._settled(one, replicas(one), active)]
            if time.monotonic() > deadline:
                some = ", ".join(
                    f"{one.namespace}: {self.census.count(one.namespace)}" for one in missing[:5]
                )
                raise PlaneError(f"{len(missing)} fleets are not settled after {seconds:.0f} s ({some})")
            self.say(f"{len(missing)} fleets still to settle", every=SAY_SECONDS)
            await asyncio.sleep(1)

    def _settled(self, fleet: Fleet, replicas: int, active: set[str]) -> bool:
        census, name = self.census, fleet.namespace
        ready = len(census.gateways[name].endpoints)
        return name in active and census.count(name) == ready >= replicas

    def say(self, text: str, *, every: float = 0.0) -> None:
        """Print a line of progress; with `every`, only if the last one is so many seconds old."""
        now = time.monotonic()
        if now - self._said >= every:
            self._said = now
            print(f"{now - self._started:5.0f} s  load {load_average():4.1f}  {text}", flush=True)

    async def watch_machine(self) -> None:
        """Note the load average and how late this event loop wakes up, until cancelled."""
        loop, tick = asyncio.get_running_loop(), 0
        while True:
            due = loop.time() + 0.1
            await asyncio.sleep(0.1)
            self.lag = max(self.lag, loop.time() - due)
            tick += 1
            if tick % 10 == 0:
                self.load_averages.append(load_average())


@asynccontextmanager
async def session(arena: Arena) -> AsyncIterator[Session]:
    """Follow an arena's pods for the length of the block; ends every load."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        KubeReader(arena.plane.kubeconfig) as reader,
        aiohttp.ClientSession(timeout=timeout, connector=connector) as client,
    ):
        found = Session(arena, Census(fleet.namespace for fleet in arena.fleets), client)
        beside = [
            asyncio.create_task(found.census.follow(reader)),
            asyncio.create_task(found.watch_machine()),
        ]
        try:
            yield found
        finally:
            for load in found._loads.values():  # noqa: SLF001 - the block's own
                await load.close()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
