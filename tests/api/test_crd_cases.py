"""The proof of the CRD on a real API server is complete: a new field, bound or rule without a case fails
here."""

import pytest

from stoker.api.fields import RULES
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.api.validation import parse
from tests.cluster.crd_cases import BROKEN, SAMPLES, broken, cases, nodes, rules, sample_with, written

# No good object can set these: any value of theirs is refused.
NEVER_GOOD = {"spec.template.spec.nodeName"}


def test_every_field_is_set_by_a_sample():
    missing = {written(path) for path, _ in nodes() if sample_with(path) is None}
    assert missing == NEVER_GOOD


@pytest.mark.parametrize("message", sorted(rules()))
def test_every_rule_has_a_value_that_breaks_it(message):
    assert broken(message)


def test_no_breaking_value_belongs_to_a_rule_that_is_gone():
    assert [start for start in BROKEN if not any(start in message for message in rules())] == []


def test_every_rule_is_broken_at_every_place_where_it_stands():
    expected = sum(len(broken(rule["message"])) for _, node in nodes() for rule in node.get(RULES, []))
    messages = rules()
    assert sum(case.text in messages for case in cases()) == expected


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("minimum", "greater than or equal"),
        ("maximum", "less than or equal"),
        ("minLength", "chars long"),
        ("maxLength", "bytes"),
        ("minItems", "at least 1 items"),
        ("maxItems", "at most"),
        ("maxProperties", "at most"),
        ("enum", "supported values"),
        ("x-kubernetes-list-map-keys", "Duplicate value"),
    ],
)
def test_every_bound_has_a_case_of_its_own(keyword, text):
    covered = {written(case.path) for case in cases() if text in case.text}
    assert {written(path) for path, node in nodes() if keyword in node} <= covered


def test_the_operator_refuses_the_texts_that_the_api_server_refuses():
    # Both are given the same patterns and bounds; the rules of whole objects are the API server's alone.
    texts = [case for case in cases() if case.path[0] == "spec" and isinstance(case.value, str | int | float)]
    assert [str(case) for case in texts if not parse(case.manifest["spec"])[1]] == []


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_operator_takes_the_samples(name):
    assert parse(SAMPLES[name]["spec"])[1] == ()
    ModelDeploymentStatus.model_validate(SAMPLES[name].get("status", {}))
