"""What was measured: readings that know whether they are fresh, stale or missing, and what engines publish.

Rules of this module:

* Zero, stale and missing are three different things. A number that Prometheus gave is a ``Reading``:
  ``Fresh``, ``Stale`` or ``Missing``, never a bare float that defaults to 0.
* Times are Unix seconds (float, UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Key(NamedTuple):
    """A namespaced name: of a ModelDeployment or of a pod."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# --- Readings ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fresh:
    """A value that can be acted on, and the time (Unix s) it was measured."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Stale:
    """A value too old, or of a window not yet whole: it never shrinks a fleet."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, and why not, in words for a status message."""

    why: str


Reading = Fresh | Stale | Missing


class Signal(StrEnum):
    """What Stoker asks of every engine; the values are the names shown in status."""

    GENERATED_TOKENS = "generatedTokens"
    """Generated tokens per second."""
    PROMPT_TOKENS = "promptTokens"
    """Prompt tokens per second that were really computed (cached ones excluded where the engine says)."""
    REQUESTS = "requests"
    """Finished requests per second."""
    RUNNING = "running"
    """Requests in the batch now."""
    WAITING = "waiting"
    """Requests queued in the engine now."""
    CACHE_USAGE = "cacheUsage"
    """Share of the KV cache in use, 0..1, averaged over the rate window."""
    INTER_TOKEN_LATENCY = "interTokenLatency"  # noqa: S105 - a signal, not a secret
    """Seconds from one token of a request to its next, averaged over the rate window. The series is a
    histogram, by its base name; an engine without one names its counter of generated tokens here, which with
    the requests in the batch tells the same: each gets one token per iteration."""


FOR_LEARNING = frozenset({Signal.CACHE_USAGE, Signal.INTER_TOKEN_LATENCY})
"""Signals that teach what a replica can carry. They are no demand: without them no decision is blind."""


@dataclass(frozen=True, slots=True)
class PodMetrics:
    """One pod's readings. A signal that is absent from ``readings`` was not asked for."""

    readings: Mapping[Signal, Reading]
    first_token_buckets: tuple[tuple[float, float], ...] = ()
    """Time to first token: (upper bound in s, cumulative observations per second), ascending."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything Prometheus said in one tick, by pod."""

    at: float
    pods: Mapping[Key, PodMetrics] = field(default_factory=dict)
    signals: Mapping[str, Reading] = field(default_factory=dict)
    """What the users' own queries gave, by query."""
    held: Mapping[Key, Reading] = field(default_factory=dict)
    """Requests that an inference gateway holds, by ModelDeployment; absent where there is no gateway."""
    first_token_failure: str | None = None
    """Why the histograms of the first token could not be asked for; None when they were, or need not be."""
    failure: str | None = None
    """Why Prometheus could not be asked at all; None when it answered."""
    pending: bool = False
    """Nobody has asked it lately, because nobody needed to know: nothing is wrong, and nothing is known."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What a draining engine itself said over HTTP."""

    in_flight: Reading
    """Requests running and waiting."""
    idle_polls: int = 0
    """How many polls in a row said zero."""


# --- What engines publish ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """One Prometheus metric, narrowed to the series with these labels."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """The series as a PromQL selector."""
        if not self.labels:
            return self.name
        return self.name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(self.labels.items())) + "}"


@dataclass(frozen=True, slots=True)
class MetricNames:
    """Where an engine publishes its load, and under which names."""

    path: str
    """HTTP path on the engine's port."""
    series: Mapping[Signal, tuple[Series, ...]] = field(hash=False)
    """Alternatives per signal, the preferred one first; a signal that the engine does not publish is
    absent."""
    first_token: str | None
    """Base name, without `_bucket`, of the histogram of seconds to the first token."""
    rate_window_seconds: float
    """The shortest window over which a rate of these counters means something."""
