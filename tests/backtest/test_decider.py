"""Decisions in virtual time are those of the operator's own code, with what it remembers carried along."""

from dataclasses import replace

import pytest

from stoker.backtest.decider import Decider, serving_pod
from stoker.core.observed import Memory, Snapshot
from stoker.core.readings import Key
from stoker.core.reconcile import reconcile, want
from tests.factories import NOW, deployment, load, metrics


def fleet(count, of):
    return [
        serving_pod(Key("models", f"llama-x-{n}"), of, created=NOW - 900, ready=NOW - 600)
        for n in range(count)
    ]


@pytest.fixture
def llama():
    return deployment(
        scaling={"maxReplicas": 9, "targets": {"concurrentRequests": 40}, "windows": {"up": "20s"}}
    )


def test_the_record_of_a_replica_serves_and_is_the_deployments(llama):
    (pod,) = fleet(1, llama)
    assert pod.routed
    assert (pod.ready_since, pod.created_at) == (NOW - 600, NOW - 900)
    assert (pod.owner_uid, pod.revision) == (llama.uid, llama.revision)
    assert pod.accelerator == llama.spec.accelerators[0].name


def test_windows_pass_because_memory_and_last_decision_are_carried(llama):
    decider, pods = Decider(llama), fleet(2, llama)
    asked = [
        decider.decide(at, pods, metrics({pod: load(running=55, at=at) for pod in pods}, at=at)).desired
        for at in (NOW, NOW + 10, NOW + 20, NOW + 30)
    ]
    assert asked == [2, 2, 3, 3]
    assert decider.deployment.status.desired_replicas == 3
    assert llama.status.desired_replicas is None


def test_each_decision_is_the_one_that_want_makes(llama):
    decider, pods = Decider(llama), fleet(2, llama)
    memory, status = Memory(), llama.status
    for step in range(12):
        at, running = NOW + 10 * step, 20.0 + 15 * step
        seen = metrics({pod: load(running=running, at=at) for pod in pods}, at=at)
        current = replace(llama, status=status)
        snapshot = Snapshot(
            now=at,
            deployments={llama.key: current},
            pods={llama.key: tuple(pods)},
            metrics=seen,
            memory={llama.key: memory},
            why_no_history="Prometheus has none",
        )
        expected = want(snapshot, current, llama.spec)
        plan = reconcile(snapshot)[llama.key]
        assert decider.decide(at, pods, seen) == expected
        assert plan.status.desired_replicas == expected.desired
        memory, status = expected.memory, status.model_copy(update={"desired_replicas": expected.desired})
    assert status.desired_replicas == 8
