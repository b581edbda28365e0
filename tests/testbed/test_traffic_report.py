"""The summary of traffic that was played."""

import json
from dataclasses import replace

from testbed.traffic_report import Outcome, Result, percentile, summarize


def a_result(outcome=Outcome.SERVED, **changes):
    return replace(Result(0.0, 10, 4, 4, outcome, "ns/a", 0.0, 0.5, 0.02, 1.0), **changes)


def test_percentiles_are_values_that_occurred():
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile([1, 2, 3, 4], 99) == 4
    assert percentile([7], 1) == 7
    assert percentile([], 50) is None


def test_the_summary_counts_outcomes_and_knows_no_zero_for_nothing():
    refused = a_result(Outcome.REFUSED, ttft=None, tpot=None, tokens=0, pod=None, detail="no endpoint")
    summary = summarize(
        [a_result(), a_result(ttft=1.5), a_result(Outcome.CUT, tokens=2, detail="broken"), refused]
    )
    assert (summary["requests"], summary["served"], summary["cut"], summary["refused"]) == (4, 2, 1, 1)
    assert summary["ttft_seconds"] == {
        "mean": 2.5 / 3,
        "p50": 0.5,
        "p90": 1.5,
        "p95": 1.5,
        "p99": 1.5,
        "max": 1.5,
    }
    assert summary["generated_tokens"] == 10
    assert summary["prompt_tokens"] == 20
    assert summary["served_by_pod"] == {"ns/a": 2}
    assert summary["failures"] == {"broken": 1, "no endpoint": 1}
    assert summarize([refused])["ttft_seconds"]["p50"] is None
    assert json.dumps(summary)
