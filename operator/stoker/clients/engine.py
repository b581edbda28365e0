"""The engines themselves: what a replica says about its own requests, asked of it directly.

A draining replica is deleted when it has nothing left to do. Prometheus would say so some scrapes later;
the replica's own ``/metrics`` says it now.

Rules of this module:

* What cannot be read is ``Missing``, never zero: a replica is not deleted because a metric was renamed.
* A NaN, an infinity or a negative number makes the whole reading ``Missing``: it could hide a request.
* Nothing is unbounded: two seconds, some megabytes, so many replicas at a time, no redirects, no proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from stoker.clients import user_agent
from stoker.core.readings import Fresh, Missing, Reading

K = TypeVar("K", bound=Hashable)

HEADERS = {
    "User-Agent": user_agent(),
    "Accept": "text/plain;version=0.0.4",
    # Compression would only let a small body become a big one, between two pods of a cluster.
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine's metrics are, and which gauges count its requests."""

    pod_ip: str
    port: int
    path: str
    running: tuple[str, ...]
    """Names of the gauges of requests in the batch; all that are present are added up."""
    waiting: tuple[str, ...]
    """Likewise, of requests in the queue; empty for an engine without a queue of its own."""


class EngineClient:
    """Asks engines for their requests in flight; ``async with EngineClient(clock) as engines: …``.

    Args:
        clock: Unix seconds.
        timeout: seconds for one engine, from the connect to the last byte.
        concurrency: engines asked at a time.
        max_bytes: longest accepted body. vLLM's is about 60 kB; each LoRA adapter and label adds to it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        timeout: float = 2.0,
        concurrency: int = 64,
        max_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._slots = asyncio.Semaphore(concurrency)
        self._http = httpx.AsyncClient(
            headers=HEADERS,
            timeout=timeout,
            trust_env=False,  # a pod's address is never behind a proxy
            # No connection is kept: an engine that shuts down would wait for it.
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def load_all(self, endpoints: Mapping[K, Endpoint]) -> Mapping[K, Reading]:
        """Ask many engines; a reading for each key."""
        readings = await asyncio.gather(*(self._load(endpoint) for endpoint in endpoints.values()))
        return dict(zip(endpoints, readings, strict=True))

    async def load(
        self, pod_ip: str, port: int, path: str, running: tuple[str, ...], waiting: tuple[str, ...]
    ) -> Reading:
        """Requests running and waiting in one engine, now."""
        return await self._load(Endpoint(pod_ip, port, path, running, waiting))

    async def _load(self, endpoint: Endpoint) -> Reading:
        try:
            url = _url(endpoint)
        except ValueError as error:
            return Missing(f"the pod has no usable address: {error}")
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    text = await self._text(url)
            except TimeoutError:
                return Missing(f"{url} did not answer within {self._timeout:g} s")
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                return Missing(f"{url} cannot be asked: {str(error) or type(error).__name__}")
            at = self._clock()
        if isinstance(text, Missing):
            return text
        return in_flight(text, endpoint, at)

    async def _text(self, url: httpx.URL) -> str | Missing:
        async with self._http.stream("GET", url) as response:
            if response.status_code != 200:
                return Missing(f"{url} answered HTTP {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_bytes:
                    return Missing(f"{url} answered with more than {self._max_bytes} bytes")
        return body.decode(errors="replace")


def _url(endpoint: Endpoint) -> httpx.URL:
    """The address to ask.

    Raises:
        ValueError: the pod's IP is absent or no IP address.
    """
    address = ipaddress.ip_address(endpoint.pod_ip)
    host = f"[{address}]" if address.version == 6 else str(address)
    return httpx.URL(f"http://{host}:{endpoint.port}/{endpoint.path.lstrip('/')}")


def in_flight(text: str, endpoint: Endpoint, at: float) -> Reading:
    """Sum of an engine's gauges in the Prometheus text format, over all label sets (one per engine core).

    Args:
        text: a scrape.
        endpoint: which gauges to read.
        at: when it was scraped (Unix s).
    """
    groups = [group for group in (endpoint.running, endpoint.waiting) if group]
    if not groups:
        return Missing("no metric of running or waiting requests is known for this engine")
    names = tuple(name for group in groups for name in group)
    # A scrape has hundreds of series, most of them buckets. Only the lines in question are parsed.
    lines = "\n".join(line for line in text.split("\n") if line.startswith(names))
    try:
        samples = [
            sample
            for family in text_string_to_metric_families(f"{lines}\n")
            for sample in family.samples
            if sample.name in names
        ]
    except Exception as error:  # noqa: BLE001 - the parser raises what its index arithmetic gives it
        return Missing(f"its metrics cannot be read: {error}")
    seen = {sample.name for sample in samples}
    for group in groups:
        if not seen.intersection(group):
            return Missing(f"its metrics have no {' or '.join(group)}")
    values = [float(sample.value) for sample in samples]
    if not all(math.isfinite(value) and value >= 0 for value in values):
        return Missing(f"its metrics count requests in numbers that cannot be: {values}")
    return Fresh(sum(values), at)
