"""From readings to demand: what the replicas of one ModelDeployment carry, as far as it is known.

Rules of this module:

* A total is complete only when every replica that is known to serve has answered with a fresh value.
  An incomplete total is still a lower bound: it may add replicas, it never takes one away.
* What Prometheus said long ago is not fresh, however fresh it was then: a gatherer that hangs
  shrinks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stoker.api.v1alpha1 import Freshness
from stoker.core.observed import Pod
from stoker.core.readings import (
    FOR_LEARNING,
    Fresh,
    Key,
    Metrics,
    Missing,
    PodMetrics,
    Reading,
    Signal,
    Stale,
)

WARM_UP_SECONDS = 30.0
"""Beyond the rate window: how long a replica that just became ready may take to show up in Prometheus."""

ANSWERS_LAST = 60.0
"""Seconds that an answer of Prometheus can be acted on: a few intervals of asking."""

FIRST_TOKEN_QUANTILE = 0.95


class Total(NamedTuple):
    """One signal over all replicas of a ModelDeployment."""

    at_least: float
    """Sum of what was answered freshly: a lower bound of the truth."""
    reading: Reading
    """Fresh only when complete."""
    covered: int
    """Serving replicas that answered freshly."""
    expected: int
    """Serving replicas that should have: all but those that just became ready."""
    serving: int
    """All serving replicas."""

    @property
    def complete(self) -> bool:
        """Whether every serving replica answered: only then may the total shrink a fleet."""
        return isinstance(self.reading, Fresh)

    @property
    def blind(self) -> bool:
        """Whether no serving replica is known to carry anything."""
        return self.covered == 0

    @property
    def freshness(self) -> Freshness:
        """The worst of the readings; replicas that just became ready are not held against it."""
        if self.covered >= self.expected and self.covered > 0:
            return Freshness.FRESH
        return Freshness.STALE if isinstance(self.reading, Stale) else Freshness.MISSING


class FirstToken(NamedTuple):
    """What the replicas' histograms say about the time to the first token."""

    p95: float | None
    """Seconds, over all replicas that answered; None when none of their requests got its first token."""
    covered: int
    """Serving replicas that answered."""
    expected: int
    """Serving replicas that should have: all but those that just became ready."""
    why: str = ""
    """Why some did not answer; empty when all did."""


