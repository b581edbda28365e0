"""What a published status still says right is kept as it is; what changed is said anew."""

from dataclasses import replace

import pytest

from stoker.api.v1alpha1 import ModelDeploymentStatus, ReplicaPhase
from stoker.core.reconcile import reconcile
from tests.factories import NOW, deployment, draining, load, metrics, pod, snapshot


def status_of(known, *pods, **fields):
    """What a tick publishes, or what is published already."""
    return reconcile(snapshot(known, pods=pods, **fields))[known.key].status or known.status


@pytest.fixture
def known():
    d = deployment(replicas=2)
    status = status_of(d, pod(0, of=d), pod(1, of=d))
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return replace(d, status=ModelDeploymentStatus.model_validate(written))


def test_a_replica_that_changed_is_told_anew_and_the_other_stays(known):
    before = {s.name: s for s in known.status.replica_states}
    leaving, staying = draining(0, of=known), pod(1, of=known)
    after = {s.name: s for s in status_of(known, leaving, staying).replica_states}
    assert after[leaving.key.name].phase is ReplicaPhase.DRAINING
    assert after[staying.key.name] is before[staying.key.name]


def test_a_condition_that_changed_is_told_anew_and_the_others_stay(known):
    before = {c.type: c for c in known.status.conditions}
    after = {c.type: c for c in status_of(known, pod(0, of=known)).conditions}
    assert after["Accepted"] is before["Accepted"]
    assert (before["Progressing"].status, after["Progressing"].status) == ("False", "True")


def test_another_generation_is_told_in_every_condition(known):
    pods = pod(0, of=known), pod(1, of=known)
    after = status_of(replace(known, generation=7), *pods)
    assert {c.observed_generation for c in after.conditions} == {7}


def test_a_message_alone_waits_for_the_refresh():
    d = deployment(scaling={"maxReplicas": 4})
    p = pod(of=d)
    d = replace(d, status=status_of(d, p, metrics=metrics({p: load(10)})))
    kept = status_of(d, p, now=NOW + 1, metrics=metrics({p: load(11, at=NOW + 1)}, at=NOW + 1))
    assert kept is d.status
