"""Reading the past: chunks, halves, whose series they are, and what is said when there are none."""

import math
from dataclasses import replace

import pytest

from stoker.backtest.errors import BacktestError
from stoker.backtest.history import FEWEST, MOST, OWN_QUERY, History, Scope, _collect
from stoker.clients.answers import Course, Matrix, Span
from stoker.core import gateway
from stoker.core.history import STEP_SECONDS
from stoker.core.promql import Freshness, queries
from stoker.core.readings import Key, Signal
from stoker.core.signals import Failed
from tests.factories import vllm

FLEET = Key("models", "llama")
OURS = "llama-[0-9a-z]+-[0-9]+"
SPAN = Span(0.0, 3600.0, 15.0)


class Ranges:
    """A Prometheus that answers every query with the same function of (query, span)."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def query_range_all(self, queries, span):
        self.asked.append((dict(queries), span))
        return {name: self.answer(name, query, span) for name, query in queries.items()}


def every(span, value=lambda at: at):
    """A course with a value at every instant."""
    return {number: value(span.at(number)) for number in range(span.count)}


def one_pod(name, query, span, pod="llama-5d8f2c1a-0", **labels):
    known = {"namespace": "models", "pod": pod, **labels}
    if query.startswith("max by (namespace, pod) (count_over_time"):
        return Matrix((Course(known, every(span, lambda at: 20.0)),))
    return Matrix((Course(known, every(span)),))


def history(answer, pods=OURS, **options):
    ranges = Ranges(answer)
    scope = Scope(FLEET, pods)
    return ranges, History(ranges, scope, scope.narrowed(vllm()), **{"latency": False, **options})


async def refusal(answer, **options):
    _, past = history(answer, **options)
    with pytest.raises(BacktestError) as refused:
        await past.survey(SPAN)
    return str(refused.value)


# --- What is asked -------------------------------------------------------------------------------


def test_the_queries_are_the_operators_but_for_narrower_selectors():
    _, past = history(one_pod)
    asked = dict(past.queries)
    assert asked.pop(gateway.NAME) == gateway.QUERY
    assert any(f',pod=~"{OURS}"' in query for query in asked.values())
    assert {name: widened(query) for name, query in asked.items()} == queries([vllm()])


def widened(query):
    """The query without the selectors for one fleet."""
    for quote in ('"', "'"):
        where = f"namespace={quote}models{quote}"
        query = query.replace(f",pod=~{quote}{OURS}{quote}", "").replace(f"{where},", "").replace(where, "")
    return query.replace("{}", "")


def test_a_pattern_that_a_query_cannot_hold_is_applied_to_the_answer():
    for pods, plain in (
        (OURS, True),
        ("llama-[0-9]{2}|b", True),
        (r"llama-\d+", False),
        ("(?i)llama", False),
    ):
        _, past = history(one_pod, pods=pods)
        assert (f'pod=~"{pods}"' in past.queries[Signal.RUNNING]) == plain
        assert 'namespace="models"' in past.queries[Signal.RUNNING]


def test_latencies_and_own_queries_are_asked_only_when_needed():
    _, plain = history(one_pod)
    _, full = history(one_pod, latency=True, own=("sum(queue)",))
    assert full.queries.keys() - plain.queries.keys() == {"firstToken", f"{OWN_QUERY}sum(queue)"}
    assert full.queries[f"{OWN_QUERY}sum(queue)"] == "sum(queue)"


@pytest.mark.parametrize(
    ("query", "labels", "mine"),
    [
        ("running", {"namespace": "models", "pod": "llama-5d8f2c1a-12"}, True),
        ("running", {"namespace": "models", "pod": "llama-8b-5d8f2c1a-12"}, False),
        ("running", {"namespace": "other", "pod": "llama-5d8f2c1a-12"}, False),
        ("running", {}, False),
        (gateway.NAME, {"namespace": "models", "inference_pool": "llama"}, True),
        (gateway.NAME, {"namespace": "other", "inference_pool": "llama"}, False),
        (f"{OWN_QUERY}sum(queue)", {}, True),
    ],
)
def test_whose_series_it_is(query, labels, mine):
    assert Scope(FLEET, OURS).holds(query, labels) == mine


# --- Chunks --------------------------------------------------------------------------------------


async def test_every_instant_comes_once_and_in_order_whatever_the_chunks():
    ranges, past = history(one_pod)
    span = Span(0.0, 15.0 * (2 * MOST + 7), 15.0)
    seen = [answers["running"].samples[0] async for answers in past.instants(span, 1)]
    assert [(s.at, s.value) for s in seen] == [(span.at(n), span.at(n)) for n in range(span.count)]
    assert [s.count for _, s in ranges.asked] == [MOST, MOST, 8]


async def test_more_replicas_make_smaller_chunks():
    ranges, past = history(one_pod)
    async for _ in past.instants(SPAN, 1_000_000):
        pass
    assert {s.count for _, s in ranges.asked} <= set(range(1, FEWEST + 1))


async def test_a_chunk_that_is_too_much_comes_in_halves():
    def answer(name, query, span):
        return one_pod(name, query, span) if span.count <= 40 else Failed("the answer is longer than 512 MiB")

    ranges, past = history(answer)
    seen = [answers["running"].samples[0].at async for answers in past.instants(SPAN, 1)]
    assert seen == [SPAN.at(n) for n in range(SPAN.count)]
    assert max(s.count for _, s in ranges.asked) == SPAN.count


@pytest.mark.parametrize(
    ("failed", "times"),
    [
        (Failed("http://x cannot be asked: refused", unreachable=True), 1),
        (Failed("HTTP 400, bad_data: parse error"), 1),
        (Failed("HTTP 503, timeout: query timed out"), 6),
    ],
)
async def test_a_failure_ends_it_and_says_which_query_and_when(failed, times):
    ranges, past = history(lambda *_: failed)
    with pytest.raises(BacktestError) as refused:
        async for _ in past.instants(SPAN, 1):
            pass
    assert f"to 1970-01-01 0{'1' if times == 1 else '0'}" in str(refused.value)
    assert failed.why in str(refused.value)
    assert "did not answer query" in str(refused.value)
    assert len(ranges.asked) == times


async def test_a_chunk_that_took_too_long_is_no_unreachable_server():
    def answer(name, query, span):
        late = Failed("no answer from http://x within 120 s", unreachable=True)
        return one_pod(name, query, span) if span.count <= 100 else late

    _, impatient = history(answer, patience=-1.0)
    assert len([a async for a in impatient.instants(SPAN, 1)]) == SPAN.count
    _, patient = history(answer)
    with pytest.raises(BacktestError, match="no answer from"):
        await anext(patient.instants(SPAN, 1))


async def test_a_reader_that_stops_early_leaves_nothing_behind():
    _, past = history(one_pod)
    instants = past.instants(Span(0.0, 15.0 * 3 * MOST, 15.0), 1)
    await anext(instants)
    await instants.aclose()


async def test_remarks_of_prometheus_are_kept():
    def answer(name, query, span):
        return Matrix((), ("store 7 is down",)) if name == "running" else one_pod(name, query, span)

    _, past = history(answer)
    first = await anext(past.instants(SPAN, 1))
    assert past.warnings == {"store 7 is down"}
    assert first["running"].warnings == ("store 7 is down",)


# --- The survey ----------------------------------------------------------------------------------


async def test_a_survey_finds_replicas_and_scrape_interval():
    ranges, past = history(one_pod)
    found = await past.survey(SPAN)
    assert [(life.pod, life.start, life.end) for life in found.lives] == [
        (Key("models", "llama-5d8f2c1a-0"), 0.0, math.inf)
    ]
    assert found.scrape_interval == 15.0
    assert list(ranges.asked[0][0]) == [Freshness.LAST_SAMPLE]


async def test_a_sample_that_several_instants_see_counts_once():
    def answer(name, query, span):
        found = one_pod(name, query, span)
        if name != Freshness.LAST_SAMPLE:
            return found
        return Matrix((replace(found.courses[0], values=every(span, lambda at: at // 60 * 60)),))

    _, past = history(answer)
    seen = {}
    async for _, matrices in past._chunks({Freshness.LAST_SAMPLE.value: "x"}, SPAN, MOST):
        _collect(seen, matrices[Freshness.LAST_SAMPLE].courses[0])
    assert [list(times) for times in seen.values()] == [[60.0 * n for n in range(61)]]


async def test_no_such_metric_at_all():
    why = await refusal(lambda *_: Matrix(()))
    assert 'no series vllm:num_requests_running{namespace="models",pod=~"llama-[0-9a-z]+-[0-9]+"}' in why
    assert "between 1970-01-01 00:00 UTC and 1970-01-01 01:00 UTC" in why
    assert "It has no vllm:num_requests_running at all then: check --prometheus, --from and --to" in why


def elsewhere(*labels):
    """Nothing of the fleet's, but these series when all are counted."""

    def answer(name, query, span):
        if not query.startswith("count by"):
            return Matrix(())
        return Matrix(tuple(Course(found, every(span)) for found in labels))

    return answer


