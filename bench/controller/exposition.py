"""What all engines of a fleet say, at one address: vLLM's series for tens of thousands of pods.

A real Prometheus scrapes it (`prometheus_configuration`); the labels `namespace` and `pod`, which it would
otherwise attach itself, are in the text. Each engine's load swings by a tenth around what its replica is to
carry, so that the numbers always move and the replica counts never do, until `surge` says otherwise. A real
engine has some hundred series more; the operator's queries touch none of them.
"""

import math
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from bench.controller.fleet import REQUESTS_PER_REPLICA

SCRAPE_SECONDS = 7
"""Of no common measure with the operator's interval, so that the two do not march in step."""
RARE_SCRAPE_SECONDS = 17
"""Likewise, for so many pods that writing and scraping them takes seconds of the machine that is measured."""
MANY_PODS = 10_000
RUNNING = "vllm:num_requests_running"
CACHE = "vllm:kv_cache_usage_perc"
_REQUESTS = 0.85 * REQUESTS_PER_REPLICA
_TOKENS_PER_REQUEST = 350
_CACHE_USED = 0.3
_SWING = 0.1
_PERIOD_SECONDS = 120.0
_FAMILIES = (
    (RUNNING, "gauge", ""),
    ("vllm:num_requests_waiting", "gauge", ""),
    ("vllm:generation_tokens_total", "counter", ""),
    ("vllm:prompt_tokens_total", "counter", ""),
    ("vllm:prompt_tokens_by_source_total", "counter", ',source="local_compute"'),
    ("vllm:request_success_total", "counter", ',finished_reason="stop"'),
    (CACHE, "gauge", ""),
    # Of the histogram, the two series that are read.
    ("vllm:inter_token_latency_seconds_sum", "untyped", ""),
    ("vllm:inter_token_latency_seconds_count", "untyped", ""),
)
_PER_SECOND = {"vllm:request_success_total": 1.0, "vllm:inter_token_latency_seconds_sum": _REQUESTS}
"""Rates that are not those of tokens: each request in the batch is in it for a second per second."""

PodName = tuple[str, str]


class Exposition:
    """Serves the metrics of these pods; use it as a context manager.

    Args:
        pods: (namespace, name) of each.
    """

    def __init__(self, pods: Sequence[PodName]) -> None:
        self._pods = pods
        self._surges: dict[PodName, int] = {}
        self._started = time.monotonic()
        handler = type("Handler", (_Handler,), {"exposition": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="exposition", daemon=True)

    @property
    def scrape_seconds(self) -> int:
        """How often a Prometheus asks it."""
        return RARE_SCRAPE_SECONDS if len(self._pods) > MANY_PODS else SCRAPE_SECONDS

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def surge(self, pod: PodName, requests: int) -> None:
        """Let an engine have so many requests in flight from the next scrape on."""
        self._surges[pod] = requests

    def text(self) -> str:
        """All series, in the Prometheus text format."""
        elapsed = time.monotonic() - self._started
        lines: list[str] = []
        for name, kind, labels in _FAMILIES:
            lines.append(f"# TYPE {name} {kind}")
            for number, pod in enumerate(self._pods):
                value = self._value(name, number, pod, elapsed)
                lines.append(f'{name}{{namespace="{pod[0]}",pod="{pod[1]}",engine="0"{labels}}} {value:.3f}')
        lines.append("")
        return "\n".join(lines)

    def _value(self, name: str, number: int, pod: PodName, elapsed: float) -> float:
        if name == RUNNING:
            return self._surges.get(pod) or swung(_REQUESTS, elapsed, number)
        if name.endswith("waiting"):
            return 0.0
        if name == CACHE:
            return swung(_CACHE_USED, elapsed, number)
        return counted(_PER_SECOND.get(name, _REQUESTS * _TOKENS_PER_REQUEST), elapsed, number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def swung(mean: float, elapsed: float, number: int) -> float:
    """Return a value that swings around its mean, each pod at another time."""
    return mean * (1 + _SWING * math.sin(2 * math.pi * elapsed / _PERIOD_SECONDS + number))


def counted(per_second: float, elapsed: float, number: int) -> float:
    """Return the counter whose rate is `swung(per_second, …)`: its integral over time."""
    angular = 2 * math.pi / _PERIOD_SECONDS
    swing = _SWING / angular * (math.cos(number) - math.cos(angular * elapsed + number))
    return per_second * (elapsed + swing)


class _Handler(BaseHTTPRequestHandler):
    exposition: Exposition

    def do_GET(self) -> None:
        body = self.exposition.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in http.server
        """Say nothing: a line per scrape tells nobody anything."""


def prometheus_configuration(exposition: Exposition) -> dict[str, object]:
    """Return the configuration of a Prometheus that scrapes one exposition."""
    seconds = f"{exposition.scrape_seconds}s"
    targets = [{"targets": [exposition.address]}]
    job = {"job_name": "engines", "honor_labels": True, "static_configs": targets}
    return {
        "global": {"scrape_interval": seconds, "scrape_timeout": seconds, "evaluation_interval": seconds},
        "scrape_configs": [job],
    }
