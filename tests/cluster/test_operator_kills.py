"""The operator is killed with -9 wherever it may be, and started again: it goes on where it was."""

from collections.abc import Callable

import pytest

from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_history import History
from tests.cluster.operator_lab import (
    Json,
    Lab,
    draining,
    in_routing,
    is_ready,
    manifest,
    names,
    scaling,
    uids,
)
from tests.cluster.operator_load import HeldRequests


def kill_when(lab: Lab, what: str, ask: Callable[[], object]) -> None:
    """Kill the operator the moment something can be seen, and start it again."""
    lab.until(what, ask)
    lab.operator.kill()
    lab.operator.restart()


@pytest.mark.parametrize("made", [0, 1, 4, 7])
def test_in_the_middle_of_a_scale_out(lab: Lab, made: int):
    # Slowed down to a pod per half a second, so that there is a middle.
    lab.start(kube_qps="2", kube_burst="1")
    with History(lab.plane, lab.namespace) as history:
        lab.apply(manifest(replicas=8))
        lab.until("so many pods", lambda: len(lab.pods()) >= made)
        lab.operator.kill()
        before = lab.pods()
        lab.operator.restart()
        after = lab.until_serving(8)
        lab.until_verdict("Progressing", "False/Complete")
    assert len(before) < 8, "killed too late for this test to mean anything"
    assert uids(before) <= uids(after)
    assert {pod["metadata"]["labels"]["stoker.dev/ordinal"] for pod in after} == set("01234567")
    assert max(history.counts(lambda _: True)) == 8


def test_while_a_replica_drains(lab: Lab, engines: EngineFleet, load: HeldRequests, prometheus: Prometheus):
    lab.start(prometheus_url=prometheus.url)
    lab.apply(manifest(replicas=3))
    pods = lab.until_serving(3)
    victim = names(pods)[2]
    load.put(pods[0], 7)
    load.put(pods[1], 6)
    load.put(pods[2], 2)
    lab.patch("modeldeployments/llm", {"spec": {"replicas": None, "scaling": scaling(1, 3, requests=9)}})

    def drain_started() -> str | None:
        annotations = next((p["metadata"]["annotations"] for p in lab.pods() if names([p]) == [victim]), {})
        return annotations.get("stoker.dev/drain-started-at")

    kill_when(lab, "the drain begins", drain_started)
    started = drain_started()
    lab.stays("the same drain", lambda: drain_started() == started, 8)
    kill_when(lab, "it still drains", drain_started)
    assert load.on(victim) == 2
    load.release(victim)
    lab.until("gone once it is idle", lambda: names(lab.pods(live=False)) == names(pods[:2]))
    assert load.cut == 0
    assert engines.stats()["totals"]["cut"] == 0
    assert lab.status()["desiredReplicas"] == 2


def test_at_every_step_of_a_rollout(lab: Lab, engines: EngineFleet):
    lab.start()
    lab.apply(manifest(replicas=3))
    old = uids(lab.until_serving(3))

    def position() -> set[tuple[str, bool, bool]]:
        return {(p["metadata"]["uid"], is_ready(p), in_routing(p)) for p in lab.pods(live=False)}

    kills = 0
    with History(lab.plane, lab.namespace) as history:
        lab.apply(manifest(replicas=3, engine={"image": "vllm/vllm-openai:v0.33.1"}))
        while old & uids(lab.pods(live=False)):
            before = position()
            lab.until("a step", lambda: position() != before)  # noqa: B023 - asked at once
            lab.operator.kill()
            lab.operator.restart()
            kills += 1
        lab.until_serving(3)
        lab.until_verdict("Progressing", "False/Complete")
    assert min(history.counts(lambda p: is_ready(p) and in_routing(p))) >= 3
    assert kills > 3, "too few to mean anything"
    assert len(lab.pods(live=False)) == 3
    assert max(history.counts(lambda p: not draining(p) and "deletionTimestamp" not in p["metadata"])) == 4


def test_after_its_decision_and_before_the_first_pod(
    lab: Lab, engines: EngineFleet, load: HeldRequests, prometheus: Prometheus
):
    lab.start(prometheus_url=prometheus.url, kube_qps="2", kube_burst="1")
    lab.apply(manifest(scaling=scaling(1, 6)))
    (first,) = lab.until_serving(1)
    load.put(first, 45)
    lab.until("the second pod", lambda: len(lab.pods()) == 2)
    lab.operator.kill()
    before = uids(lab.pods())
    prometheus.kill()  # what was decided has to be known without it
    lab.operator.restart()
    after: list[Json] = lab.until_serving(5)
    assert before <= uids(after)
    assert len(lab.pods(live=False)) == 5
    assert lab.status()["desiredReplicas"] == 5
