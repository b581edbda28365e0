"""Parsing: what the API server holds becomes a record or an error that names the field; nothing raises."""

from __future__ import annotations

import pytest

from stoker.api import meta
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.core import parse
from stoker.core.observed import ContainerStatus, PodCondition
from stoker.core.parse import deployment_from, owned_from, pod_from, timestamp
from stoker.core.readings import Key
from tests.factories import KEY, NAMESPACE, NOW, manifest

AT = "2027-01-15T08:00:00Z"
"""NOW as the API server writes it."""


def parsed_status(raw) -> ModelDeploymentStatus:
    return deployment_from({**manifest(), "status": raw}).status


class TestDeployments:
    def test_a_good_one_has_everything_that_derives_from_its_spec(self):
        found = deployment_from(manifest(generation=3, replicas=2))

        assert (found.key, found.uid, found.generation, found.errors) == (KEY, "uid-llama", 3, ())
        assert found.spec is not None
        assert found.spec.replicas == 2
        assert found.created_at == NOW - 7200
        assert found.revision
        assert found.metrics is not None
        assert found.service is not None
        assert not found.deleting

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"model": {}}, "spec.model.uri"),
            ({"replicas": -1}, "spec.replicas"),
            ({"replicas": "two"}, "spec.replicas"),
            ({"engine": {"args": ["--port", "1"]}}, "spec.engine.args[0]"),
        ],
        ids=["a missing field", "out of range", "another type", "an argument of Stoker's"],
    )
    def test_a_bad_spec_names_its_field(self, spec, field):
        found = deployment_from(manifest(**spec))

        assert [e.path for e in found.errors] == [field]
        assert (found.revision, found.service, found.metrics) == ("", None, None)

    @pytest.mark.parametrize("spec", [None, {}], ids=["null", "empty"])
    def test_no_spec_at_all_is_an_error_too(self, spec):
        found = deployment_from({**manifest(), "spec": spec})

        assert found.spec is None
        assert found.errors

    def test_what_no_rule_forbade_and_no_manifest_can_be_made_of_is_an_error(self, monkeypatch):
        def refuse(*_):
            raise ValueError("too long")

        monkeypatch.setattr(parse.resources, "revision", refuse)
        (error,) = deployment_from(manifest()).errors

        assert (error.path, error.message) == ("spec", "too long")

    @pytest.mark.parametrize(
        ("raw", "replicas"),
        [
            (None, None),
            ({}, None),
            ({"desiredReplicas": 3}, 3),
            ({"desiredReplicas": "three"}, None),
            ({"desiredReplicas": 3, "conditions": [{"type": "Ready", "status": "Perhaps"}]}, None),
        ],
        ids=["null", "empty", "ours", "another type", "a newer release's"],
    )
    def test_a_status_that_cannot_be_read_counts_as_none(self, raw, replicas):
        assert parsed_status(raw).desired_replicas == replicas

    def test_the_same_generation_is_not_parsed_again(self, monkeypatch):
        known = deployment_from(manifest())
        monkeypatch.setattr(parse.validation, "parse", lambda raw: pytest.fail("parsed again"))
        again = {**manifest(), "status": {"desiredReplicas": 4}}
        again["metadata"]["deletionTimestamp"] = AT
        found = deployment_from(again, known)

        assert found.spec is known.spec
        assert (found.status.desired_replicas, found.deleting) == (4, True)

    @pytest.mark.parametrize(
        "other", [{"generation": 2}, {"uid": "another"}], ids=["a new spec", "a namesake"]
    )
    def test_another_generation_or_object_is(self, other):
        found = deployment_from(manifest(replicas=5, **other), deployment_from(manifest(replicas=1)))

        assert found.spec is not None
        assert found.spec.replicas == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AT, NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        ("2027-01-15T08:00:00.250Z", NOW + 0.25),
        ("2027-01-15T08:00:00.250000Z", NOW + 0.25),
        (None, None),
        ("", None),
        ("yesterday", None),
    ],
    ids=["seconds", "another zone", "milliseconds", "microseconds", "absent", "empty", "unreadable"],
)
def test_times(text, expected):
    assert timestamp(text) == expected


def raw_pod(**fields):
    """A v1/Pod with the one label that makes it Stoker's."""
    metadata = {
        "namespace": NAMESPACE,
        "name": "p",
        "uid": "u",
        "labels": {meta.LABEL_MODEL_DEPLOYMENT: "llama"},
    }
    return {"metadata": metadata | fields.pop("metadata", {}), **fields}


def read(**fields):
    found = pod_from(raw_pod(**fields))
    assert found is not None
    return found


