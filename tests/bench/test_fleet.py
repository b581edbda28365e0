import pytest

from bench.controller import fleet
from stoker.core.parse import deployment_from


def test_a_fleet_is_spread_over_its_namespaces():
    keys = fleet.keys(25)
    assert len(set(keys)) == 25
    assert {namespace for namespace, _ in keys} == set(fleet.namespaces())
    paths = {request.path for request in fleet.creations(25)}
    assert len(paths) == len(fleet.namespaces())


def test_its_objects_are_ones_that_the_operator_can_act_on():
    for patch in ({}, {"replicas": None, "scaling": fleet.SCALING}):
        obj = fleet.manifest("team-0", "model-00000")
        obj["metadata"] |= {"uid": "u", "generation": 1}
        obj["spec"] = {k: v for k, v in (obj["spec"] | patch).items() if v is not None}
        record = deployment_from(obj)
        assert record.spec is not None
        assert not record.errors


def status(**changes):
    conditions = [{"type": "Ready", "status": "True"}, {"type": "ScalingActive", "status": "False"}]
    known = {"observedGeneration": 2, "readyReplicas": fleet.REPLICAS, "conditions": conditions}
    return {"metadata": {"generation": 2}, "status": known | changes}


@pytest.mark.parametrize(
    ("obj", "ready"),
    [
        (status(), True),
        (status(observedGeneration=1), False),
        (status(readyReplicas=fleet.REPLICAS - 1), False),
        (status(conditions=[{"type": "Ready", "status": "Unknown"}]), False),
        ({"metadata": {"generation": 1}}, False),
    ],
)
def test_ready_is_all_replicas_of_this_very_spec(obj, ready):
    assert fleet.ready(obj) is ready


def test_scaling_on_metrics():
    assert not fleet.scaling_on_metrics(status())
    assert fleet.scaling_on_metrics(status(conditions=[{"type": "ScalingActive", "status": "True"}]))
    assert not fleet.scaling_on_metrics({"metadata": {"generation": 1}})
