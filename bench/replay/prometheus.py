"""Prometheus in virtual time: what was scraped of each pod, and what instant queries answer from it.

Rules of this module:

* A pod is scraped at its own phase. A scrape that fails, and a target that goes away, leave a staleness
  marker, as in Prometheus; while Prometheus itself is down nothing is stored at all.
* Instant vectors look back five minutes, open on the left, and end at a staleness marker. Range vectors do
  not see markers (Prometheus 3.16, promql/engine.go).
* `rate` is promql/functions.go, extrapolatedRate: resets, extrapolation, and the cut at zero included.
* A pod that loads exports nothing: it has no series until its first scrape after it serves.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from bench.replay.faults import Fault, FaultKind

LOOKBACK_SECONDS = 300.0
"""Default of ``--query.lookback-delta``."""

KEEP_SECONDS = 900.0
"""Samples older than this answer no query that is asked here."""

SCRAPE_INTERVAL = 15.0


class Unavailable(Exception):  # noqa: N818 - what a client sees, in the words of its policy
    """Prometheus cannot be asked."""


class Exposition(NamedTuple):
    """What one engine shows at a scrape; names without the ``vllm:`` prefix."""

    generation_tokens_total: float
    prompt_tokens_total: float
    request_success_total: float
    num_requests_running: float
    num_requests_waiting: float
    kv_cache_usage_perc: float
    inter_token_latency_seconds_sum: float = 0.0
    inter_token_latency_seconds_count: float = 0.0


def rate(samples: Sequence[tuple[float, float]], start: float, end: float) -> float | None:
    """``rate()`` over the samples (s, value) within (start, end]; None with fewer than two.

    Source: Prometheus 3.16, promql/functions.go, extrapolatedRate (without start timestamps).
    """
    if len(samples) < 2:
        return None
    first_at, first = samples[0]
    last_at, last = samples[-1]
    increase = last - first + _reset_total(samples)
    sampled = last_at - first_at
    average = sampled / (len(samples) - 1)
    before, after = first_at - start, end - last_at
    if before >= average * 1.1:
        before = average / 2
    if increase > 0 and first >= 0:  # a counter was zero at the earliest: do not extrapolate to before that
        before = min(before, sampled * first / increase)
    if after >= average * 1.1:
        after = average / 2
    return increase * ((sampled + before + after) / sampled) / (end - start)


def _reset_total(samples: Sequence[tuple[float, float]]) -> float:
    """What the counter held each time it fell."""
    total, previous = 0.0, samples[0][1]
    for _, value in samples:
        if value < previous:
            total += previous
        previous = value
    return total


@dataclass(slots=True)
class _Target:
    """The samples of one pod; all its series are scraped at once. None is a staleness marker."""

    times: list[float] = field(default_factory=list)
    rows: list[Exposition | None] = field(default_factory=list)

    def append(self, at: float, row: Exposition | None) -> None:
        self.times.append(at)
        self.rows.append(row)
        if self.times[0] < at - 2 * KEEP_SECONDS:  # rarely, so that the cost per sample stays constant
            old = bisect_right(self.times, at - KEEP_SECONDS)
            del self.times[:old], self.rows[:old]

    def latest(self, at: float) -> tuple[float, Exposition] | None:
        """The last row that an instant selector sees."""
        found = bisect_right(self.times, at) - 1
        if found < 0 or self.times[found] <= at - LOOKBACK_SECONDS:
            return None
        row = self.rows[found]
        return None if row is None else (self.times[found], row)

    def within(self, column: int, start: float, end: float) -> list[tuple[float, float]]:
        """The samples of a range selector: markers left out, the start open (since Prometheus 3)."""
        low, high = bisect_right(self.times, start), bisect_right(self.times, end)
        return [(self.times[i], row[column]) for i in range(low, high) if (row := self.rows[i]) is not None]

    def rate(self, column: int, window: float, at: float) -> float | None:
        """See `rate`."""
        return rate(self.within(column, at - window, at), at - window, at)

    def slope(self, column: int, window: float, unbroken: float, at: float) -> float | None:
        """See `Prometheus.slopes`."""
        last, then = self.latest(at), self.latest(at - window)
        samples = self.within(column, at - unbroken, at)
        reset = any(later < earlier for (_, earlier), (_, later) in pairwise(samples))
        if last is None or then is None or not samples or reset:
            return self.rate(column, window, at)
        seconds = last[0] - then[0]
        return (last[1][column] - then[1][column]) / seconds if seconds else math.nan


class Prometheus:
    """Scraped samples by pod, and the queries that the policies ask.

    Args:
        faults: What goes wrong, and when.
    """

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._targets: dict[str, _Target] = {}
        self._gone: dict[str, float] = {}

    def scrape(self, pod: str, ordinal: int, at: float, row: Exposition | None) -> None:
        """Store what a pod exposed; None: it could not be reached."""
        active = [f for f in self._faults if f.start <= at < f.end]
        if any(f.kind is FaultKind.PROMETHEUS for f in active):
            return
        if any(f.hides(ordinal) for f in active):
            row = None
        target = self._targets.get(pod)
        if target is None:
            if row is None:
                return
            target = self._targets[pod] = _Target()
        target.append(at, row)

    def forget(self, pod: str, at: float) -> None:
        """The pod is deleted: its series end with a staleness marker; its samples stay for a while."""
        if (target := self._targets.get(pod)) is not None:
            target.append(at, None)
            self._gone[pod] = at
        for name in [n for n, when in self._gone.items() if when < at - KEEP_SECONDS]:
            del self._targets[name], self._gone[name]

    def instant(self, column: str, at: float) -> dict[str, float]:
        """An instant vector by pod.

        Raises:
            Unavailable: Prometheus is down.
        """
        index = Exposition._fields.index(column)
        return {pod: row[index] for pod, (_, row) in self._latest(at)}

    def timestamps(self, at: float, offset: float = 0.0) -> dict[str, float]:
        """``timestamp(series offset …)`` by pod: when its last visible sample was scraped.

        Raises:
            Unavailable: Prometheus is down.
        """
        self._ask(at)
        return {pod: when for pod, (when, _) in self._seen(at - offset)}

    def rates(self, column: str, window: float, at: float) -> dict[str, float]:
        """``rate(column[window])`` by pod.

        Raises:
            Unavailable: Prometheus is down.
        """
        self._ask(at)
        index = Exposition._fields.index(column)
        known = ((pod, target.rate(index, window, at)) for pod, target in self._targets.items())
        return {pod: value for pod, value in known if value is not None}

    def slopes(self, column: str, window: float, unbroken: float, at: float) -> dict[str, float]:
        """From the last sample before the window to the last one, per second, by pod; else ``rate()``.

        ``((c - c offset W) / (timestamp(c) - timestamp(c offset W)) and resets(c[unbroken]) == 0) or
        rate(c[W])``; NaN for 0 / 0.

        Raises:
            Unavailable: Prometheus is down.
        """
        self._ask(at)
        index = Exposition._fields.index(column)
        known = ((pod, target.slope(index, window, unbroken, at)) for pod, target in self._targets.items())
        return {pod: value for pod, value in known if value is not None}

    def averages(self, column: str, window: float, at: float) -> dict[str, float]:
        """``avg_over_time(column[window])`` by pod.

        Raises:
            Unavailable: Prometheus is down.
        """
        self._ask(at)
        index = Exposition._fields.index(column)
        seen = {pod: target.within(index, at - window, at) for pod, target in self._targets.items()}
        return {pod: sum(v for _, v in found) / len(found) for pod, found in seen.items() if found}

    def means(self, histogram: str, window: float, at: float) -> dict[str, float]:
        """``rate(histogram_sum[window]) / rate(histogram_count[window])`` by pod; NaN for 0 / 0.

        Raises:
            Unavailable: Prometheus is down.
        """
        sums, counts = (self.rates(f"{histogram}_{part}", window, at) for part in ("sum", "count"))
        return {pod: sums[pod] / count if count else math.nan for pod, count in counts.items()}

    def _latest(self, at: float) -> Iterator[tuple[str, tuple[float, Exposition]]]:
        self._ask(at)
        return self._seen(at)

    def _seen(self, at: float) -> Iterator[tuple[str, tuple[float, Exposition]]]:
        for pod, target in self._targets.items():
            if (found := target.latest(at)) is not None:
                yield pod, found

    def _ask(self, at: float) -> None:
        if any(f.kind is FaultKind.PROMETHEUS and f.start <= at < f.end for f in self._faults):
            raise Unavailable("Prometheus does not answer")