class InFlight(NamedTuple):
    """The requests in one replica, as far as it said."""

    running: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What the replicas of one ModelDeployment carry, as far as it is known."""

    totals: Mapping[Signal, Total]
    first_token: FirstToken
    """The time to first token over all replicas."""
    serving: int
    settled: int = 0
    """Replicas that have served for longer than the rate window: the latencies show what they changed."""
    rate_window: float = 0.0
    """Seconds behind each rate."""
    in_flight: tuple[InFlight, ...] = ()
    """Of each replica that answered freshly."""


# --- Totals --------------------------------------------------------------------------------------


class _Counted(NamedTuple):
    """A pod whose readings count, and what was read of it: looked up once, not once per signal."""

    pod: Pod
    serves: bool
    """Whether it is routed to."""
    known: PodMetrics | None
    """None: nobody asked for it."""


def measure(metrics: Metrics, pods: Sequence[Pod], now: float, rate_window: float) -> Demand:
    """Sum the readings of one ModelDeployment's pods and check who answered.

    Args:
        metrics: All readings of this tick.
        pods: The ModelDeployment's pods, in any order.
        now: Unix s.
        rate_window: Seconds of the engine's rate window.
    """
    metrics = _aged(metrics, now)
    counted = [
        _Counted(p, p.routed, metrics.pods.get(p.key)) for p in pods if not p.deleting and not p.terminal
    ]
    known = [c.known for c in counted if c.known is not None]
    signals = sorted(set().union(*(m.readings for m in known)) - FOR_LEARNING)
    grace = rate_window + WARM_UP_SECONDS
    routed = [c.pod for c in counted if c.serves]
    return Demand(
        totals={signal: _total(signal, metrics.at, counted, now, grace) for signal in signals},
        first_token=_first_token(metrics, counted, now, grace),
        serving=len(routed),
        settled=sum([not _warming(p, now, rate_window) for p in routed]),
        rate_window=rate_window,
        in_flight=tuple([_in_flight(m) for m in known]),
    )


def _in_flight(metrics: PodMetrics) -> InFlight:
    running, waiting = metrics.readings.get(Signal.RUNNING), metrics.readings.get(Signal.WAITING)
    return InFlight(
        running.value if isinstance(running, Fresh) else 0.0,
        waiting.value if isinstance(waiting, Fresh) else 0.0,
    )


def _aged(metrics: Metrics, now: float) -> Metrics:
    """The metrics; without readings if they were gathered too long ago, or in the future, to be acted on."""
    if abs(now - metrics.at) <= ANSWERS_LAST:
        return metrics
    why = Missing(f"Prometheus was asked last {now - metrics.at:.0f} s ago")
    return Metrics(
        at=metrics.at,
        pods={pod: PodMetrics(dict.fromkeys(m.readings, why)) for pod, m in metrics.pods.items()},
        first_token_failure=why.why,
        failure=metrics.failure,
    )


def _total(signal: Signal, at: float, pods: Sequence[_Counted], now: float, grace: float) -> Total:
    proved, moments, routed = [], [], 0
    for _, serves, known in pods:  # one look at each, without a call: there are tens of thousands per tick
        reading = known.readings.get(signal) if known is not None else None
        if isinstance(reading, Fresh):
            proved.append(reading.value)
            if serves:
                moments.append(reading.at)
        elif isinstance(reading, Stale) and reading.at >= at:  # the window still fills: so much at least
            proved.append(reading.value)
        routed += serves
    at_least, covered = math.fsum(proved), len(moments)
    if 0 < covered == routed:
        return Total(at_least, Fresh(at_least, min(moments)), covered, routed, routed)
    serving = [(c.pod, _reading_of(c.known, signal)) for c in pods if c.serves]
    warming = sum(not isinstance(r, Fresh) and _warming(p, now, grace) for p, r in serving)
    worst = _incomplete([(p.key, r) for p, r in serving], at_least)
    return Total(at_least, worst, covered, routed - warming, routed)


def _warming(pod: Pod, now: float, grace: float) -> bool:
    return pod.ready_since is not None and now - pod.ready_since < grace


_NOT_ASKED, _NO_SUCH_METRIC = Missing("the pod was not asked for"), Missing("the engine has no such metric")


def _reading_of(known: PodMetrics | None, signal: Signal) -> Reading:
    return _NOT_ASKED if known is None else known.readings.get(signal, _NO_SUCH_METRIC)


def _incomplete(serving: Sequence[tuple[Key, Reading]], at_least: float) -> Missing | Stale:
    """The worst of the readings: Missing before Stale; it names one pod as the example."""
    if not serving:
        return Missing("no replica serves yet")
    ordered = sorted(serving, key=lambda pair: pair[0])
    for key, reading in ordered:
        if isinstance(reading, Missing):
            return Missing(f"{key.name}: {reading.why}")
    return Stale(at_least, min(r.at for _, r in ordered if isinstance(r, Stale)))


def _first_token(metrics: Metrics, pods: Sequence[_Counted], now: float, grace: float) -> FirstToken:
    """p95 over the summed histograms of all pods that answered, and who did."""
    summed: dict[float, float] = {}
    told = [(c.pod.key, c.known.first_token_buckets) for c in pods if c.known and c.known.first_token_buckets]
    for _, known in sorted(told):
        for bound, rate in known:
            summed[bound] = summed.get(bound, 0.0) + rate
    silent = [c.pod for c in pods if c.serves and (c.known is None or not c.known.first_token_buckets)]
    routed = sum([c.serves for c in pods])
    expected = routed - sum([_warming(p, now, grace) for p in silent])
    covered = routed - len(silent)
    value = histogram_quantile(FIRST_TOKEN_QUANTILE, sorted(summed.items()))
    return FirstToken(value, covered, expected, _why_silent(metrics, silent) if covered < expected else "")


def _why_silent(metrics: Metrics, silent: Sequence[Pod]) -> str:
    if metrics.first_token_failure is not None:
        return f"Prometheus: {metrics.first_token_failure}"
    return f"{min([p.key for p in silent]).name}: no histogram of the time to first token"


def histogram_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Quantile of a cumulative histogram, as Prometheus' ``histogram_quantile`` computes it.

    Args:
        q: 0 < q < 1.
        buckets: (upper bound, cumulative count or rate), ascending, ending in +Inf.

    Returns:
        Linear interpolation within the bucket; the highest finite bound if the quantile lies beyond it;
        None without observations or without a +Inf bucket (promql/quantile.go, bucketQuantile).
    """
    if len(buckets) < 2 or not math.isinf(buckets[-1][0]) or buckets[-1][1] <= 0:
        return None
    rank = q * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, cumulative in buckets:
        if cumulative >= rank:
            if math.isinf(bound):
                return lower
            width = cumulative - below
            return lower + (bound - lower) * ((rank - below) / width if width > 0 else 1.0)
        lower, below = bound, cumulative
    return lower
