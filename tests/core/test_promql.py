"""PromQL out: one query per signal, whatever the fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.core import promql
from stoker.core.promql import Freshness, LatencyScope
from stoker.core.readings import MetricNames, Series, Signal
from tests.factories import custom_metrics, vllm

VLLM: MetricNames = vllm()
CUSTOM = custom_metrics()


def test_there_is_one_query_per_signal_and_two_for_freshness_whatever_the_fleet():
    asked = promql.queries([VLLM] * 1000)

    assert set(asked) == {s.value for s in Signal} | {f.value for f in Freshness}


def test_a_counter_is_asked_as_a_rate_over_the_engines_window():
    assert promql.queries([VLLM])["generatedTokens"] == (
        "label_replace(sum by (namespace, pod) (("
        "(vllm:generation_tokens_total - vllm:generation_tokens_total offset 60s) / "
        "(timestamp(vllm:generation_tokens_total) - timestamp(vllm:generation_tokens_total offset 60s)) "
        "and resets(vllm:generation_tokens_total[95s]) == 0) or rate(vllm:generation_tokens_total[60s])"
        '), "series", "vllm:generation_tokens_total@60s", "", "")'
    )


def test_a_gauge_is_asked_as_it_is():
    assert promql.queries([VLLM])["running"] == (
        'label_replace(sum by (namespace, pod) (vllm:num_requests_running), "series", '
        '"vllm:num_requests_running@60s", "", "")'
    )


def test_the_cache_is_asked_over_the_whole_window_and_averaged_over_the_ranks():
    assert promql.queries([VLLM])["cacheUsage"] == (
        "label_replace(avg by (namespace, pod) (avg_over_time(vllm:kv_cache_usage_perc[60s])), "
        '"series", "vllm:kv_cache_usage_perc@60s", "", "")'
    )


def test_the_time_between_tokens_is_the_mean_of_the_histogram():
    assert promql.queries([VLLM])["interTokenLatency"] == (
        "label_replace(sum by (namespace, pod) (rate(vllm:inter_token_latency_seconds_sum[60s])) / "
        "sum by (namespace, pod) (rate(vllm:inter_token_latency_seconds_count[60s])), "
        '"series", "vllm:inter_token_latency_seconds@60s", "", "")'
    )


def test_without_a_histogram_it_is_the_requests_in_the_batch_per_token_and_second():
    tokens = (Series("tokens_total"),)
    known = {Signal.GENERATED_TOKENS: tokens, Signal.INTER_TOKEN_LATENCY: tokens}
    metrics = replace(CUSTOM, series=CUSTOM.series | known)

    assert promql.queries([metrics])["interTokenLatency"].startswith(
        "label_replace(sum by (namespace, pod) (avg_over_time(busy[300s])) / "
        "sum by (namespace, pod) (rate(tokens_total[300s])), "
    )


def test_several_engines_are_joined_with_or_under_labels_that_differ():
    query = promql.queries([VLLM, CUSTOM])["requests"]

    left, _, right = query.partition(" or label_replace")
    assert "rate(served_total[300s])" in left
    assert '"served_total@300s"' in left
    assert "rate(vllm:request_success_total[60s])" in right


def test_a_signal_that_only_one_engine_has_is_asked_of_that_one():
    assert " or " not in promql.queries([VLLM, CUSTOM])["waiting"]


def test_of_alternatives_each_pod_answers_with_the_first_that_it_has():
    """An engine that prefers the second one asks for it by itself: its pods may have both."""
    preferred, other = VLLM.series[Signal.PROMPT_TOKENS]
    plain = replace(VLLM, series=VLLM.series | {Signal.PROMPT_TOKENS: (other,)})
    tags = [f'"{promql.series_id(series, VLLM)}", "", "")' for series in (preferred, other)]

    alone = promql.queries([VLLM])["promptTokens"]
    joined = promql.queries([VLLM, plain])["promptTokens"]

    left, _, right = alone.partition(" or on (namespace, pod) ")
    assert left.startswith("(label_replace(")
    assert left.endswith(tags[0])
    assert right.endswith(tags[1] + ")")
    assert joined == f"{alone} or {right.removesuffix(')')}"


def test_the_same_engines_in_another_order_make_the_same_queries():
    assert promql.queries([VLLM, CUSTOM]) == promql.queries([CUSTOM, VLLM, CUSTOM])


def test_a_label_within_a_tag_keeps_the_query_well_formed():
    query = promql.queries([VLLM])["promptTokens"]

    assert 'rate(vllm:prompt_tokens_by_source_total{source="local_compute"}[60s])' in query
    assert "\"vllm:prompt_tokens_by_source_total{source='local_compute'}@60s\"" in query


@pytest.mark.parametrize(
    ("metrics", "offset"),
    [(VLLM, "offset 60s"), (CUSTOM, "offset 300s")],
    ids=["a minute", "five minutes"],
)
def test_the_start_of_the_window_is_looked_at_where_a_sample_has_to_stand(metrics, offset):
    assert offset in promql.queries([metrics])[Freshness.WINDOW_START.value]


def test_the_age_of_the_last_sample_is_that_of_the_oldest_series_of_the_pod():
    query = promql.queries([VLLM])[Freshness.LAST_SAMPLE.value]

    assert "min by (namespace, pod) (timestamp(vllm:num_requests_running))" in query


def test_histograms_are_asked_only_where_a_target_needs_them():
    assert promql.FIRST_TOKEN not in promql.queries([VLLM])


def test_histograms_of_all_namespaces_are_one_query():
    scopes = [LatencyScope("b", VLLM), LatencyScope("a", VLLM), LatencyScope("b", VLLM)]

    query = promql.queries([VLLM], scopes)[promql.FIRST_TOKEN]

    assert 'rate(vllm:time_to_first_token_seconds_bucket{namespace=~"a|b"}[60s])' in query
    assert "sum by (namespace, pod, le)" in query


def test_an_engine_without_a_histogram_is_not_asked_for_it():
    metrics = replace(CUSTOM, first_token=None)

    assert promql.FIRST_TOKEN not in promql.queries([metrics], [LatencyScope("a", metrics)])


def test_nothing_to_ask_makes_no_query():
    assert promql.queries([]) == {}


def test_an_alternative_that_no_pod_has_is_left_out_and_the_preferred_one_never():
    preferred, other = VLLM.series[Signal.PROMPT_TOKENS]
    tags = [promql.series_id(series, VLLM) for series in (preferred, other)]

    query = promql.queries([VLLM], idle=tags)["promptTokens"]

    assert preferred.name in query
    assert other.name + "[" not in query
    assert " or on " not in query
    assert promql.alternatives(Signal.PROMPT_TOKENS, VLLM) == {tags[1]}
