"""Requests held in an inference gateway: which series they are, and whose."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stoker.core.gateway import QUERY, SERIES, Fleet, held
from stoker.core.readings import Fresh, Key, Missing, Stale
from stoker.core.signals import Failed, Sample, Samples

EXPOSITION = Path(__file__).parents[1] / "fixtures" / "epp-metrics.txt"
NOW = 1_800_000_000.0
LLM = Fleet(Key("models", "llm"), "org/name")


def sample(value: float, pool: str = "pool", model: str = "", target: str = "", namespace: str = "models"):
    labels = {
        "namespace": namespace,
        "inference_pool": pool,
        "model_name": model,
        "target_model_name": target,
    }
    return Sample({name: text for name, text in labels.items() if text}, value, NOW)


def of(*samples: Sample, fleets: tuple[Fleet, ...] = (LLM,), warnings: tuple[str, ...] = ()):
    return held(Samples(samples, warnings), fleets, NOW)


def test_the_query_asks_for_what_the_pickers_publish():
    families = {f.name: f for f in text_string_to_metric_families(EXPOSITION.read_text())}
    asked = {label for labels in re.findall(r"by \(([^)]*)\)", QUERY) for label in labels.split(", ")}
    for series in SERIES:
        published = set(families[series].samples[0].labels)
        assert asked - {"namespace"} <= published
        assert families[series].type == "gauge"


class TestWhose:
    def test_of_the_fleet_with_the_pool_s_name(self):
        assert of(sample(5, pool="llm", target="an-adapter")) == {LLM.key: Fresh(5, NOW)}

    def test_of_the_fleet_that_serves_the_model(self):
        assert of(sample(5, target="org/name")) == {LLM.key: Fresh(5, NOW)}

    def test_a_request_that_is_sent_to_another_model_is_for_that_one(self):
        assert of(sample(5, model="org/name", target="another")) == {}
        assert of(sample(5, model="alias", target="org/name")) == {LLM.key: Fresh(5, NOW)}

    def test_without_a_target_the_name_that_was_asked_for(self):
        assert of(sample(5, model="org/name")) == {LLM.key: Fresh(5, NOW)}

    def test_the_pool_s_name_goes_before_the_model(self):
        other = Fleet(Key("models", "other"), "org/name")
        assert of(sample(6, pool="llm", target="org/name"), fleets=(LLM, other)) == {LLM.key: Fresh(6, NOW)}

    def test_fleets_that_serve_the_same_model_share_what_waits_for_it(self):
        other = Fleet(Key("models", "other"), "org/name")
        assert of(sample(6, target="org/name"), fleets=(LLM, other)) == {
            LLM.key: Fresh(3, NOW),
            other.key: Fresh(3, NOW),
        }

    @pytest.mark.parametrize("namespace", ["elsewhere", ""])
    def test_another_namespace_is_another_fleet(self, namespace):
        assert of(sample(5, pool="llm", target="org/name", namespace=namespace)) == {}

    def test_series_of_one_fleet_add_up(self):
        assert of(sample(5, pool="llm"), sample(7, target="org/name")) == {LLM.key: Fresh(12, NOW)}


class TestWhatIsKnown:
    def test_no_series_no_gateway(self):
        assert of() == {}
        assert held(None, (LLM,), NOW) == {}

    def test_an_empty_queue_is_zero(self):
        assert of(sample(0, pool="llm")) == {LLM.key: Fresh(0, NOW)}

    def test_a_failed_query_is_missing_for_all(self):
        found = held(Failed("too slow"), (LLM,), NOW)
        assert found == {LLM.key: Missing("Prometheus: too slow")}

    @pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e30])
    def test_what_is_no_number_of_requests_is_missing(self, value):
        assert isinstance(of(sample(5, pool="llm"), sample(value, pool="llm"))[LLM.key], Missing)

    def test_a_part_of_the_data_is_a_lower_bound(self):
        assert of(sample(5, pool="llm"), warnings=("partial",)) == {LLM.key: Stale(5, NOW)}
