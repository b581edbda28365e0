"""Whatever the schedules and the traffic: within the bounds of the moment, and unknown is not zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stoker.core.observed import Memory, ModelDeployment, Snapshot
from stoker.core.readings import Fresh, Metrics, Missing, Reading
from stoker.core.reconcile import reconcile
from stoker.core.schedule import Bounds, bounds
from tests.factories import deployment, load, metrics, pod, silent

START = datetime(2026, 3, 28, 20, tzinfo=UTC).timestamp()
"""The evening before clocks change in Berlin."""
QUERY = "sum(depth)"

hours = st.integers(0, 23)
held = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted)
schedules = st.lists(st.tuples(hours, hours, held).filter(lambda s: s[0] != s[1]), max_size=3)
steps = st.lists(
    st.tuples(
        st.sampled_from([5.0, 60.0, 1800.0, 7000.0]),
        st.none() | st.integers(0, 60),
        st.none() | st.integers(0, 60),
    ),
    min_size=1,
    max_size=12,
)


def fleet(chosen: list[Any], least: int) -> ModelDeployment:
    """With these schedules, and a signal beside the requests in flight."""
    listed = [
        {
            "name": f"s{n}",
            "timeZone": "Europe/Berlin",
            "start": f"0 {start} * * *",
            "end": f"0 {end} * * *",
            "minReplicas": low,
            "maxReplicas": high,
        }
        for n, (start, end, (low, high)) in enumerate(chosen)
    ]
    signal = {"name": "depth", "query": QUERY, "target": 10}
    targets = {"concurrentRequests": 10}
    windows = {"up": "5s", "down": "1m", "toZero": "1m"}
    scaling = {"minReplicas": least, "maxReplicas": 6, "targets": targets, "windows": windows}
    return deployment(scaling={**scaling, "schedules": listed, "signals": [signal]})


def answered(d: ModelDeployment, now: float, running: int | None, depth: int | None) -> Snapshot:
    """What is seen when as many replicas serve as were wanted last; None is a signal that is not there."""
    pods = tuple(
        pod(n, of=d, created_at=now - 9000, ready_since=now - 9000)
        for n in range(d.status.desired_replicas or 0)
    )
    said = {p: silent() if running is None else load(running / len(pods), at=now) for p in pods}
    signal: Reading = Missing("gone") if depth is None else Fresh(depth, now)
    found: Metrics = replace(metrics(said, at=now), signals={QUERY: signal})
    return Snapshot(now, {d.key: d}, {d.key: pods}, metrics=found)


@given(schedules, steps, st.integers(0, 3))
def test_within_the_bounds_of_the_moment_and_never_less_for_want_of_knowledge(chosen, steps, least):
    d, now, memory = fleet(chosen, least), START, Memory()
    assert d.spec is not None
    assert d.spec.scaling is not None
    for seconds, running, depth in steps:
        now += seconds
        before = d.status.desired_replicas
        seen = replace(answered(d, now, running, depth), memory={d.key: memory})
        plan = reconcile(seen)[d.key]
        memory, d = plan.memory, replace(d, status=plan.status or d.status)
        found, wanted = bounds(d.spec.scaling, now), d.status.desired_replicas
        assert wanted is not None
        assert found.least <= wanted <= found.most
        assert plan.requeue_at is None or found.until is None or plan.requeue_at <= found.until
        if before is not None and wanted < before and None in {running if before else 0, depth}:
            assert wanted == found.most
        assert _shown(d) == (found if chosen else Bounds(least, 6))


def _shown(d: ModelDeployment) -> Bounds:
    """The bounds that status shows, in the words of the core."""
    assert d.spec is not None
    assert d.spec.scaling is not None
    assert d.status.scaling is not None
    shown = d.status.scaling.bounds
    if shown is None:
        return Bounds(d.spec.scaling.min_replicas, d.spec.scaling.max_replicas)
    assert shown.until is not None
    found = bounds(d.spec.scaling, shown.until.timestamp() - 1)
    assert (shown.min_replicas, shown.max_replicas) == (found.least, found.most)
    return found
