"""Invariants across objects and across time: order, counter resets, how often is looked, what is granted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stoker.core import promql, signals
from stoker.core.capacity import SCHEDULING_GRACE, allocate
from stoker.core.faces import Face
from stoker.core.observed import Memory, ModelDeployment, Pod, Snapshot
from stoker.core.promql import Freshness
from stoker.core.readings import Fresh, Key, PodMetrics, Signal
from stoker.core.reconcile import reconcile
from stoker.core.scaling import recommend
from stoker.core.signals import Sample, Samples
from tests.factories import (
    KEY,
    NAMESPACE,
    NOW,
    deleting,
    deployment,
    draining,
    failed,
    load,
    loading,
    metrics,
    pending,
    pod,
    snapshot,
    unschedulable,
    vllm,
)

SCALING = {"minReplicas": 1, "maxReplicas": 9, "windows": {"up": "30s", "down": "2m"}}
SPECS = ({"replicas": 2}, {"scaling": SCALING}, {"replicas": -1})
PARSED = [[deployment(f"m{n}", **spec) for spec in SPECS] for n in range(5)]

STATES = st.lists(st.sampled_from([pod, loading, pending, unschedulable, failed, draining]), max_size=5)
FLEETS = st.lists(st.tuples(st.integers(0, 2), STATES, st.integers(0, 200)), min_size=1, max_size=4).map(
    lambda models: [fleet(n, *model) for n, model in enumerate(models)]
)


def fleet(
    number: int, spec: int, states: list, running: int
) -> tuple[ModelDeployment, dict[Pod, PodMetrics]]:
    of = PARSED[number][spec]
    return of, {make(n, of=of): load(float(running)) for n, make in enumerate(states)}


def seen(fleets: list[tuple[ModelDeployment, dict[Pod, PodMetrics]]]) -> Snapshot:
    answers = {p: m for _, pods in fleets for p, m in pods.items()}
    return snapshot(*(d for d, _ in fleets), pods=answers, metrics=metrics(answers))


@given(FLEETS, st.randoms(use_true_random=True))
def test_the_order_of_objects_does_not_matter(fleets, random):
    shuffled = [(d, dict(random.sample(list(pods.items()), len(pods)))) for d, pods in fleets]
    random.shuffle(shuffled)
    backwards = [(d, dict(reversed(pods.items()))) for d, pods in reversed(fleets)]

    assert reconcile(seen(fleets)) == reconcile(seen(shuffled)) == reconcile(seen(backwards))


@given(FLEETS)
def test_all_at_once_decide_as_each_alone(fleets):
    together = seen(fleets)
    alone = {key: reconcile(together, [key])[key] for key in together.deployments}

    assert reconcile(together) == alone


# --- Counter resets ------------------------------------------------------------------------------

SCRAPE = 15.0
WINDOW = vllm().rate_window_seconds


def rate(samples: list[tuple[float, float]], at: float) -> float | None:
    """Prometheus' ``rate()`` (promql/functions.go, extrapolatedRate): a counter that falls was reset to 0."""
    inside = [(t, v) for t, v in samples if at - WINDOW < t <= at]
    if len(inside) < 2:
        return None
    pairs = list(pairwise(inside))
    increase = sum(v - (u if v >= u else 0.0) for (_, u), (_, v) in pairs)
    sampled = inside[-1][0] - inside[0][0]
    most = 1.1 * sampled / len(pairs)
    before, after = inside[0][0] - (at - WINDOW), at - inside[-1][0]
    start = before if before < most else sampled / len(pairs) / 2
    end = after if after < most else sampled / len(pairs) / 2
    if increase > 0 and inside[0][1] >= 0:
        start = min(start, sampled * inside[0][1] / increase)
    return increase * (sampled + start + end) / sampled / WINDOW


def per_second(samples: list[tuple[float, float]], at: float) -> float | None:
    """What the query yields: the slope between two samples a window apart; ``rate()`` where it was reset."""
    known = [(t, v) for t, v in samples if t <= at]
    earlier = [(t, v) for t, v in known if t <= at - WINDOW]
    lately = [v for t, v in known if t > at - WINDOW - promql.edge(WINDOW)]
    if not earlier or any(v < u for u, v in pairwise(lately)):
        return rate(samples, at)
    (t0, v0), (t1, v1) = earlier[-1], known[-1]
    return (v1 - v0) / (t1 - t0) if t1 > t0 else None


def read(samples: list[tuple[float, float]], at: float) -> PodMetrics:
    """What Stoker reads of a pod whose token counter was scraped so."""
    names, key = vllm(), pod().key
    (counter,) = names.series[Signal.GENERATED_TOKENS]
    query = promql.queries([names])[Signal.GENERATED_TOKENS]
    assert f"resets({counter}[{WINDOW + promql.edge(WINDOW):.0f}s]) == 0" in query
    assert f"or rate({counter}[{WINDOW:.0f}s])" in query

    def vector(signal: Signal, value: float | None) -> Samples:
        labels = {"namespace": key.namespace, "pod": key.name}
        labels["series"] = promql.series_id(names.series[signal][0], names)
        return Samples(() if value is None else (Sample(labels, value, at),))

    times = [t for t, _ in samples if t <= at]
    early = [t for t in times if t <= at - WINDOW]
    answers = {
        Signal.GENERATED_TOKENS.value: vector(Signal.GENERATED_TOKENS, per_second(samples, at)),
        Freshness.LAST_SAMPLE.value: vector(Signal.RUNNING, max(times, default=None)),
        Freshness.WINDOW_START.value: vector(Signal.RUNNING, max(early, default=None)),
    }
    return signals.gathered(answers, [(key, names)], at, 60.0).pods[key]


