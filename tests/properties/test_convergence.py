"""Whatever happens in between, the fleet becomes what the spec asks for, and cuts no request on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.core.plan import DeletePod
from tests.properties.cluster_model import DRAIN_SECONDS, Cluster

STEPS = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("roll"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 15, 30])),
    st.tuples(st.just("die"), st.integers(0, 40)),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("vanish"), st.integers(0, 9)),
    st.tuples(st.just("relabel"), st.integers(0, 9)),
    st.tuples(st.just("stick"), st.integers(0, 9)),
)
"""`die`: the operator dies after so many actions of its plan. The rest is what users and nodes do."""


def apply(cluster: Cluster, step: tuple[str, int]) -> None:
    kind, number = step
    uids = [uid for uid, r in cluster.replicas.items() if not r.pod.deleting]
    if kind == "scale":
        cluster.change(replicas=number)
    elif kind == "roll":
        cluster.roll(number)
    elif kind == "wait":
        cluster.tick(number)
    elif kind == "die":
        cluster.execute(cluster.plan(), upto=number % (len(cluster.plan().actions) + 1))
    elif uids:
        harm(cluster, kind, uids[number % len(uids)])


def harm(cluster: Cluster, kind: str, uid: str) -> None:
    replica = cluster.replicas[uid]
    if kind == "fail" and replica.placed_at is not None:
        cluster.fail(uid)
    elif kind == "vanish":
        del cluster.replicas[uid]
    elif kind == "relabel" and not replica.pod.deleting:
        cluster._change(uid, serving=not replica.pod.serving)
    elif kind == "stick":
        replica.stuck = True


def assert_settled(cluster: Cluster) -> None:
    cluster.settle()
    target = cluster.spec["replicas"]
    assert len(cluster.routed()) == target, [r.pod for r in cluster.replicas.values()]
    assert cluster.old() == []
    assert len(cluster.replicas) == target
    plan = cluster.plan()
    assert plan.actions == ()
    cluster.execute(plan)
    quiet = cluster.plan()
    assert (quiet.actions, quiet.status, quiet.events) == ((), None, ())


@given(st.lists(STEPS, max_size=14), st.integers(5, 8), st.integers(0, 6))
def test_any_history_converges_on_enough_gpus(steps, gpus, traffic):
    cluster = Cluster(gpus=gpus, traffic=traffic, spec={"replicas": 3})
    cluster.settle()  # replicas that serve, so that there is something to lose
    for step in steps:
        apply(cluster, step)

    assert_settled(cluster)


@given(st.lists(STEPS, max_size=12), st.integers(1, 4))
def test_a_rollout_on_a_full_cluster_converges(steps, replicas):
    cluster = Cluster(gpus=replicas, traffic=3, spec={"replicas": replicas})
    cluster.settle()
    cluster.roll(1)
    for step in steps:
        apply(cluster, step)
    cluster.change(replicas=min(replicas, cluster.spec["replicas"]))

    assert_settled(cluster)


@given(st.lists(STEPS, max_size=10), st.integers(0, 6))
def test_too_few_gpus_are_all_used_and_one_replica_waits(steps, gpus):
    cluster = Cluster(gpus=gpus, traffic=1, spec={"replicas": 2})
    for step in steps:
        apply(cluster, step)
    cluster.change(replicas=gpus + 2)
    cluster.settle(600)

    assert len(cluster.routed()) == gpus
    assert len(cluster.live()) == gpus + 1, "one asks the scheduler for all"
    assert cluster.plan().actions == ()


@given(st.integers(1, 4), st.integers(1, 3))
def test_a_rollout_completes_while_gpus_are_short(gpus, wanting):
    cluster = Cluster(gpus=gpus, traffic=1, spec={"replicas": gpus})
    cluster.settle(300)
    cluster.change(replicas=gpus + wanting)
    cluster.settle(300)
    cluster.roll(1)
    cluster.settle(3000)

    assert cluster.old() == []
    assert len(cluster.routed()) == gpus


@given(st.lists(STEPS, max_size=10))
def test_executing_a_plan_and_reconciling_again_plans_nothing(steps):
    """Where an old replica that never served goes at once, the next step of the rollout is a second plan."""
    cluster = Cluster(gpus=6, traffic=2, spec={"replicas": 3})
    for step in steps:
        apply(cluster, step)
        before = cluster.plan()
        cluster.execute(before)
        if cluster.old() or any(isinstance(a, DeletePod) for a in before.actions):
            cluster.execute(cluster.plan())
        again = cluster.plan()
        assert again.actions == (), (before.actions, again.actions)
        cluster.execute(again)
        quiet = cluster.plan()
        assert (quiet.actions, quiet.status, quiet.events) == ((), None, ())


@given(st.integers(0, 3), st.integers(1, 4), st.integers(2, 6), st.integers(0, 200))
def test_a_revision_that_cannot_start_costs_at_most_the_room_it_was_made(traffic, replicas, gpus, ticks):
    """With room for the new replica no old one goes; on a full cluster one does, once."""
    cluster = Cluster(gpus=gpus, traffic=traffic, spec={"replicas": min(replicas, gpus)}, bad_images={1})
    cluster.settle()
    before = len(cluster.routed())
    cluster.roll(1)
    for _ in range(ticks):
        cluster.tick()

    room = gpus > before
    assert len(cluster.routed()) >= before - (0 if room else 1)

    cluster.roll(2)
    assert_settled(cluster)


@given(st.integers(0, 60))
def test_a_rollback_in_mid_rollout_converges(ticks):
    cluster = Cluster(gpus=3, traffic=3, spec={"replicas": 3})
    cluster.settle()
    cluster.roll(1)
    for _ in range(ticks):
        cluster.tick(2)
    cluster.roll(0)

    assert_settled(cluster)


def test_requests_that_never_end_are_cut_when_the_drain_time_is_up():
    cluster = Cluster(traffic=3, spec={"replicas": 2})
    cluster.settle()
    for replica in cluster.replicas.values():
        replica.stuck = True
    cluster.change(replicas=1)
    cluster.execute(cluster.plan())
    cluster.advance(DRAIN_SECONDS - 1)
    cluster.execute(cluster.plan())
    assert len([r for r in cluster.replicas.values() if not r.pod.deleting]) == 2

    cluster.advance(1)
    plan = cluster.plan()
    cluster.execute(plan)

    assert [e.reason for e in plan.events] == ["DrainDeadlineExceeded"]
    assert len([r for r in cluster.replicas.values() if not r.pod.deleting]) == 1
