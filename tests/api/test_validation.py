"""What the API server cannot refuse, the operator reports field by field."""

import pytest

from stoker.api.v1alpha1 import FieldError
from stoker.api.validation import parse, validate

GOOD = {"model": {"uri": "hf://org/name"}}


def with_pod_spec(**fields):
    return GOOD | {"template": {"spec": fields}}


def test_a_good_spec_has_no_errors():
    spec, errors = parse(GOOD)
    assert errors == ()
    assert spec is not None
    assert spec.model.uri == "hf://org/name"


def test_every_bad_field_is_named_as_kubectl_names_it():
    spec, errors = parse(
        {"model": {"uri": "s3://x"}, "engine": {"env": [{"name": "1A"}]}, "drain": {"timeout": "soon"}}
    )
    assert spec is None
    assert [error.path for error in errors] == [
        "spec.model.uri",
        "spec.engine.env[0].name",
        "spec.drain.timeout",
    ]
    assert errors[2].message.startswith("'soon' is not a duration: write a duration such as")


def test_no_spec_at_all_is_an_error_and_no_exception():
    assert parse({}) == (None, (FieldError("spec.model", "Field required"),))


@pytest.mark.parametrize("field", ["nodeName", "hostNetwork", "hostPID", "hostIPC"])
def test_fields_that_take_a_replica_out_of_the_fleet_are_refused(field):
    spec, errors = parse(with_pod_spec(**{field: "x"}))
    assert spec is not None
    assert [error.path for error in errors] == [f"spec.template.spec.{field}"]
    assert "remove it" in errors[0].message


def test_a_refused_field_that_is_off_is_no_error():
    spec, _ = parse(with_pod_spec(hostNetwork=False))
    assert spec is not None
    assert validate(spec) == ()


@pytest.mark.parametrize("field", ["containers", "initContainers", "volumes", "imagePullSecrets"])
@pytest.mark.parametrize(
    ("value", "path"),
    [(5, ""), ({}, ""), (None, ""), ([5], "[0]"), ([{"name": "a"}, {}], "[1]"), ([{"name": 5}], "[0]")],
)
def test_lists_that_cannot_be_merged_by_name_are_refused(field, value, path):
    _, errors = parse(with_pod_spec(**{field: value}))
    assert [error.path for error in errors] == [f"spec.template.spec.{field}{path}"]


def test_lists_with_names_are_fine():
    _, errors = parse(with_pod_spec(containers=[{"name": "engine"}], volumes=[], tolerations=[{"key": "x"}]))
    assert errors == ()
