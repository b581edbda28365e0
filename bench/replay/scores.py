"""What a run is judged by.

Rules of this module:

* Every request that arrived after the warm-up counts, served or not.
* GPU-time is from a pod's creation to its deletion, within the scored time.
* Latency begins at arrival, so that a queue in the gateway counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from bench.replay.fleet import Fleet
from testbed.replica import Request

TTFT_SECONDS = 2.0
TPOT_SECONDS = 0.050
QUEUE = 50
"""Requests that wait, in all engines together, from which on a minute counts as one with a queue."""

GRACES = (30, 60, 300, 600)
"""Termination grace periods (s) for which the requests are counted that they would have cut."""


@dataclass(frozen=True, slots=True)
class Score:
    """One run's figures.

    Attributes:
        requests: that arrived and count.
        attainment: share of them with TTFT ≤ 2 s and TPOT ≤ 50 ms.
        attainment_by_length: the same with TTFT ≤ 1 s + 0.5 ms per prompt token.
        replica_hours: pods from creation to deletion; times the GPUs of a replica it is GPU-hours.
        ttft: p50, p95, p99, seconds.
        tpot: p50, p95, p99, seconds.
        queue_minutes: minutes that began with more than 50 requests waiting.
        reversals_per_day: how often the direction of decisions changed, per 24 h.
        decisions: how often the target changed.
        peak: highest target.
        capped_minutes: time at the most replicas that were allowed.
        cut: requests that would have been cut, by termination grace in seconds; the run cuts none.
    """

    requests: int
    attainment: float
    attainment_by_length: float
    replica_hours: float
    ttft: tuple[float, float, float]
    tpot: tuple[float, float, float]
    queue_minutes: int
    reversals_per_day: float
    decisions: int
    peak: int
    capped_minutes: float
    cut: dict[str, int]

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {**asdict(self), "ttft": list(self.ttft), "tpot": list(self.tpot)}


class Ledger:
    """Books a run."""

    def __init__(self, warm_up: float, duration: float, maximum: int) -> None:
        self._warm_up = warm_up
        self._duration = duration
        self._maximum = maximum
        self._ttft = array("d")
        self._tpot = array("d")
        self._good = 0
        self._good_by_length = 0
        self.unserved_requests = 0
        """Requests that no replica ever took."""
        self.cut_requests = 0
        """Requests that were in flight when their pod was deleted."""
        self._queued = 0
        self._cut = dict.fromkeys(GRACES, 0)
        self._replica_seconds = 0.0
        self.targets: list[tuple[float, int]] = []
        """(s, replicas) of every decision that changed the target, the initial one first."""

    def finished(self, request: Request, drain_since: float | None) -> None:
        """A request has its last token; its id is the time of its arrival in ns."""
        arrival, first, last = int(request.id), request.first_token_ns, request.finished_ns
        assert first is not None and last is not None  # noqa: S101, PT018 - it has finished
        if drain_since is not None:
            self._would_be_cut(last / 1e9 - drain_since)
        if arrival < self._warm_up * 1e9:
            return
        ttft = (first - arrival) / 1e9
        tpot = (last - first) / 1e9 / max(1, request.output_tokens - 1)
        self._ttft.append(ttft)
        self._tpot.append(tpot)
        self._good += ttft <= TTFT_SECONDS and tpot <= TPOT_SECONDS
        self._good_by_length += ttft <= 1.0 + 0.0005 * request.prompt_tokens and tpot <= TPOT_SECONDS

    def _would_be_cut(self, after: float) -> None:
        for grace in GRACES:
            self._cut[grace] += after > grace

    def unserved(self, request: Request) -> None:
        """A request that no replica ever took."""
        self.unserved_requests += int(request.id) >= self._warm_up * 1e9

    def probed(self, at: float, waiting: int) -> None:
        """The engines' queues, once a minute."""
        self._queued += waiting > QUEUE and at >= self._warm_up

    def decided(self, at: float, target: int) -> None:
        """The target changed."""
        self.targets.append((at, target))

    def close(self, fleet: Fleet) -> None:
        """The workload is over: make up the bill."""
        self._replica_seconds = fleet.pod_seconds(self._warm_up, self._duration)
        self.cut_requests = sum(pod.in_flight for pod in fleet.all if pod.deleted is not None)

    def score(self) -> Score:
        """The figures."""
        requests = len(self._ttft) + self.unserved_requests
        targets = [n for _, _, n in self._stretches()]
        days = (self._duration - self._warm_up) / 86_400
        return Score(
            requests=requests,
            attainment=self._good / requests if requests else 1.0,
            attainment_by_length=self._good_by_length / requests if requests else 1.0,
            replica_hours=self._replica_seconds / 3600,
            ttft=_percentiles(self._ttft),
            tpot=_percentiles(self._tpot),
            queue_minutes=self._queued,
            reversals_per_day=reversals(targets) / days,
            decisions=len(targets) - 1,
            peak=max(targets),
            capped_minutes=self._capped_seconds() / 60,
            cut={str(grace): number for grace, number in self._cut.items()},
        )

    def _stretches(self) -> list[tuple[float, float, int]]:
        """(since, until, target) within the scored time; the first is what was in force when it began."""
        ends = [at for at, _ in self.targets[1:]] + [self._duration]
        return [
            (max(since, self._warm_up), until, target)
            for (since, target), until in zip(self.targets, ends, strict=True)
            if until > self._warm_up
        ]

    def _capped_seconds(self) -> float:
        return sum(until - since for since, until, n in self._stretches() if n >= self._maximum)


def reversals(targets: Sequence[int]) -> int:
    """How often the direction of a series of different targets changes."""
    ups = [b > a for a, b in pairwise(targets)]
    return sum(a != b for a, b in pairwise(ups))


def _percentiles(values: array[float]) -> tuple[float, float, float]:
    """p50, p95, p99 by nearest rank; zeros without values."""
    if not values:
        return (0.0, 0.0, 0.0)
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[round(0.50 * last)], ordered[round(0.95 * last)], ordered[round(0.99 * last)])


def target_at(targets: Sequence[tuple[float, int]], at: float) -> int:
    """The target in force at a moment (s)."""
    current = targets[0][1]
    for when, target in targets:
        if when > at:
            break
        current = target
    return current


def wrong_way(
    faulted: Sequence[tuple[float, int]], reference: Sequence[tuple[float, int]], start: float, end: float
) -> tuple[int, int]:
    """What a fault made a policy remove.

    A move is wrong when it goes down within the fault or the minute after it, to below everything that the
    same run without the fault wanted from a minute before until a minute after that moment.

    Returns:
        (wrong moves, most replicas below the reference).
    """
    moves, worst = 0, 0
    for (_, before), (at, after) in pairwise(faulted):
        if not (after < before and start <= at <= end):
            continue
        near = [n for when, n in reference if at - 60 <= when <= at + 60]
        least = min([*near, target_at(reference, at - 60)])
        if after < least:
            moves += 1
            worst = max(worst, least - after)
    return moves, worst
