"""kopf: the watch shell, and nothing else.

Rules of this module:

* Only ``on.event`` handlers: they write nothing to any object, and they need no finalizer. Each hands the
  event on and returns; an exception in one would be lost.
* A list's pages are taken in whole, as they arrive; kopf goes on from an empty page. As events of kopf's,
  60,000 objects cost a task and 0.4 ms of CPU each before the first decision. It also shows when a list ends.
* kopf runs in a thread of its own with its own event loop. Its work on a big listing never stalls the
  loop that decides, and its habit of cancelling every task of its loop when it ends harms nobody.
* kopf does not give up: a list is retried for as long as the API server is away. When it ends nevertheless,
  the operator ends too, and Kubernetes starts it again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import orjson
import structlog
from yarl import URL

from stoker.api import meta
from stoker.clients import credentials, user_agent
from stoker.controller.sweep import WATCHED

Seen = Callable[[str], None]
"""(kind): its watch is alive; called from kopf's thread."""

WATCH_SECONDS = 60
"""Each watch is opened anew after this long, so that a quiet one shows that it lives."""

Deliver = Callable[[str, str | None, Mapping[str, Any]], None]
"""(kind, event type or None for a listed object, object)."""

STOP_SECONDS = 5.0

MAX_CONNECTIONS = 256
"""A watch occupies a connection: one per kind and namespace, and some for lists."""

EVENTS_PER_TURN = 100
"""Objects delivered before the loop turns to something else: a listing of a whole fleet must not stall it."""

log = structlog.get_logger(__name__)


