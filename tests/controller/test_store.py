"""The store: newer replaces older, what is gone stays gone, and nobody is woken for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.controller.store import TOMBSTONE_SECONDS, Store
from stoker.core.readings import Key
from tests.factories import KEY, manifest


def pod(version: int = 1, *, uid: str = "p1", owner: str = KEY.name, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": KEY.namespace,
            "name": f"pod-{uid}",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"stoker.dev/model-deployment": owner},
        },
        "status": status,
    }


def service(uid: str, version: int) -> dict[str, Any]:
    return pod(version, uid=uid) | {"kind": "Service", "spec": {"selector": {"a": "b"}}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


def phases(store: Store) -> list[str]:
    return [p.phase for p in store.pods(KEY)]


def test_a_new_object_names_the_model_deployment_to_look_at(store):
    assert store.put("Pod", pod()) == KEY


def test_an_older_version_changes_nothing(store):
    store.put("Pod", pod(5, phase="Running"))

    assert store.put("Pod", pod(4, phase="Pending")) is None
    assert phases(store) == ["Running"]


def test_an_echo_wakes_nobody(store):
    store.put("Pod", pod(5, phase="Running"))

    assert store.put("Pod", pod(6, phase="Running")) is None


def test_the_same_version_is_taken_in_once(store):
    store.put("Pod", pod(5, phase="Running"))
    store.mark_deleting("p1", 7.0)

    assert store.put("Pod", pod(5, phase="Running")) is None
    assert store.pods(KEY)[0].deleting_at == 7.0, "a late event must not undo what Stoker has done since"


class TestStatus:
    """A status in the watch: Stoker's own wakes nobody, anybody else's does."""

    def written(self, version: int, desired: int, generation: int = 1) -> dict[str, Any]:
        obj = manifest(generation=generation)
        obj["metadata"]["resourceVersion"] = str(version)
        return obj | {"status": {"desiredReplicas": desired}}

    @pytest.fixture
    def store(self, store: Store) -> Store:
        store.put("ModelDeployment", self.written(1, 1))
        store.expect(KEY, ModelDeploymentStatus(desired_replicas=2))
        return store

    def test_the_expected_one_is_kept_and_wakes_nobody(self, store):
        assert store.put("ModelDeployment", self.written(2, 2)) is None
        assert store.deployments[KEY].status.desired_replicas == 2
        assert not store._expected, "the statuses of a large fleet are not kept twice"

    def test_another_one_is_looked_at(self, store):
        assert store.put("ModelDeployment", self.written(2, 3)) == KEY

    def test_a_spec_that_changed_with_it_is_looked_at(self, store):
        assert store.put("ModelDeployment", self.written(2, 2, generation=2)) == KEY

    def test_one_that_is_going_is_looked_at(self, store):
        going = self.written(2, 2)
        going["metadata"]["deletionTimestamp"] = "2027-01-15T07:59:00Z"

        assert store.put("ModelDeployment", going) == KEY

    def test_a_namesake_is_looked_at(self, store):
        store.remove("uid-llama")

        assert store.put("ModelDeployment", manifest(uid="new") | {"status": {"desiredReplicas": 2}}) == KEY


def test_what_is_gone_does_not_come_back_through_a_late_answer(store):
    store.put("Pod", pod(5))

    assert store.remove("p1") == KEY
    assert store.put("Pod", pod(9)) is None
    assert store.pods(KEY) == ()


def test_the_dead_are_forgotten_after_a_while(store, clock):
    store.put("Pod", pod())
    store.remove("p1")
    clock.now = TOMBSTONE_SECONDS
    store.remove("p2")

    assert store._tombstones.keys() == {"p2"}


def test_a_pod_without_stokers_label_is_nobodys(store):
    stranger = pod()
    del stranger["metadata"]["labels"]

    assert store.put("Pod", stranger) is None
    assert list(store.all_pods()) == []


def test_a_pod_whose_label_was_changed_is_not_counted_twice(store):
    store.put("Pod", pod(1))
    store.put("Pod", pod(2, owner="other"))

    assert store.pods(KEY) == ()
    assert len(store.pods(Key(KEY.namespace, "other"))) == 1


def test_the_end_of_a_former_service_does_not_forget_its_successor(store):
    store.put("Service", service("s1", 1))
    store.put("Service", service("s2", 2))
    store.remove("s1")

    assert store.services[KEY].uid == "s2"


def test_the_end_of_a_former_namesake_does_not_forget_the_new_one(store):
    store.put("ModelDeployment", manifest(uid="old"))
    store.put("ModelDeployment", manifest(uid="new"))
    store.remove("old")

    assert store.deployments[KEY].uid == "new"


def test_an_accepted_deletion_is_known_before_the_watch_tells(store):
    store.put("Pod", pod())
    store.mark_deleting("p1", 7.0)

    assert store.pods(KEY)[0].deleting_at == 7.0


def test_removing_what_was_never_known_concerns_nobody(store):
    assert store.remove("never") is None


def test_a_pod_whose_label_comes_back_is_known_again(store):
    store.put("Pod", pod(5))
    store.remove("p1", "6")  # a watch by label calls it deleted

    assert store.put("Pod", pod(6)) is None
    assert store.put("Pod", pod(7)) == KEY
    assert len(store.pods(KEY)) == 1


def test_those_that_drain_are_known_until_they_do_not_or_are_gone(store):
    def draining(version, uid):
        found = pod(version, uid=uid)
        found["metadata"]["annotations"] = {"stoker.dev/drain-started-at": "2027-01-15T06:00:00Z"}
        return found

    store.put("Pod", pod(1, uid="p0"))
    for uid in ("p1", "p2", "p3"):
        store.put("Pod", draining(1, uid))
    assert [(owner, p.uid) for owner, p in store.draining()] == [(KEY, "p1"), (KEY, "p2"), (KEY, "p3")]

    store.put("Pod", pod(2, uid="p1"))
    store.remove("p2")
    assert [p.uid for _, p in store.draining()] == ["p3"]
