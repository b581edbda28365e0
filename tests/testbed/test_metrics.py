"""The exposition against a scrape of a real vLLM server, and the moments at which it changes."""

import math
import re
from collections import defaultdict
from pathlib import Path

import pytest

from testbed.exposition import Family, Histogram, Series, Template, counter, gauge
from testbed.http_metrics import HttpMetrics
from testbed.metrics import EngineMetrics
from testbed.replica import EventKind, Replica, Request, Steps
from testbed.replica_models import MODELS

REAL = (Path(__file__).parents[1] / "fixtures" / "vllm-metrics-real.txt").read_text()
MODEL = MODELS["qwen3-32b-2xh100"]
LINE = re.compile(r"^(?P<name>[a-zA-Z_:0-9]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# Of these labels only the names are compared: the values belong to the model, the machine or the build.
OWN_VALUES = {"model_name", "patchlevel", "minor", "version"}


def parse(text):
    """{family: (type, help)} in order, and {sample name: {labels: value}}."""
    families, samples, helps = {}, defaultdict(dict), {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, help_ = line[7:].partition(" ")
            helps[name] = help_
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            families[name] = (kind, helps[name])
        else:
            match = LINE.match(line)
            assert match, line
            labels = tuple(LABEL.findall(match["labels"] or ""))
            samples[match["name"]][labels] = float(match["value"])
    return families, samples


def shapes(samples):
    """Label names and the values that are part of the interface (le, reason, source …), in order."""
    return {
        name: [
            tuple((k, None if k in OWN_VALUES or name == "vllm:cache_config_info" else v) for k, v in labels)
            for labels in series
        ]
        for name, series in samples.items()
    }


class Engine:
    """A replica with its metrics, driven by hand."""

    def __init__(self, model=MODEL):
        self.metrics = EngineMetrics(model, "qwen", created=1.7e9)
        self.replica = Replica(model, self.metrics)

    def submit(self, prompt, output):
        request = Request("r", prompt, output)
        self.replica.submit(request, self.replica.now_ns)
        return request

    def step(self, to_ns=None):
        at = self.replica.next_event() if to_ns is None else to_ns
        for event in self.replica.advance(at):
            if event.kind is EventKind.FIRST_TOKEN:
                self.metrics.on_first_token(event.request)
            else:
                self.metrics.on_finished(event.request)

    def run(self):
        while self.replica.next_event() is not None:
            self.step()

    def scrape(self):
        return parse(self.metrics.render(self.replica))[1]

    def value(self, name, **labels):
        wanted = set(labels.items())
        found = [v for have, v in self.scrape()[name].items() if wanted <= set(have)]
        assert len(found) == 1, (name, labels)
        return found[0]


def scrape_like_the_real_one():
    engine, http = Engine(), HttpMetrics(created=1.7e9)
    for _ in range(3):
        engine.submit(300, 40)
    engine.run()
    for handler, method, status in (
        ("/v1/models", "GET", 200),
        ("/v1/completions", "POST", 200),
        ("/v1/chat/completions", "POST", 200),
        ("none", "GET", 404),
    ):
        http.on_response(handler, method, status, 0.2, (10, 20))
    return parse(engine.metrics.render(engine.replica) + http.render())


def test_families_types_and_helps_are_those_of_a_real_server_in_its_order():
    assert list(scrape_like_the_real_one()[0].items()) == list(parse(REAL)[0].items())


def test_series_labels_and_buckets_are_those_of_a_real_server_in_its_order():
    ours, real = shapes(scrape_like_the_real_one()[1]), shapes(parse(REAL)[1])
    assert ours.keys() == real.keys()
    for name, series in real.items():
        assert ours[name] == series, name


def test_the_size_of_the_kv_cache_is_told():
    (labels,) = Engine().scrape()["vllm:cache_config_info"]
    assert dict(labels)["kv_cache_size_tokens"] == "290000"


def test_every_series_exists_before_the_first_request():
    """`rate()` needs a zero to start from."""
    before = Engine().scrape()
    assert before["vllm:generation_tokens_total"] == {(("engine", "0"), ("model_name", "qwen")): 0.0}
    busy = Engine()
    busy.submit(100, 10)
    busy.run()
    assert shapes(before) == shapes(busy.scrape())


def test_a_prompt_counts_when_its_prefill_completes():
    engine = Engine()
    engine.submit(5000, 2)  # three chunks of at most 2,048
    for _ in range(2):
        engine.step()
        assert engine.value("vllm:prompt_tokens_total") == 0
        assert engine.value("vllm:time_to_first_token_seconds_count") == 0
    engine.step()
    assert engine.value("vllm:prompt_tokens_total") == 5000
    assert engine.value("vllm:prompt_tokens_by_source_total", source="local_compute") == 5000
    assert engine.value("vllm:time_to_first_token_seconds_count") == 1


def test_generated_tokens_count_while_the_request_runs():
    engine = Engine()
    request = engine.submit(100, 1000)
    engine.step(1_000_000_000)
    live = engine.value("vllm:generation_tokens_total")
    assert live == engine.replica.generated(request)
    assert 0 < live < 1000
    assert engine.value("vllm:num_requests_running") == 1
    assert engine.value("vllm:kv_cache_usage_perc") == pytest.approx((100 + live - 1) / 290_000)
    assert engine.value("vllm:request_generation_tokens_count") == 0
    assert engine.value("vllm:request_success_total", finished_reason="length") == 0


def test_a_finished_request_is_observed_once_in_every_request_histogram():
    engine = Engine()
    request = engine.submit(100, 50)
    engine.run()
    seconds = (request.finished_ns - request.submitted_ns) / 1e9
    assert engine.value("vllm:e2e_request_latency_seconds_sum") == pytest.approx(seconds)
    assert engine.value("vllm:request_success_total", finished_reason="length") == 1
    assert engine.value("vllm:generation_tokens_total") == 50
    assert engine.value("vllm:inter_token_latency_seconds_count") == 49
    assert engine.value("vllm:iteration_tokens_total_sum") == 150
    decode = engine.value("vllm:request_decode_time_seconds_sum")
    assert engine.value("vllm:inter_token_latency_seconds_sum") == pytest.approx(decode)
    assert engine.value("vllm:request_time_per_output_token_seconds_sum") == pytest.approx(decode / 49)
    parts = [engine.value(f"vllm:request_{part}_time_seconds_sum") for part in ("queue", "prefill", "decode")]
    assert sum(parts) == pytest.approx(seconds)
    for name in (
        "request_prompt_tokens",
        "request_params_max_tokens",
        "request_num_preemptions",
        "request_params_n",
    ):
        assert engine.value(f"vllm:{name}_count") == 1


def test_waiting_requests_wait_for_capacity():
    engine = Engine()
    for _ in range(300):
        engine.submit(10, 1000)
    engine.step()
    engine.step()
    assert engine.value("vllm:num_requests_running") == 256
    assert engine.value("vllm:num_requests_waiting") == 44
    assert engine.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 44
    assert engine.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 0


def test_an_abort_counts_as_such():
    engine = Engine()
    request = engine.submit(10, 1000)
    engine.step()
    engine.replica.cancel(request, engine.replica.now_ns)
    engine.metrics.on_abort()
    engine.run()
    assert engine.value("vllm:request_success_total", finished_reason="abort") == 1
    assert engine.value("vllm:e2e_request_latency_seconds_count") == 0


def test_nan_mode_blanks_what_is_measured_and_keeps_the_shape():
    engine = Engine()
    families, samples = parse(engine.metrics.render_nan())
    assert shapes(samples) == shapes(engine.scrape())
    assert families == parse(engine.metrics.render(engine.replica))[0]
    assert all(math.isnan(v) for v in samples["vllm:generation_tokens_total"].values())
    assert all(math.isnan(v) for v in samples["vllm:time_to_first_token_seconds_bucket"].values())


def test_health_and_metrics_requests_are_not_counted():
    http = HttpMetrics(created=1.0)
    http.on_response("/health", "GET", 200, 0.1, (0, 0))
    http.on_response("/metrics", "GET", 200, 0.1, (0, 0))
    assert parse(http.render())[1].get("http_requests_total") is None


@pytest.mark.parametrize("increment", [0.0, 1e-4, 0.013, 3.0])
def test_a_run_of_steps_fills_buckets_as_single_observations_do(increment):
    bounds = (0.01, 0.025, 0.05, 1, 5)
    many, single = Histogram(bounds), Histogram(bounds)
    many.observe_series(0.0042, increment, 500, 3)
    for k in range(500):
        single.observe(0.0042 + k * increment, 3)
    assert many.counts == single.counts
    assert many.sum == pytest.approx(single.sum)


def test_a_value_on_a_bound_belongs_to_that_bucket():
    histogram = Histogram((1, 2))
    histogram.observe(1)
    assert list(histogram.cumulative()) == [1, 1, 1]


def test_another_engine_s_names_are_another_table():
    dialect = (
        *gauge("sglang:num_running_reqs", "Running.", "running"),
        *counter("sglang:generation_tokens", "Generated.", "generated_tokens", created=False),
    )
    metrics = EngineMetrics(MODEL, "m", 1.0, [family.carrying("model_name") for family in dialect])
    metrics.on_steps(Steps(1, 1, 1, 10**9, 0))
    _, samples = parse(metrics.render(Replica(MODEL)))
    assert samples["sglang:generation_tokens_total"] == {(("model_name", "m"),): 0.0}


def test_label_values_are_escaped():
    family = Family("m", "gauge", "100% help", (Series("x", {"a": 'q"\\\n%s'}),), common=())
    text = Template([family], {}, {}).render({"x": 2}, {})
    assert text == '# HELP m 100% help\n# TYPE m gauge\nm{a="q\\"\\\\\\n%s"} 2.0\n'
