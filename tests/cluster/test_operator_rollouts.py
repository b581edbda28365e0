"""A changed pod replaces replicas one by one, and never at the price of those that serve."""

from collections.abc import Callable

import pytest

from testbed.engines import EngineFleet
from tests.cluster.operator_history import History
from tests.cluster.operator_lab import Json, Lab, draining, in_routing, is_ready, manifest, uids

OTHER = {"image": "vllm/vllm-openai:v0.33.1"}


def serves(pod: Json) -> bool:
    """Whether the Service routes to it."""
    return in_routing(pod) and is_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def stays(pod: Json) -> bool:
    """Whether nobody has taken leave of it."""
    return not draining(pod) and "deletionTimestamp" not in pod["metadata"]


def revisions(lab: Lab) -> set[str]:
    """Revisions of the pods that exist."""
    return {pod["metadata"]["labels"]["stoker.dev/revision"] for pod in lab.pods(live=False)}


def images(lab: Lab) -> set[str]:
    """Images of the pods that exist."""
    return {pod["spec"]["containers"][0]["image"] for pod in lab.pods(live=False)}


def test_a_changed_image_replaces_one_replica_at_a_time(lab: Lab, engines: EngineFleet):
    lab.start()
    lab.apply(manifest(replicas=3))
    old = uids(lab.until_serving(3))
    with History(lab.plane, lab.namespace) as history:
        lab.apply(manifest(replicas=3, engine=OTHER))
        lab.until_verdict("Progressing", "True/RollingOut")
        lab.until(
            "three new ones alone",
            lambda: len(lab.serving()) == 3 and not old & uids(lab.pods(live=False)),
        )
        lab.until_verdict("Progressing", "False/Complete")
    assert min(history.counts(serves)) == 3
    assert max(history.counts(stays)) == 4, "one more than wanted, while it is being replaced"
    assert len(revisions(lab)) == 1
    assert lab.pods()[0]["spec"]["containers"][0]["image"] == OTHER["image"]
    assert lab.verdict("Ready") == "True/Serving"


@pytest.mark.parametrize(
    "change",
    [
        {"drain": {"timeout": "3m"}},
        {"replicas": None, "scaling": {"minReplicas": 2, "maxReplicas": 7, "windows": {"down": "1h"}}},
    ],
    ids=["drain", "scaling"],
)
def test_what_is_not_part_of_a_pod_restarts_nothing(lab: Lab, change: Json):
    lab.start()
    lab.apply(manifest(replicas=2))
    before = {p["metadata"]["uid"]: p["metadata"]["resourceVersion"] for p in lab.until_serving(2)}
    generation = lab.patch("modeldeployments/llm", {"spec": change})["metadata"]["generation"]
    lab.until("seen", lambda: lab.status()["observedGeneration"] == generation)
    with History(lab.plane, lab.namespace) as history:
        lab.stays("ready", lambda: lab.verdict("Ready") == "True/Serving", 3)
    assert history.counts(serves) == [2], "no pod was touched"
    assert {p["metadata"]["uid"]: p["metadata"]["resourceVersion"] for p in lab.pods()} == before


@pytest.mark.slow
def test_a_revision_that_fails_leaves_the_old_one_serving_and_can_be_taken_back(
    lab: Lab, engines: EngineFleet
):
    lab.start()
    good = manifest(replicas=2)
    lab.apply(good)
    old = uids(lab.until_serving(2))
    broken = manifest(replicas=2, engine=OTHER, annotations={"testbed.stoker.dev/fail": "image-pull"})
    with History(lab.plane, lab.namespace) as history:
        lab.apply(broken)
        message = lab.until_verdict("Progressing", "False/RolloutStuck", seconds=150)
        assert "2 replicas of the old one stay" in message
        assert OTHER["image"] in message
        assert lab.verdict("Ready") == "True/Serving"
        (event,) = lab.until("the Event", lambda: lab.events("RolloutStuck"))
        assert event["type"] == "Warning"
        lab.apply(good)
        lab.until("the failed one gone", lambda: uids(lab.pods(live=False)) == old)
        lab.until_verdict("Progressing", "False/Complete")
    assert min(history.counts(serves)) == 2
    assert max(history.counts(stays)) == 3
    assert uids(lab.serving()) == old


def test_where_there_is_no_room_an_old_replica_makes_it(
    lab: Lab, engines: EngineFleet, own_node: Callable[[], Json]
):
    lab.start()
    accelerators = [own_node()]
    lab.apply(manifest(replicas=2, accelerators=accelerators))
    old = uids(lab.until_serving(2))
    with History(lab.plane, lab.namespace) as history:
        lab.apply(manifest(replicas=2, accelerators=accelerators, engine=OTHER))
        lab.until(
            "two new ones alone",
            lambda: len(lab.serving()) == 2 and not old & uids(lab.pods(live=False)),
            120,
        )
    assert min(history.counts(serves)) == 1
    assert max(history.counts(stays)) == 3


def test_a_change_during_a_rollout_starts_none_in_parallel(lab: Lab, engines: EngineFleet):
    lab.start()
    lab.apply(manifest(replicas=3))
    lab.until_serving(3)
    with History(lab.plane, lab.namespace) as history:
        for version in range(3):
            image = f"vllm/vllm-openai:v0.34.{version}"
            last = lab.apply(manifest(replicas=3, engine={"image": image}))["metadata"]["generation"]
            lab.until("a pod of it", lambda: image in images(lab))  # noqa: B023 - asked at once
        lab.until(
            "the last revision alone",
            lambda: (
                lab.status()["observedGeneration"] == last
                and len(revisions(lab)) == 1
                and lab.verdict("Progressing") == "False/Complete"
            ),
            120,
        )
    assert images(lab) == {image}
    assert min(history.counts(serves)) >= 2
    assert max(history.counts(stays)) == 4
