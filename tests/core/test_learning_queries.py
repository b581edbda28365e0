"""The queries behind what is learned, answered by Prometheus' own engine."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from stoker.core import promql
from stoker.core.readings import MetricNames, Series, Signal
from testbed.binaries import ensure
from tests.factories import vllm

COUNTING = MetricNames(
    path="/metrics",
    series={
        Signal.RUNNING: (Series("busy"),),
        Signal.GENERATED_TOKENS: (Series("tokens_total"),),
        Signal.INTER_TOKEN_LATENCY: (Series("tokens_total"),),
    },
    first_token=None,
    rate_window_seconds=60.0,
)
"""An engine without a histogram of the time between tokens."""


def series(name: str, pod: str, values: str, **labels: str) -> dict[str, str]:
    told = {"namespace": "models", "pod": pod, **labels}
    return {"series": name + "{" + ",".join(f'{k}="{v}"' for k, v in told.items()) + "}", "values": values}


def answer(pod: str, tag: str, value: float) -> dict[str, object]:
    return {"labels": f'{{namespace="models",pod="{pod}",series="{tag}"}}', "value": value}


@pytest.mark.built
def test_promtool_answers_them_as_they_are_meant(tmp_path):
    """One pod with two data-parallel ranks, an older one, one that has to do with Little's law."""
    asked = promql.queries([vllm(), COUNTING])
    between, usage = "vllm:inter_token_latency_seconds", "vllm:kv_cache_usage_perc"
    told = [
        series(f"{between}_sum", "ranks", "0+300x20", engine="0"),
        series(f"{between}_count", "ranks", "0+10000x20", engine="0"),
        series(f"{between}_sum", "ranks", "0+300x20", engine="1"),
        series(f"{between}_count", "ranks", "0+20000x20", engine="1"),
        series(usage, "ranks", "0.2x20", engine="0"),
        series(usage, "ranks", "0.4x20", engine="1"),
        series("vllm:prompt_tokens_by_source_total", "ranks", "0+1500x20", source="local_compute"),
        series("vllm:prompt_tokens_total", "ranks", "0+3000x20"),
        series("vllm:prompt_tokens_total", "older", "0+3000x20"),
        series("busy", "counting", "10x20"),
        series("tokens_total", "counting", "0+7500x20"),
    ]
    expected = {
        Signal.INTER_TOKEN_LATENCY: [
            answer("counting", "tokens_total@60s", 0.02),
            answer("ranks", f"{between}@60s", 0.02),
        ],
        Signal.CACHE_USAGE: [answer("ranks", f"{usage}@60s", 0.3)],
        Signal.PROMPT_TOKENS: [
            answer("older", "vllm:prompt_tokens_total@60s", 200.0),
            answer("ranks", "vllm:prompt_tokens_by_source_total{source='local_compute'}@60s", 100.0),
        ],
    }
    wanted = [
        {"expr": asked[signal], "eval_time": "4m", "exp_samples": samples}
        for signal, samples in expected.items()
    ]
    file = tmp_path / "queries.yaml"
    test = {"interval": "15s", "input_series": told, "promql_expr_test": wanted}
    file.write_text(yaml.safe_dump({"fuzzy_compare": True, "evaluation_interval": "15s", "tests": [test]}))

    found = subprocess.run(
        [str(ensure("promtool")), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stdout + found.stderr