class Watcher:
    """Runs kopf in a thread and delivers its events to the caller's event loop.

    Args:
        deliver: Called in the caller's loop, in the order of arrival.
        seen: Called whenever a list or watch is asked for. An API server that is away is no dead watch.
        kubeconfig: As for the Kubernetes client.
        context: Likewise.
        namespaces: To watch; empty for all.
    """

    def __init__(
        self,
        deliver: Deliver,
        seen: Seen,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        namespaces: Collection[str] = (),
    ) -> None:
        self._deliver = deliver
        self._seen = seen
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespaces = namespaces
        self._arrived: deque[tuple[str, str | None, Mapping[str, Any]]] = deque()
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unlisted = len(WATCHED) * max(1, len(namespaces))
        self._lists: set[str] = set()
        self.listed = asyncio.Event()
        """Set when everything that existed at the start has been delivered."""

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            RuntimeError: kopf ended by itself.
        """
        self._loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = self._loop.create_future()
        thread = threading.Thread(target=self._watch, args=(ended,), name="kopf", daemon=True)
        thread.start()
        try:
            why = await ended
            raise RuntimeError(f"watching ended: {why}")
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join, STOP_SECONDS)

    def _watch(self, ended: asyncio.Future[str]) -> None:
        try:
            asyncio.run(self._operator())
            why = "kopf returned"
        except BaseException as error:  # noqa: BLE001 - whatever ends kopf must end the operator
            why = f"{type(error).__name__}: {error}"
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_tell, ended, why)

    async def _operator(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=watch_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry, id="login")
        async def login(**_: Any) -> kopf.AiohttpSession:
            return await self._login()

        for api_version, kind, _ in WATCHED:
            self._watch_kind(registry, api_version, kind)
        return registry

    def _watch_kind(self, registry: kopf.OperatorRegistry, api_version: str, kind: str) -> None:
        group, _, version = api_version.rpartition("/")

        @kopf.on.event(group, version, _plural(kind), registry=registry, id=kind)
        async def seen(event: kopf.RawEvent, **_: Any) -> None:
            self._hand_on(kind, event["type"], event["object"])

    def _hand_on(self, kind: str, event: str | None, obj: Mapping[str, Any]) -> None:
        """Queue an event; one wake-up of the other loop serves all that arrive until it runs."""
        self._arrived.append((kind, event, obj))
        if len(self._arrived) == 1 and self._loop is not None:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        for _ in range(EVENTS_PER_TURN):
            if not self._arrived:
                return
            self._deliver_safely(*self._arrived[0])
            self._arrived.popleft()
        if self._loop is not None:
            self._loop.call_soon(self._drain)

    def _deliver_safely(self, kind: str, event: str | None, obj: Mapping[str, Any]) -> None:
        try:
            self._deliver(kind, event, obj)
        except Exception:
            log.exception("an event was lost to an error; the next sweep looks again", kind=kind)

    # --- Lists -----------------------------------------------------------------------------------

    async def _take_in(self, url: URL, answer: Any) -> Any:
        """Have a list's page delivered, and give kopf an empty one; runs in kopf's thread.

        It returns when the page has been delivered: a fleet's JSON must not pile up between the threads.
        """
        kind = _KINDS.get(url.name)
        if kind is None or self._loop is None or not isinstance(answer, dict) or "items" not in answer:
            return answer
        delivered = asyncio.run_coroutine_threadsafe(self._deliver_page(kind, url.path, answer), self._loop)
        await asyncio.wrap_future(delivered)
        return {**answer, "items": []}

    async def _deliver_page(self, kind: str, path: str, page: Mapping[str, Any]) -> None:
        for number, obj in enumerate(page["items"], start=1):
            # The API server leaves both out within a list.
            self._deliver_safely(kind, None, {**obj, "apiVersion": page["apiVersion"], "kind": kind})
            if number % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        if not page["metadata"].get("continue"):
            self._lists.add(path)
        if len(self._lists) >= self._unlisted:
            self.listed.set()

    def _response(self) -> type[aiohttp.ClientResponse]:
        take_in = self._take_in

        class Response(aiohttp.ClientResponse):
            async def json(self, **options: Any) -> Any:
                return await take_in(self.url, await super().json(**{"loads": orjson.loads, **options}))

        return Response

    # --- The connection --------------------------------------------------------------------------

    async def _login(self) -> kopf.AiohttpSession:
        """A session of kopf's making, but bounded, and watched: kopf itself tells nothing of its watches."""
        info = await self._connection()
        connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=info.as_ssl_context())
        headers = {**info.as_http_headers(), "User-Agent": user_agent()}
        session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            trace_configs=[self._traced()],
            response_class=self._response(),
        )
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    def _traced(self) -> aiohttp.TraceConfig:
        async def asked(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
            kind = _KINDS.get(params.url.name)
            if kind is not None:
                self._seen(kind)

        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(asked)
        return trace

    async def _connection(self) -> kopf.ConnectionInfo:
        known = await credentials.load(self._kubeconfig, self._context, connections=1)
        scheme, _, token = known.api_key.get("BearerToken", "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=known.host,
            ca_path=known.ssl_ca_cert,
            insecure=not known.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_path=known.cert_file,
            private_key_path=known.key_file,
        )


def _tell(ended: asyncio.Future[str], why: str) -> None:
    if not ended.done():
        ended.set_result(why)


def watch_settings() -> kopf.OperatorSettings:
    """Kopf's settings for a shell that only watches.

    Measured with 10,000 objects against the defaults: 2.8 instead of 7.9 CPU seconds, 142 instead of 260 MB,
    stalls of 0.04 instead of 0.84 s.
    """
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = WATCH_SECONDS
    settings.queueing.idle_timeout = 0.1
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Patience()
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    for api_version, kind, selector in WATCHED:
        if selector is not None:
            group, _, version = api_version.rpartition("/")
            settings.watching.label_selectors[(group, version, _plural(kind))] = selector
    return settings


def _plural(kind: str) -> str:
    return meta.PLURAL if kind == meta.KIND else f"{kind.lower()}s"


_KINDS = {_plural(kind): kind for _, kind, _ in WATCHED}


class _Patience(Iterable[float]):
    """Pauses between attempts, without end: an API server that is away comes back."""

    def __iter__(self) -> Iterator[float]:
        return chain((0.5, 1.0, 2.0, 3.0), repeat(5.0))


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing is compared, so nothing is copied: 79 % of kopf's time per event otherwise."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """No handler keeps progress, so there is none to store, nor to strip from copies."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
