"""A load that stands: a number of requests in flight that lasts, whatever becomes of the replicas.

A request is as long as an engine allows, and one that ends or breaks off is sent again: so the number in
flight is what was asked for, on however many replicas there are, and what an autoscaler should do is known.
"""

import asyncio

import aiohttp

from bench.peers.fleets import NAME
from testbed.gateway import Gateway, NoEndpointError
from testbed.openai_api import PROMPT_TOKENS_HEADER

OUTPUT_TOKENS = 200_000
"""At 14 ms a token it lasts for most of an hour."""
PAUSE_SECONDS = 0.1
"""Between an answer that broke off and the next attempt: a client's back-off."""


class StandingLoad:
    """Requests in flight at one fleet; `close` ends it.

    Args:
        gateway: of the fleet.
        session: to send with; without time-outs.
    """

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self._gateway = gateway
        self._session = session
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def requests(self) -> int:
        """How many are wanted."""
        return len(self._tasks)

    def set(self, requests: int) -> None:
        """Have so many in flight from now on."""
        while len(self._tasks) > requests:
            self._tasks.pop().cancel()
        while len(self._tasks) < requests:
            self._tasks.append(asyncio.get_running_loop().create_task(self._hold()))

    async def spread(self) -> None:
        """Send all of them anew, over the replicas that there are by now."""
        requests = self.requests
        await self.close()
        self.set(requests)

    async def close(self) -> None:
        """End all of them."""
        tasks = list(self._tasks)
        self.set(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hold(self) -> None:
        while True:
            try:
                await self._once()
            except (aiohttp.ClientError, ConnectionError, TimeoutError, NoEndpointError):
                await asyncio.sleep(PAUSE_SECONDS)

    async def _once(self) -> None:
        endpoint = await self._gateway.pick()
        body = {"model": NAME, "prompt": "x", "max_tokens": OUTPUT_TOKENS, "stream": False}
        with self._gateway.using(endpoint):
            url = f"{endpoint.url}/v1/completions"
            async with self._session.post(url, json=body, headers={PROMPT_TOKENS_HEADER: "16"}) as answer:
                answer.raise_for_status()
                await answer.read()
