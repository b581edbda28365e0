"""Which replicas start, leave, come back and are replaced: one step at a time."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.core import lifecycle
from stoker.core.engines import CONTAINER
from stoker.core.lifecycle import Context, Steps, plan_replicas
from stoker.core.observed import ENGINE_CONTAINER, ContainerStatus, Pod
from stoker.core.plan import CreatePod, DeletePod, DrainPod, RestorePod
from stoker.core.readings import EngineLoad, Fresh, Missing
from tests.factories import (
    NOW,
    deleting,
    deployment,
    draining,
    failed,
    load,
    loading,
    metrics,
    pending,
    pod,
    unschedulable,
)

IT = deployment()
REVISION = IT.revision


def steps(*pods: Pod, target: int, **fields: Any) -> Steps:
    known = {"now": NOW, "drain_timeout": 600.0, "metrics": metrics({p: load() for p in pods}), "loads": {}}
    context = Context(**(known | {"deployment": IT, "revision": REVISION, "target": target} | fields))
    return plan_replicas(context, pods)


def said(found: Steps) -> list[tuple[str, str]]:
    """(what, to which pod)."""
    return [
        (
            type(a).__name__,
            a.manifest["metadata"]["name"] if isinstance(a, CreatePod) else a.pod.name,
        )  # type: ignore[union-attr]
        for a in found.actions
    ]


def mine(make: Any, ordinal: int = 0, **fields: Any) -> Pod:
    return make(ordinal, of=IT, **fields)


def name(ordinal: int, revision: str = REVISION) -> str:
    return f"llama-{revision}-{ordinal}"


def idle(p: Pod, *, polls: int = 2, at: float = NOW, requests: float = 0.0) -> dict[str, EngineLoad]:
    return {p.uid: EngineLoad(Fresh(requests, at), polls)}


class TestScaleOut:
    def test_what_lacks_is_created_with_the_lowest_free_ordinals(self):
        assert said(steps(mine(pod, 1), target=3)) == [("CreatePod", name(0)), ("CreatePod", name(2))]

    @pytest.mark.parametrize("make", [loading, pending, unschedulable])
    def test_replicas_on_their_way_count(self, make):
        assert steps(mine(make), target=1).actions == ()

    def test_a_pod_that_is_being_deleted_is_replaced_but_holds_its_name(self):
        assert said(steps(mine(deleting, 0), target=1)) == [("CreatePod", name(1))]

    def test_a_namesakes_pods_hold_their_names_and_are_left_alone(self):
        theirs = mine(pod, 0, owner_uid="uid-of-the-one-before")

        assert said(steps(theirs, target=1)) == [("CreatePod", name(1))]

    def test_a_label_that_lies_about_the_ordinal_frees_no_name(self):
        liar = mine(pod, 7, name=name(0))

        assert said(steps(liar, target=2)) == [("CreatePod", name(1))]

    def test_draining_replicas_come_back_before_new_ones_start_the_latest_first(self):
        first, last = mine(draining, 0, since=NOW - 60), mine(draining, 1, since=NOW - 10)

        assert said(steps(first, last, target=1)) == [("RestorePod", name(1))]

    def test_one_that_is_idle_comes_back_all_the_same_and_is_not_deleted(self):
        leaver = mine(draining)

        assert said(steps(leaver, target=1, loads=idle(leaver))) == [("RestorePod", name(0))]

    def test_one_whose_time_is_up_comes_back_all_the_same(self):
        assert said(steps(mine(draining, since=NOW - 700), target=1)) == [("RestorePod", name(0))]

    def test_an_old_revision_does_not_come_back(self):
        old = draining(0, revision="old")

        assert ("CreatePod", name(0)) in said(steps(old, target=1))


class TestScaleIn:
    def test_a_serving_replica_is_drained_now_and_told_why(self):
        (action,) = steps(mine(pod), target=0).actions

        assert action == DrainPod(mine(pod).key, mine(pod).uid, NOW, "scale-in")

    def test_one_that_never_served_is_deleted_at_once(self):
        assert said(steps(mine(loading), target=0)) == [("DeletePod", name(0))]

    @pytest.mark.parametrize(
        ("make", "leaver"),
        [
            (lambda: (mine(pod, 0), mine(loading, 1)), 1),
            (lambda: (mine(loading, 0, created_at=NOW - 9), mine(loading, 1, created_at=NOW - 90)), 0),
            (lambda: (mine(pod, 0), mine(failed, 1, at=NOW - 1)), 1),
            (lambda: (mine(loading, 0), mine(failed, 1, at=NOW - 1)), 1),
        ],
        ids=[
            "not started before serving",
            "the youngest first",
            "failed before serving",
            "failed before loading",
        ],
    )
    def test_who_goes_first(self, make, leaver):
        assert [who for _, who in said(steps(*make(), target=1))] == [name(leaver)]

    def test_the_one_with_the_least_in_flight_goes(self):
        pods = [mine(pod, n) for n in range(3)]
        said_by = metrics({pods[0]: load(5), pods[1]: load(1, waiting=1), pods[2]: load(3)})

        assert said(steps(*pods, target=2, metrics=said_by)) == [("DrainPod", name(1))]

    def test_unknown_is_not_idle(self):
        pods = [mine(pod, n) for n in range(2)]

        assert said(steps(*pods, target=1, metrics=metrics({pods[0]: load(50)}))) == [("DrainPod", name(0))]

    def test_a_draining_replica_is_not_counted_twice(self):
        assert steps(mine(pod, 0), mine(draining, 1), target=1).actions == ()


class TestDrain:
    def test_an_idle_replica_goes(self):
        leaver = mine(draining)

        assert said(steps(leaver, target=0, loads=idle(leaver))) == [("DeletePod", name(0))]

    @pytest.mark.parametrize(
        "said_by",
        [{"polls": 1}, {"at": NOW - 26}],
        ids=["it said so only once", "it said so before routers knew"],
    )
    def test_it_stays_while_its_idleness_is_not_sure(self, said_by):
        leaver = mine(draining, since=NOW - 30)

        assert steps(leaver, target=0, loads=idle(leaver, **said_by)).actions == ()

    def test_an_engine_that_cannot_be_asked_is_not_idle(self):
        leaver = mine(draining)
        loads = {leaver.uid: EngineLoad(Missing("no answer"), 9)}

        assert steps(leaver, target=0, loads=loads).actions == ()

    def test_when_its_time_is_up_it_goes_and_an_event_counts_what_was_cut(self):
        leaver = mine(draining, since=NOW - 600)

        found = steps(leaver, target=0, loads=idle(leaver, polls=0, requests=3.0))

        assert said(found) == [("DeletePod", name(0))]
        assert "3 requests in flight" in found.events[0].message

    @pytest.mark.parametrize("make", ["crashed", "failed"])
    def test_one_without_an_engine_has_nothing_to_finish(self, make):
        dead = {
            "containers": (
                ContainerStatus("engine"),
                ContainerStatus("sidecar", started=True, state="running"),
            )
        }
        leaver = mine(draining, **(dead if make == "crashed" else {"phase": "Failed"}))

        assert said(steps(leaver, target=0)) == [("DeletePod", name(0))]

    def test_one_that_failed_while_it_drained_is_not_replaced(self):
        assert said(steps(mine(pod, 0), mine(draining, 1, phase="Failed"), target=1)) == [
            ("DeletePod", name(1))
        ]

    def test_it_is_looked_at_every_second(self):
        assert steps(mine(draining), target=0).requeue_at == NOW + 1


class TestFailed:
    def test_it_is_replaced_when_its_back_off_is_over_the_new_one_first(self):
        found = said(steps(mine(failed, at=NOW - 10), target=1))

        assert found == [("CreatePod", name(1)), ("DeletePod", name(0))]

    def test_until_then_it_holds_its_place(self):
        found = steps(mine(failed, at=NOW - 9), target=1)

        assert (found.actions, found.requeue_at) == ((), NOW + 1)

    @pytest.mark.parametrize(("attempt", "pause"), [(0, 10), (1, 20), (3, 80), (5, 300), (99, 300)])
    def test_the_back_off_doubles_up_to_five_minutes(self, attempt, pause):
        assert lifecycle.retry_at(mine(failed, at=NOW, attempt=attempt)) == NOW + pause

    def test_one_that_lived_long_starts_over(self):
        assert lifecycle.retry_at(mine(failed, at=NOW, attempt=5, created_at=NOW - 600)) == NOW + 10

    def test_the_attempt_is_counted_on_the_new_pod(self):
        create = steps(mine(failed, at=NOW - 60, attempt=2), target=1).actions[0]

        assert isinstance(create, CreatePod)
        assert create.manifest["metadata"]["annotations"]["stoker.dev/attempt"] == "3"


class TestRollout:
    OLD = "0ld0ld00"

    def old(self, ordinal: int, make: Any = pod, **fields: Any) -> Pod:
        return make(ordinal, revision=self.OLD, **fields)

    def test_a_new_replica_comes_first(self):
        assert said(steps(self.old(0), self.old(1), target=2)) == [("CreatePod", name(0))]

    def test_nobody_goes_while_it_loads(self):
        assert steps(self.old(0), self.old(1), mine(loading), target=2).actions == ()

    def test_an_old_one_goes_when_it_serves(self):
        found = steps(self.old(0), self.old(1), mine(pod), target=2)

        assert [type(a) for a in found.actions] == [DrainPod]

    def test_one_at_a_time(self):
        assert steps(self.old(0), self.old(1, draining), mine(pod, 0), mine(pod, 1), target=2).actions == ()

    def test_on_a_full_cluster_an_old_one_makes_room(self):
        found = steps(self.old(0), self.old(1), mine(unschedulable, since=NOW - 10), target=2)

        assert [type(a) for a in found.actions] == [DrainPod]

    def test_not_before_the_scheduler_has_meant_it(self):
        found = steps(self.old(0), self.old(1), mine(unschedulable, since=NOW - 9), target=2)

        assert (found.actions, found.requeue_at) == ((), NOW + 1)

    def test_no_room_is_made_for_a_replica_that_no_node_would_take(self):
        nowhere = mine(
            unschedulable,
            message="0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector.",
        )

        assert steps(self.old(0), nowhere, target=1).actions == ()

    @pytest.mark.parametrize("at", [NOW - 1, NOW - 600], ids=["in back-off", "back-off over"])
    def test_a_new_revision_that_fails_takes_no_old_replica_with_it(self, at):
        found = steps(self.old(0), self.old(1), mine(failed, at=at), target=2)

        assert not any(isinstance(a, DrainPod) for a in found.actions)
        assert {a.pod for a in found.actions if isinstance(a, DeletePod)} <= {mine(pod).key}

    def test_a_rollback_takes_draining_replicas_back(self):
        assert said(steps(self.old(0), mine(draining, 0), target=1))[:1] == [("RestorePod", name(0))]

    def test_scale_in_in_the_middle_counts_the_surge(self):
        assert steps(self.old(0), self.old(1), mine(loading), target=2).actions == ()

    def test_old_replicas_are_counted_while_they_leave(self):
        assert steps(self.old(0), self.old(1, draining), mine(pod), target=2).rolling == 2


class TestRouting:
    def test_a_serving_label_that_was_taken_away_is_put_back(self):
        assert said(steps(mine(pod, serving=False), target=1)) == [("RestorePod", name(0))]

    def test_a_draining_replica_that_was_put_back_by_hand_is_taken_out(self):
        (action,) = steps(mine(pod, 0), mine(draining, 1, serving=True), target=1).actions

        assert isinstance(action, DrainPod)
        assert action.at == NOW - 30

    @pytest.mark.parametrize("make", [deleting, failed])
    def test_what_is_gone_is_not_repaired(self, make):
        found = steps(mine(make, serving=False), target=0)

        assert not any(isinstance(a, RestorePod) for a in found.actions)


def test_a_sidecar_says_nothing_about_the_engine():
    sidecar = ContainerStatus("proxy", ready=True, started=True, state="running")
    half = mine(loading, containers=(ContainerStatus("engine", state="running"), sidecar))

    assert said(steps(half, target=0)) == [("DeletePod", name(0))]


def test_the_engines_container_is_known_by_its_name():
    assert ENGINE_CONTAINER == CONTAINER
