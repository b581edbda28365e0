"""Names fit where Kubernetes puts them."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from stoker.api import meta

NAMES = st.from_regex(r"\A[a-z](?:[-a-z0-9]{0,46}[a-z0-9])?\Z")
REVISIONS = st.from_regex(r"\A[a-z0-9]{1,8}\Z")


@given(NAMES, REVISIONS, st.integers(0, 99_999))
@example("x" * meta.MAX_NAME_LENGTH, "0123abcd", 99_999)
def test_a_pod_name_is_a_host_name(name, revision, ordinal):
    pod = meta.pod_name(name, revision, ordinal)
    assert len(pod) <= 63
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", pod)


@given(st.tuples(REVISIONS, st.integers(0, 9999)), st.tuples(REVISIONS, st.integers(0, 9999)))
@example(("a1", 1), ("a", 11))
def test_two_replicas_of_a_fleet_never_share_a_name(one, other):
    assert (meta.pod_name("a", *one) == meta.pod_name("a", *other)) == (one == other)


def test_routing_selects_the_replicas_of_one_fleet_that_serve():
    assert meta.serving_selector("a") == {
        "stoker.dev/model-deployment": "a",
        "stoker.dev/serving": "true",
    }
    assert meta.selector("a") == "stoker.dev/model-deployment=a"


def test_an_owned_object_goes_with_its_owner():
    assert meta.owner_reference("a", "uid-1") == {
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "ModelDeployment",
        "name": "a",
        "uid": "uid-1",
        "controller": True,
        "blockOwnerDeletion": True,
    }


def test_stokers_labels_and_annotations_are_behind_the_prefix_that_users_may_not_use():
    values = [
        value
        for name, value in vars(meta).items()
        if name.startswith(("LABEL_", "ANNOTATION_")) and name not in {"LABEL_NAME", "LABEL_MANAGED_BY"}
    ]
    assert len(values) >= 9
    assert all(value.startswith(meta.RESERVED_PREFIX) for value in values)
    assert len(set(values)) == len(values)
