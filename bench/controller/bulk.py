"""The API server in bulk: many requests over a few connections, and a light watch.

Rules of this module:

- Nothing is kept of the objects that pass by: tens of thousands of pods would be a gigabyte of dictionaries.
- A request that is refused ends the benchmark with the API server's words.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import aiohttp

from testbed.access import Access, PlaneError

CONNECTIONS = 32
PAGE = 500
WATCH_SECONDS = 240
MERGE_PATCH = "application/merge-patch+json"

Object = dict[str, Any]
_GONE = 410


class Request(NamedTuple):
    """One write to the API server."""

    method: str
    path: str
    body: Mapping[str, Any]
    content_type: str = "application/json"


class Change(NamedTuple):
    """An object as it is now, or one that is gone (or has ceased to match the selectors)."""

    obj: Object
    gone: bool


def session(plane: Access) -> aiohttp.ClientSession:
    """Return a session as the plane's administrator; to be closed by the caller, inside an event loop."""
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=str(plane.ca)))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 60)
    headers = {"Authorization": f"Bearer {plane.admin_token}"}
    return aiohttp.ClientSession(plane.url, connector=connector, timeout=timeout, headers=headers)


async def send(client: aiohttp.ClientSession, request: Request) -> None:
    """Send one request.

    Raises:
        PlaneError: it was refused.
    """
    headers = {"Content-Type": request.content_type}
    async with client.request(
        request.method, request.path, data=json.dumps(request.body), headers=headers
    ) as answer:
        if not answer.ok:
            raise PlaneError(f"{request.method} {request.path}: {await answer.text()}")


def send_all(plane: Access, requests: Iterable[Request], done: Callable[[], None]) -> None:
    """Send all requests and return; `done` is called after each.

    Raises:
        PlaneError: one was refused; the others may have been sent or not.
    """

    async def work(client: aiohttp.ClientSession, queue: Iterable[Request]) -> None:
        for request in queue:  # shared: each worker takes the next one
            await send(client, request)
            done()

    async def run() -> None:
        queue = iter(requests)
        async with session(plane) as client, asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(work(client, queue))

    asyncio.run(run())


def names(plane: Access, path: str, labels: str = "") -> list[tuple[str, str, str]]:
    """Return (namespace, name, resourceVersion) of every object of a collection, in order."""
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    found = (item["metadata"] for item in objects(plane, path, labels, accept))
    return sorted((each["namespace"], each["name"], each["resourceVersion"]) for each in found)


def objects(plane: Access, path: str, labels: str = "", accept: str = "application/json") -> Iterator[Object]:
    """Yield every object of a collection, a page at a time."""
    token = ""
    with plane.client() as client:
        while True:
            query = {"limit": str(PAGE), "labelSelector": labels, "continue": token}
            page = client.get(path, params=query, headers={"Accept": accept}).raise_for_status().json()
            yield from page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return


async def watch(
    client: aiohttp.ClientSession, path: str, *, labels: str = "", fields: str = ""
) -> AsyncIterator[Change]:
    """Follow a collection for ever: what exists first, then every change; close the iterator to stop."""
    selectors = {"labelSelector": labels, "fieldSelector": fields}
    while True:
        version = ""
        async for listed, obj in _list(client, path, selectors):
            version = listed
            if obj is not None:
                yield Change(obj, gone=False)
        while version:
            async for reached, change in _follow(client, path, {**selectors, "resourceVersion": version}):
                version = reached
                if change is not None:
                    yield change


async def _list(
    client: aiohttp.ClientSession, path: str, selectors: Mapping[str, str]
) -> AsyncIterator[tuple[str, Object | None]]:
    """Yield every object with the list's resourceVersion; at least one pair, so that it is known."""
    token = ""
    while True:
        query = {**selectors, "limit": str(PAGE), "continue": token}
        async with client.get(path, params=query) as answer:
            answer.raise_for_status()
            page = await answer.json()
        version = str(page["metadata"]["resourceVersion"])
        yield version, None
        for obj in page["items"]:
            yield version, obj
        token = page["metadata"].get("continue", "")
        if not token:
            return


async def _follow(
    client: aiohttp.ClientSession, path: str, query: Mapping[str, str]
) -> AsyncIterator[tuple[str, Change | None]]:
    """Yield changes with the resourceVersion to go on from; an empty one means: list again."""
    options = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
    async with client.get(path, params={**query, **options}) as answer:
        if answer.status == _GONE:
            yield "", None
            return
        answer.raise_for_status()
        async for line in _lines(answer.content):
            event = json.loads(line)
            if event["type"] == "ERROR":
                yield "", None
                return
            version = str(event["object"]["metadata"]["resourceVersion"])
            bookmark = event["type"] == "BOOKMARK"
            yield version, None if bookmark else Change(event["object"], event["type"] == "DELETED")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a body into lines of any length (aiohttp's own reader refuses long ones)."""
    rest = b""
    async for block in stream.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        for line in filter(None, lines):
            yield line