async def test_series_without_the_labels():
    why = await refusal(elsewhere({}))
    assert "has no labels 'namespace' and 'pod'" in why


async def test_series_of_other_pods_of_the_namespace():
    pods = [{"namespace": "models", "pod": f"vllm-{n}"} for n in range(5)]
    why = await refusal(elsewhere(*pods, {"namespace": "other", "pod": "x"}))
    assert "In that namespace it has vllm-0, vllm-1, vllm-2 and 2 more: say with --pods" in why


async def test_series_of_other_namespaces():
    why = await refusal(elsewhere({"namespace": "prod", "pod": "x"}, {"namespace": "test", "pod": "x"}))
    assert "in prod, test: set --namespace" in why


# --- The days before -----------------------------------------------------------------------------


async def test_the_days_before_are_summed_and_gaps_are_nan():
    def answer(name, query, span):
        first = Course(
            {"namespace": "models", "model": "llama"}, every(span, lambda at: 100.0 if at < 0 else 5.0)
        )
        second = Course({"namespace": "models", "model": ""}, every(span, lambda at: 1.0))
        return Matrix((first, second) if span.start > -600_000 else ())

    _, past = history(answer)
    days = await past.days(Span(0.0, 86_400.0, 60.0))
    assert math.isnan(days.values[0])
    assert days.values[-1] == 6.0
    assert days.values[-1 - int(86_400 / STEP_SECONDS) - 1] == 101.0
    known = days.until(43_200.0)
    assert known is not None
    assert known.at(40_000.0) == 6.0
    assert math.isnan(known.at(50_000.0))


async def test_days_of_others_do_not_count_where_the_pattern_could_not_be_asked_for():
    def answer(name, query, span):
        ours = Course({"namespace": "models", "model": "llama"}, every(span, lambda at: 2.0))
        return Matrix((ours, Course({"namespace": "models", "model": "other"}, every(span, lambda at: 40.0))))

    _, past = history(answer, pods=r"llama-\w+-\d+")
    assert (await past.days(SPAN)).values[-1] == 2.0