@given(st.integers(0, 30), st.floats(1, 5000), st.integers(8, 40), st.floats(0, 15))
def test_a_counter_reset_is_no_drop_of_the_rate(reset_at, per_second, scrapes, later):
    """An engine that restarts counts from 0 again; lost is what it had counted since the last scrape."""
    whole = [(n * SCRAPE, n * SCRAPE * per_second) for n in range(scrapes)]
    reset = [
        (t, v - (reset_at - 1) * SCRAPE * per_second if n >= reset_at > 0 else v)
        for n, (t, v) in enumerate(whole)
    ]
    at = whole[-1][0] + later
    steady, after = read(whole, at), read(reset, at)
    expected, found = (r.readings[Signal.GENERATED_TOKENS] for r in (steady, after))

    assert type(found) is type(expected)
    if isinstance(found, Fresh) and isinstance(expected, Fresh):
        assert 0 <= found.value <= signals.MOST
        assert found.value >= expected.value * (1 - 2 * SCRAPE / WINDOW)


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=12))
def test_whatever_a_counter_does_its_rate_is_never_negative(values):
    samples = [(n * SCRAPE, value) for n, value in enumerate(values)]
    found = read(samples, samples[-1][0]).readings[Signal.GENERATED_TOKENS]

    assert not isinstance(found, Fresh) or found.value >= 0


# --- How often it is computed --------------------------------------------------------------------


def face(replicas: int) -> Face:
    load = replicas - 0.5  # the tolerance asks for no further replica
    return Face("requests", "requests", load, 1.0, replicas, complete=True, blind=False, message="")


STEPS = st.lists(st.tuples(st.integers(1, 5), st.integers(20, 150)), min_size=1, max_size=3)
"""Demand in replicas, and for how many seconds it lasts."""


@given(STEPS, st.lists(st.integers(1, 59), max_size=40), st.integers(1, 5))
def test_how_often_it_is_computed_changes_nothing(steps, pauses, first):
    """The same demand, seen each second and seen now and then, leaves the same memory and the same number."""
    spec = deployment(scaling=SCALING).spec
    assert spec is not None
    assert spec.scaling is not None
    demand = [replicas for replicas, seconds in steps for _ in range(seconds)]
    extra = {sum(pauses[: n + 1]) for n in range(len(pauses))}
    changes = {sum(s for _, s in steps[:n]) for n in range(len(steps))} | {len(demand) - 1}
    changes |= {c - 1 for c in changes if c}  # a value that nobody saw cannot be known: see each at both ends
    some = sorted((extra | changes | set(range(0, len(demand), 50))) & set(range(len(demand))))

    def outcome(moments: list[int]) -> tuple[int, Memory]:
        memory, current = Memory(), first
        for t in moments:
            chosen = recommend(spec.scaling, [face(demand[t])], memory, current, NOW + t)
            memory, current = chosen.memory, chosen.replicas
        return current, memory

    often, seldom = outcome(list(range(len(demand)))), outcome(some)
    assert often[1] == seldom[1]
    settled = steps[-1][1] > 120
    assert not settled or often[0] == seldom[0] == demand[-1]


# --- Grants --------------------------------------------------------------------------------------

REFUSED_EARLIER = {"since": NOW - SCHEDULING_GRACE}
KINDS = st.lists(
    st.sampled_from(["serving", "loading", "new", "refused", "just refused", "failed", "draining", "going"]),
    max_size=12,
)
MAKE = {
    "serving": pod,
    "loading": loading,
    "new": pending,
    "refused": lambda n: unschedulable(n, **REFUSED_EARLIER),
    "just refused": lambda n: unschedulable(n, since=NOW - SCHEDULING_GRACE + 1),
    "failed": failed,
    "draining": draining,
    "going": deleting,
}


@given(st.integers(0, 12), KINDS)
def test_grants_never_exceed_what_is_placed_by_more_than_the_one_that_asks(wanted, kinds):
    grant = allocate({KEY: wanted}, {KEY: [MAKE[kind](n) for n, kind in enumerate(kinds)]}, NOW)[KEY]
    placed = sum(kind in ("serving", "loading") for kind in kinds)
    unjudged = sum(kind in ("new", "just refused") for kind in kinds)
    refused = "refused" in kinds

    assert 0 <= grant.replicas <= grant.start_up_to <= wanted
    assert grant.replicas == (min(wanted, placed) if refused else wanted)
    assert not refused or placed >= wanted or grant.start_up_to <= placed + unjudged + 1
    assert (grant.shortage is not None) == (refused and placed < wanted)


@given(
    st.lists(st.tuples(st.integers(0, 6), KINDS), min_size=1, max_size=4), st.randoms(use_true_random=False)
)
def test_one_fleets_grant_depends_on_its_own_pods_alone(models, random):
    keys = [Key(NAMESPACE, f"m{n}") for n in range(len(models))]
    wanted = {k: w for k, (w, _) in zip(keys, models, strict=True)}
    pods = {
        k: [MAKE[kind](n) for n, kind in enumerate(kinds)] for k, (_, kinds) in zip(keys, models, strict=True)
    }
    together = allocate(wanted, pods, NOW)

    for key in random.sample(keys, len(keys)):
        assert together[key] == allocate({key: wanted[key]}, {key: pods[key]}, NOW)[key]
