"""The tick without a control plane: the fleet that it decides for is the one that is meant."""

import pytest

from bench.controller import fleet
from bench.controller.steps import Fleet, Meter, bodies, ticks
from stoker.api.conditions import ConditionType, find
from stoker.api.v1alpha1 import ConditionStatus
from stoker.core import promql
from stoker.core.engines.vllm import METRICS

SIZE = 3


@pytest.fixture(scope="module")
def world():
    return Fleet(SIZE)


def test_every_model_has_its_pods_and_scales(world):
    assert len(world.pods) == SIZE * fleet.REPLICAS
    assert all(pod.routed for _, pod in world.store.all_pods())
    assert all(d.spec.scaling is not None for d in world.store.deployments.values())


def test_every_query_has_an_answer_about_every_pod(world):
    told = bodies(world.pods, world.now)
    assert told.keys() == promql.queries([METRICS]).keys()
    assert all(body.count(b'"metric"') == len(world.pods) for body in told.values())


def test_a_tick_decides_on_fresh_metrics_and_keeps_the_fleet(world):
    meter = Meter("decide")
    steps = ticks(world, meter)
    written = [next(steps) for _ in range(2)]
    assert written[0] == SIZE
    for deployment in world.store.deployments.values():
        active = find(deployment.status.conditions, ConditionType.SCALING_ACTIVE)
        assert active is not None
        assert active.status is ConditionStatus.TRUE, active.message
        assert deployment.status.desired_replicas == fleet.REPLICAS
    assert {step: len(seconds) for step, seconds in meter.seconds.items()} == {
        "read": 2,
        "gather": 2,
        "decide": 2,
        "take in": 2,
    }
