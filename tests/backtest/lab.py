"""What the tests of the replay and of its report share: answers as Prometheus would have given them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from stoker.backtest.recorded import Life
from stoker.core.promql import Freshness, series_id
from stoker.core.readings import Key, MetricNames, Signal
from stoker.core.signals import Answer, Sample, Samples

START = 1_800_000_000.0
NAMESPACE = "models"


def life(number: int, start: float = START - 7200.0, end: float = math.inf, *, began: bool = False) -> Life:
    """A replica; by default there was one before the period and to its end."""
    return Life(Key(NAMESPACE, f"llama-5d8f2c1a-{number}"), start, end, began)


def answers(
    names: MetricNames, lives: Iterable[Life], at: float, loads: Mapping[Signal, float]
) -> dict[str, Answer]:
    """Fresh and whole answers: each replica carries an equal part of the loads."""
    pods = [one.pod for one in lives]
    found: dict[str, Answer] = {
        signal.value: _vector(names, signal, pods, total / max(1, len(pods)), at)
        for signal, total in loads.items()
    }
    window = names.rate_window_seconds
    found[Freshness.LAST_SAMPLE.value] = _vector(names, Signal.RUNNING, pods, at, at)
    found[Freshness.WINDOW_START.value] = _vector(names, Signal.RUNNING, pods, at - window, at)
    return found


def _vector(names: MetricNames, signal: Signal, pods: Iterable[Key], value: float, at: float) -> Samples:
    tag = series_id(names.series[signal][-1], names)
    return Samples(
        tuple(Sample({"namespace": p.namespace, "pod": p.name, "series": tag}, value, at) for p in pods)
    )
