"""Records from the API server's JSON: what is absent or odd is never an exception."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.core.parse import pod_from, timestamp
from tests.factories import deleting, draining, failed, loading, pod

LABELS = {"stoker.dev/model-deployment": "llama", "stoker.dev/serving": "true", "stoker.dev/ordinal": "3"}


def raw(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": "p", "uid": "u", "labels": LABELS, **metadata}}


def test_a_pod_with_nothing_but_labels_is_pending():
    found = pod_from(raw())

    assert found is not None
    assert (found.phase, found.ordinal, found.ready, found.started) == ("Pending", 3, False, False)


def test_a_pod_without_stokers_label_is_none():
    assert pod_from({"metadata": {"labels": None}}) is None


def test_labels_and_annotations_that_are_no_numbers_are_as_good_as_none():
    odd = {"stoker.dev/attempt": "many", "stoker.dev/drain-started-at": "soon"}
    found = pod_from(raw(labels=LABELS | {"stoker.dev/ordinal": "x"}, annotations=odd))

    assert found is not None
    assert (found.ordinal, found.attempt, found.drain_started_at) == (-1, 0, None)


def test_only_the_controlling_owner_owns():
    references = [{"uid": "a"}, {"uid": "b", "controller": True}]
    found = pod_from(raw(ownerReferences=references))

    assert found is not None
    assert found.owner_uid == "b"


@pytest.mark.parametrize(
    ("text", "seconds"), [("1970-01-01T00:01:00Z", 60.0), ("", None), (None, None), ("x", None)]
)
def test_times_are_unix_seconds_or_nothing(text, seconds):
    assert timestamp(text) == seconds


@pytest.mark.parametrize(
    ("record", "routed"),
    [
        (pod(), True),
        (loading(), False),
        (draining(), False),
        (deleting(), False),
        (failed(), False),
        (pod(serving=False), False),
    ],
    ids=["serving", "loading", "draining", "being deleted", "failed", "taken out"],
)
def test_who_is_routed(record, routed):
    assert record.routed is routed
