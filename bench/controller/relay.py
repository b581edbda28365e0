"""Between the operator and Prometheus: passes every query on, and notes when the operator learnt of what.

That moment cannot be seen from outside otherwise: the operator asks every few seconds, at times of its own.
"""

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx

ROUND_SECONDS = 1.0
"""Queries closer together than this belong to one round: a tick asks all of them at once."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A query and what Prometheus said.

    Attributes:
        asked_at: when the operator asked (monotonic s).
        answered_at: when it had the answer.
        body: the answer.
    """

    asked_at: float
    answered_at: float
    body: bytes


class Relay:
    """Passes queries on to a Prometheus; use it as a context manager.

    Args:
        upstream: the Prometheus.
    """

    def __init__(self, upstream: str) -> None:
        self._client = httpx.Client(base_url=upstream, timeout=30)
        self._marks: dict[bytes, Answered] = {}
        self._wanted: set[bytes] = set()
        self._asked: list[float] = []
        handler = type("Handler", (_Handler,), {"relay": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="relay", daemon=True)

    @property
    def url(self) -> str:
        """What to configure instead of the Prometheus."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def expect(self, value: int) -> None:
        """Watch out for the first answer with this sample value in it."""
        self._wanted.add(f'"{value}"'.encode())

    def seen(self, value: int) -> Answered | None:
        """The first answer with the value in it; None while there was none."""
        return self._marks.get(f'"{value}"'.encode())

    def round_of(self, answered: Answered) -> float:
        """When the round of queries that this one belongs to began (monotonic s)."""
        start = answered.asked_at
        for at in reversed([at for at in self._asked if at < answered.asked_at]):
            if start - at > ROUND_SECONDS:
                break
            start = at
        return start

    def pass_on(self, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Ask Prometheus; called by each connection in a thread of its own."""
        asked = time.monotonic()
        answer = self._client.post(path, content=body, headers=headers)
        answered = Answered(asked, time.monotonic(), answer.content)
        self._asked.append(asked)
        for mark in [mark for mark in self._wanted if mark in answer.content]:
            self._wanted.discard(mark)
            self._marks.setdefault(mark, answered)
        return answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()


class _Handler(BaseHTTPRequestHandler):
    relay: Relay
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = {"Content-Type": self.headers["Content-Type"]}
        answer = self.relay.pass_on(self.path, body, kind)
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in http.server
        """Say nothing."""
