"""Which replica gets the next request: what an inference gateway's endpoint picker does.

Rules of this module:

- An endpoint is a pod that the Service's selector matches, that is Ready and not being deleted.
  (EndpointSlices refuse loopback addresses, so the Service's own endpoints cannot be read on this testbed.)
- Least requests in flight wins; among equals the one that waited longest for a request.
- A pod that stops being an endpoint gets no new request; what it has under way goes on.
- Without an endpoint requests wait in a bounded queue, first come first served.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.kubewatch import Change, KubeReader
from testbed.pods import KubePods, Pod, PodChange, PodSource

__all__ = ["Endpoint", "Gateway", "NoEndpointError", "ServicePods"]


class NoEndpointError(Exception):
    """The request was not given to any pod; the message says why."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """A pod that takes requests."""

    pod: str
    url: str
    in_flight: int = 0
    last_pick: int = 0


class Gateway:
    """Picks endpoints.

    Args:
        default_port: of pods that name none.
        queue_limit: requests that may wait while there is no endpoint.
        queue_seconds: how long each may wait.
    """

    def __init__(
        self, *, default_port: int = 8000, queue_limit: int = 1000, queue_seconds: float = 300.0
    ) -> None:
        self._default_port = default_port
        self._queue_limit = queue_limit
        self._queue_seconds = queue_seconds
        self._endpoints: dict[str, Endpoint] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._picks = 0

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that take requests now."""
        return tuple(self._endpoints.values())

    @property
    def queued(self) -> int:
        """Requests that wait for an endpoint."""
        return len(self._queue)

    async def follow(self, source: PodSource) -> None:
        """Keep the endpoints in line with a source of pods, for ever."""
        async for change in source.changes():
            self.apply(change)

    def apply(self, change: PodChange) -> None:
        """Take a pod in or out."""
        pod = change.pod
        url = f"http://{pod.ip}:{pod.port or self._default_port}"
        if change.gone or not _takes_requests(pod):
            self._endpoints.pop(pod.key, None)
            return
        known = self._endpoints.get(pod.key)
        if known is None or known.url != url:
            self._endpoints[pod.key] = Endpoint(pod.key, url)
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)

    async def pick(self, avoid: frozenset[str] = frozenset()) -> Endpoint:
        """The endpoint for the next request; waits while there is none.

        Args:
            avoid: URLs that just refused this request; they are taken only if nothing else is left.

        Raises:
            NoEndpointError: the queue is full, or the wait was too long.
        """
        if not self._endpoints:
            await self._wait()
        candidates = [one for one in self._endpoints.values() if one.url not in avoid]
        best = min(candidates or self._endpoints.values(), key=lambda one: (one.in_flight, one.last_pick))
        self._picks += 1
        best.last_pick = self._picks
        return best

    @contextmanager
    def using(self, endpoint: Endpoint) -> Iterator[None]:
        """A request is under way at this endpoint."""
        endpoint.in_flight += 1
        try:
            yield
        finally:
            endpoint.in_flight -= 1

    async def _wait(self) -> None:
        if len(self._queue) >= self._queue_limit:
            raise NoEndpointError(f"no endpoint, and {self._queue_limit} requests wait already")
        try:
            async with asyncio.timeout(self._queue_seconds):
                while not self._endpoints:  # again: the endpoint may have gone before our turn
                    await self._turn()
        except TimeoutError:
            raise NoEndpointError(f"no endpoint within {self._queue_seconds:g} s") from None

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        finally:
            if turn in self._queue:
                self._queue.remove(turn)


def _takes_requests(pod: Pod) -> bool:
    return pod.ready and not pod.deleting and pod.ip is not None


class ServicePods:
    """The pods that a Service selects, as the Service's selector is at each moment."""

    def __init__(self, reader: KubeReader, *, namespace: str, service: str) -> None:
        self._reader = reader
        self._namespace = namespace
        self._service = service

    async def changes(self) -> AsyncIterator[PodChange]:
        """See `PodSource`."""
        news: asyncio.Queue[PodChange | BaseException] = asyncio.Queue()
        watching = asyncio.create_task(self._watch_service(news))
        watching.add_done_callback(lambda task: _report(task, news))
        try:
            while not isinstance(change := await news.get(), BaseException):
                yield change
            raise change
        finally:
            watching.cancel()

    async def _watch_service(self, news: "asyncio.Queue[PodChange | BaseException]") -> None:
        path, only = f"/api/v1/namespaces/{self._namespace}/services", f"metadata.name={self._service}"
        selector, following = "", None
        try:
            async for change in self._reader.watch(path, fields=only):
                if (wanted := _selector(change)) == selector:
                    continue
                selector = wanted
                if following is not None:
                    following.cancel()
                    await asyncio.wait((following,))
                following = asyncio.create_task(self._watch_pods(selector, news)) if selector else None
                if following is not None:
                    following.add_done_callback(lambda task: _report(task, news))
        finally:
            if following is not None:
                following.cancel()

    async def _watch_pods(self, selector: str, news: "asyncio.Queue[PodChange | BaseException]") -> None:
        known: dict[str, Pod] = {}
        try:
            async for change in KubePods(
                self._reader, namespace=self._namespace, selector=selector
            ).changes():
                if change.gone:
                    known.pop(change.pod.key, None)
                else:
                    known[change.pod.key] = change.pod
                news.put_nowait(change)
        finally:  # the selector changed: what it selected before is selected no more
            for pod in known.values():
                news.put_nowait(PodChange(pod, gone=True))


def _selector(change: Change) -> str:
    """The Service's selector as a label selector; empty if the Service or its selector is missing."""
    if change.gone:
        return ""
    labels = change.manifest["spec"].get("selector") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _report(task: "asyncio.Task[None]", news: "asyncio.Queue[PodChange | BaseException]") -> None:
    """A bug in a watch ends the stream with it, instead of silence."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        news.put_nowait(error)