class TestPods:
    @pytest.mark.parametrize(
        "labels",
        [None, {}, {"app": "x"}, {meta.LABEL_MODEL_DEPLOYMENT: ""}],
        ids=["none", "empty", "others'", "an empty name"],
    )
    def test_a_pod_without_the_label_is_not_stokers(self, labels):
        assert pod_from({"metadata": {"name": "p", "labels": labels}}) is None
        assert owned_from({"metadata": {"name": "p", "labels": labels}}) is None

    def test_a_bare_pod_is_what_is_known_of_it(self):
        found = read()

        assert (found.key, found.uid, found.owner) == (Key(NAMESPACE, "p"), "u", "llama")
        assert (found.owner_uid, found.revision, found.ordinal, found.attempt) == ("", "", -1, 0)
        assert (found.serving, found.draining, found.deleting) == (False, False, False)
        assert (found.phase, found.node, found.ip, found.port) == ("Pending", "", "", 0)

    def test_labels_and_annotations(self):
        labels = {
            meta.LABEL_MODEL_DEPLOYMENT: "llama",
            meta.LABEL_REVISION: "abc",
            meta.LABEL_ORDINAL: "7",
            meta.LABEL_ACCELERATOR: "h100",
            meta.LABEL_SERVING: "true",
        }
        annotations = {
            meta.ANNOTATION_ATTEMPT: "2",
            meta.ANNOTATION_DRAIN_STARTED: AT,
            meta.ANNOTATION_DRAIN_REASON: "scale-in",
        }
        found = read(metadata={"labels": labels, "annotations": annotations, "deletionTimestamp": AT})

        assert (found.revision, found.ordinal, found.accelerator, found.serving) == ("abc", 7, "h100", True)
        assert (found.attempt, found.drain_started_at, found.drain_reason) == (2, NOW, "scale-in")
        assert found.deleting_at == NOW

    @pytest.mark.parametrize("text", ["seven", "", "1.5"])
    def test_what_somebody_else_wrote_into_a_number_is_unknown(self, text):
        labels = {meta.LABEL_MODEL_DEPLOYMENT: "llama", meta.LABEL_ORDINAL: text}
        found = read(metadata={"labels": labels, "annotations": {meta.ANNOTATION_ATTEMPT: text}})

        assert (found.ordinal, found.attempt) == (-1, 0)

    def test_only_the_controlling_owner_counts(self):
        references = [{"uid": "a"}, {"uid": "b", "controller": True}]

        assert read(metadata={"ownerReferences": references}).owner_uid == "b"
        assert read(metadata={"ownerReferences": references[:1]}).owner_uid == ""

    @pytest.mark.parametrize(
        ("containers", "port"),
        [
            ([{"ports": [{"containerPort": 8000}, {"containerPort": 9}]}], 8000),
            ([{"name": "sidecar"}, {"ports": [{"containerPort": 8001}]}], 8001),
            ([{}], 0),
        ],
        ids=["its first", "of the first container that has one", "none"],
    )
    def test_the_port(self, containers, port):
        assert read(spec={"containers": containers}).port == port

    def test_conditions_keep_their_time(self):
        raw = {"type": "Ready", "status": "True", "lastTransitionTime": AT, "reason": None}
        found = read(status={"conditions": [raw, {"type": "PodScheduled"}]})

        assert found.conditions == (
            PodCondition("Ready", "True", since=NOW),
            PodCondition("PodScheduled", "Unknown"),
        )
        assert found.ready_since == NOW

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ({}, ContainerStatus("engine")),
            ({"state": {}}, ContainerStatus("engine")),
            (
                {"ready": True, "started": True, "state": {"running": {"startedAt": AT}}},
                ContainerStatus("engine", ready=True, started=True, state="running", started_at=NOW),
            ),
            (
                {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}},
                ContainerStatus("engine", reason="ImagePullBackOff", message="no such tag"),
            ),
            (
                {
                    "restartCount": 3,
                    "state": {"terminated": {"exitCode": 0}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "m"}},
                },
                ContainerStatus(
                    "engine",
                    restarts=3,
                    state="terminated",
                    exit_code=0,
                    last_exit_code=137,
                    last_reason="OOMKilled",
                    last_message="m",
                ),
            ),
            ({"state": {"waiting": None}, "lastState": {}}, ContainerStatus("engine")),
        ],
        ids=["nothing known", "empty", "running", "waiting", "ended twice", "nulls"],
    )
    def test_containers(self, raw, expected):
        status = {"containerStatuses": [{"name": "engine", **raw}], "initContainerStatuses": None}
        found = read(status=status)

        assert (found.containers, found.init_containers) == ((expected,), ())


def test_an_applied_object_is_known_by_its_hash_and_its_selector():
    obj = {
        "kind": "Service",
        **raw_pod(metadata={"annotations": {meta.ANNOTATION_APPLIED_HASH: "h"}}),
        "spec": {"selector": {"a": "b"}},
    }
    found = owned_from(obj)

    assert found is not None
    owner, record = found
    assert (owner, record.kind, record.key, record.uid) == ("llama", "Service", Key(NAMESPACE, "p"), "u")
    assert (record.applied_hash, record.selector) == ("h", {"a": "b"})
