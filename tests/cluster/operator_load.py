"""Requests that stay in the simulated engines until they are let go: a load of exactly so many.

Each is one connection to a pod's own address, with a request that would run for a quarter of an hour. Nothing
runs here meanwhile, so hundreds of them cost nothing. The testbed's traffic generator is for arrival rates
and latencies; this is for tests that need to know the number.
"""

import json
import select
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

ENDLESS_TOKENS = 150_000
"""At 7 ms per token, the fastest of the simulated engines: 17 minutes."""

CONNECT_SECONDS = 15.0


class HeldRequests:
    """Requests in flight, by the name of their pod. A context manager: at its end all are let go."""

    def __init__(self, port: int = 8000) -> None:
        self._port = port
        self._sockets: dict[str, list[socket.socket]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def put(self, pod: Mapping[str, Any], count: int = 1, tokens: int = ENDLESS_TOKENS) -> None:
        """Send requests to a pod.

        Args:
            pod: as the API server has it, with an address.
            count: how many.
            tokens: to generate for each; the connection is answered when they are done.
        """
        body = json.dumps({"prompt": "x", "max_tokens": tokens})
        text = (
            "POST /v1/completions HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        for _ in range(count):
            connection = _connected(pod["status"]["podIP"], self._port)
            connection.sendall(text.encode())
            self._sockets.setdefault(pod["metadata"]["name"], []).append(connection)

    def spread(self, pods: Iterable[Mapping[str, Any]], total: int) -> None:
        """Send `total` requests, evenly over these pods."""
        chosen = list(pods)
        for number, pod in enumerate(chosen):
            self.put(pod, total // len(chosen) + (number < total % len(chosen)))

    def release(self, *pods: str) -> None:
        """Let the requests of these pods go, those of all by default."""
        for name in pods or tuple(self._sockets):
            for connection in self._sockets.pop(name, []):
                connection.close()

    def on(self, pod: str) -> int:
        """Requests that were sent to this pod and have neither been answered nor cut."""
        return sum(_fate(connection) == "held" for connection in self._sockets.get(pod, []))

    @property
    def held(self) -> int:
        """Likewise, on all pods."""
        return sum(map(self.on, self._sockets))

    @property
    def cut(self) -> int:
        """Requests whose connection ended without an answer."""
        return self._count("cut")

    @property
    def answered(self) -> int:
        """Requests that were answered in full."""
        return self._count("answered")

    def _count(self, fate: str) -> int:
        return sum(_fate(c) == fate for connections in self._sockets.values() for c in connections)


def _connected(host: str, port: int) -> socket.socket:
    """Connect; an engine opens its port a moment after its pod was seen to be ready."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _fate(connection: socket.socket) -> str:
    """What became of a request, without taking its answer from the connection."""
    if not select.select([connection], [], [], 0)[0]:
        return "held"
    try:
        return "answered" if connection.recv(16, socket.MSG_PEEK).startswith(b"HTTP/1.1 200") else "cut"
    except ConnectionError:
        return "cut"
