"""A made-up past: what the engines of a fleet showed at every scrape, as OpenMetrics for ``promtool``.

Replicas share the requests in flight, and each is scraped at a phase of its own. One request has a prompt of
500 tokens and generates 200, the slower the more of them are in the batch.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from testbed.addresses import free_ports
from testbed.binaries import ensure
from testbed.prometheus import Prometheus

REVISION = "5d8f2c1a"
OUTPUT_TOKENS, PROMPT_TOKENS = 200.0, 500.0
"""Of one request."""


def token_seconds(running: float) -> float:
    """From one token of a request to its next, with so many in the batch: 50 ms with 58 of them."""
    return 0.015 + 0.0006 * running


FAMILIES = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:generation_tokens": "counter",
    "vllm:prompt_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:kv_cache_usage_perc": "gauge",
    # Of the histogram, all that is read.
    "vllm:inter_token_latency_seconds_sum": "unknown",
    "vllm:inter_token_latency_seconds_count": "unknown",
}


@dataclass
class Replica:
    """One pod of the past; times in Unix s."""

    name: str
    start: float
    end: float
    gaps: tuple[tuple[float, float], ...] = ()
    """Without scrapes."""
    restarts: tuple[float, ...] = ()
    """Its engine began anew: counters at 0."""


@dataclass
class Past:
    """Replicas and the requests in flight that they shared."""

    replicas: list[Replica]
    in_flight: Callable[[float], float]
    """Over the whole fleet, by Unix s."""
    interval: float = 15.0
    namespace: str = "models"
    gaps: tuple[tuple[float, float], ...] = ()
    """Nobody was scraped."""
    _samples: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in FAMILIES})

    _others: list[Past] = field(default_factory=list)

    def add(self, other: Past) -> None:
        """What else the same Prometheus scraped."""
        self._others.append(other)

    def openmetrics(self) -> str:
        """The whole past as text."""
        everything = [self, *self._others]
        for past in everything:
            for number, replica in enumerate(past.replicas):
                past._record(replica, number / len(past.replicas))
        lines = []
        for name, kind in FAMILIES.items():
            lines += [f"# TYPE {name} {kind}", *(line for past in everything for line in past._samples[name])]
        return "\n".join([*lines, "# EOF", ""])

    def _record(self, replica: Replica, phase: float) -> None:
        finished, worked, restarts = 0.0, 0.0, sorted(replica.restarts)
        for at in self._scrapes(replica, phase):
            if restarts and at >= restarts[0]:
                finished, worked = 0.0, 0.0
                restarts.pop(0)
            mine = self.in_flight(at) / max(1, sum(r.start <= at < r.end for r in self.replicas))
            worked += self.interval * mine
            finished += self.interval * mine / (OUTPUT_TOKENS * token_seconds(mine))
            if not any(a <= at < b for a, b in (*self.gaps, *replica.gaps)):
                self._show(replica.name, at, mine, finished, worked)

    def _scrapes(self, replica: Replica, phase: float) -> Iterator[float]:
        first = math.ceil(replica.start / self.interval) + phase
        for number in range(int((replica.end - replica.start) / self.interval)):
            yield round((first + number) * self.interval, 3)

    def _show(self, pod: str, at: float, running: float, finished: float, worked: float) -> None:
        labels = f'{{namespace="{self.namespace}",pod="{pod}",model_name="llama"}}'
        values = {
            "vllm:num_requests_running": running,
            "vllm:num_requests_waiting": 0.0,
            "vllm:generation_tokens": finished * OUTPUT_TOKENS,
            "vllm:prompt_tokens": finished * PROMPT_TOKENS,
            "vllm:request_success": finished,
            "vllm:kv_cache_usage_perc": min(1.0, running / 100),
            "vllm:inter_token_latency_seconds_sum": worked,
            "vllm:inter_token_latency_seconds_count": finished * OUTPUT_TOKENS,
        }
        for name, value in values.items():
            suffix = "_total" if FAMILIES[name] == "counter" else ""
            self._samples[name].append(f"{name}{suffix}{labels} {value:.6g} {at:.3f}")


def wave(start: float, seconds: float, low: float, high: float) -> Callable[[float], float]:
    """Requests in flight that rise from ``low`` to ``high`` and fall again within that time."""
    return lambda at: low + (high - low) * (1 - math.cos(2 * math.pi * (at - start) / seconds)) / 2


def prometheus_with(past: Past, directory: Path) -> Prometheus:
    """A real Prometheus that scrapes nothing and has that past on its disk."""
    (directory / "data").mkdir(parents=True)
    text = directory / "past.txt"
    text.write_text(past.openmetrics())
    # Without it blocks are of two hours, and for each of them the whole text is read again.
    longest = "--max-block-duration=240h"
    command = [str(ensure("promtool")), "tsdb", "create-blocks-from", longest, "openmetrics", "--quiet"]
    subprocess.run([*command, str(text), str(directory / "data")], check=True, capture_output=True)
    text.unlink()
    (directory / "prometheus.yaml").write_text("{}\n")
    server = Prometheus(directory, free_ports(1)[0], ["--storage.tsdb.retention.time=10y"])
    server.restart()
    return server
