"""The HTTP side of one simulated engine: vLLM's paths at the pod's own address.

The listener exists exactly while the engine does, so connections are refused while it loads, as vLLM refuses
them. Closing the server is the engine's death: connections are aborted in the middle of what they carry.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from testbed.engine import Engine, Generation
from testbed.exposition import CONTENT_TYPE
from testbed.openai_api import ApiError, Ask, Writer, error_body, read_ask

__all__ = ["VERSION", "EngineServer"]

VERSION = "0.33.0"  # the vLLM that is imitated

_BACKLOG = 1024
_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class EngineServer:
    """Serves one engine at one address; `start` opens the listener, `close` kills the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._created = int(time.time())
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._routes: dict[tuple[str, str], _Handler] = {
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/chat/completions"): self._chat_completions,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
        }
        self._paths = {path for _, path in self._routes}

    async def start(self, host: str, port: int) -> None:
        """Open the listener.

        Raises:
            OSError: the address is not this machine's, or taken.
        """
        # A client that goes away cancels its handler, which gives the request up as vLLM does.
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, host, port, backlog=_BACKLOG)

    def close(self) -> int:
        """Kill the engine; returns how many requests that cuts."""
        if self._listener is not None:
            self._listener.close()
        cut = self.engine.close()
        if self._server is not None:
            for connection in self._server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        return cut

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        begun = time.monotonic()
        handler = self._routes.get((request.method, request.path))
        if handler is None:
            response = self._unknown(request)
        else:
            response = await self._guarded(handler, request)
        name = request.path if request.path in self._paths else "none"
        sizes = (request.content_length or 0, response.content_length or 0)
        self.engine.http.on_response(name, request.method, response.status, time.monotonic() - begun, sizes)
        return response

    async def _guarded(self, handler: _Handler, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            self.engine.stats.refused += 1
            return _json(error_body(error), error.status)

    def _unknown(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in self._paths:
            return _json({"detail": "Method Not Allowed"}, 405)
        return _json({"detail": "Not Found"}, 404)

    async def _completions(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _chat_completions(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.BaseRequest, *, chat: bool) -> web.StreamResponse:
        engine = self.engine
        ask = read_ask(await request.read(), request.headers, engine.served_name, chat=chat)
        number = engine.stats.accepted
        try:
            generation = engine.generate(ask.prompt_tokens, ask.max_tokens, stream=ask.stream)
        except ValueError as error:
            raise ApiError(400, f"{error}.", "max_tokens") from None
        writer = Writer(ask, number, engine.served_name, self._created)
        try:
            return await self._answer(request, ask, generation, writer)
        finally:
            engine.abort(generation)

    async def _answer(
        self, request: web.BaseRequest, ask: Ask, generation: Generation, writer: Writer
    ) -> web.StreamResponse:
        if ask.stream:
            return await _stream(request, generation, writer)
        await generation.next()
        return _json(writer.whole(generation.sent))

    async def _models(self, _request: web.BaseRequest) -> web.StreamResponse:
        name = self.engine.served_name
        card = {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": name,
            "parent": None,
            "max_model_len": self.engine.model.kv_capacity_tokens,
        }
        return _json({"object": "list", "data": [card]})

    async def _health(self, _request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    async def _version(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json({"version": VERSION})

    async def _metrics(self, _request: web.BaseRequest) -> web.StreamResponse:
        text = self.engine.scrape()
        if text is None:
            return web.Response(status=500, text="Internal Server Error")
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


async def _stream(request: web.BaseRequest, generation: Generation, writer: Writer) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    with contextlib.suppress(ConnectionError):  # the client has gone, or this engine has died
        await response.prepare(request)
        data, finished = writer.opening(), False
        while not finished:
            new = await generation.next()
            finished = generation.finished
            data += writer.chunk(new, generation.sent, finished=finished)
            if finished:
                await response.write_eof(data + writer.closing(generation.sent))
            else:
                await response.write(data)
            data = b""
    return response


def _json(body: dict[str, Any], status: int = 200) -> web.StreamResponse:
    return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/json")
