"""The HPA: against the cases of Kubernetes' own tests, and in sequence."""

import pytest

from bench.replay.policies.hpa import HorizontalPodAutoscaler, MetricError, per_pod_replicas
from tests.bench.replay.scene import pod, view


def autoscaler(total, target=10.0, minimum=1, maximum=1000):
    return HorizontalPodAutoscaler(total, target, minimum, maximum)


@pytest.mark.parametrize(
    ("replicas", "total", "target", "expected"),
    [
        # kubernetes v1.37.1 replica_calculator_test.go, TestGetExternalPerPodMetricReplicas (milli-units)
        (3, 8600, 2150, 4),
        (5, 8600, 2867, 3),
        (3, 8600, 2900, 3),
        # beyond: the edges of the tolerance belong to it
        (10, 110.0, 10.0, 10),
        (10, 110.1, 10.0, 12),
        (10, 90.0, 10.0, 10),
        (10, 89.9, 10.0, 9),
        (0, 5.0, 10.0, 1),
    ],
)
def test_replicas_from_a_total(replicas, total, target, expected):
    assert per_pod_replicas(replicas, total, target) == expected


def test_a_step_is_bounded_as_in_kubernetes_own_case():
    """TestScalingWithRules, "scaleUp with default behavior": 10 to 50 goes to 20."""
    assert autoscaler(lambda _: 500.0).decide(view(0, [pod(n) for n in range(10)])) == 20


def test_eight_to_twenty_takes_two_syncs():
    """Measured with KEDA 2.21 and Kubernetes 1.37.1: 16 at the first sync, 20 at the next."""
    hpa = autoscaler(lambda _: 200.0)
    assert hpa.decide(view(0, [pod(n) for n in range(8)])) == 16
    assert hpa.decide(view(14, [pod(n) for n in range(16)])) == 16  # the period of 15 s is not over
    assert hpa.decide(view(15, [pod(n) for n in range(16)])) == 20


def test_four_pods_are_added_where_doubling_would_be_fewer():
    assert autoscaler(lambda _: 500.0).decide(view(0, [pod(0)])) == 5


def test_going_down_waits_for_the_highest_of_five_minutes():
    totals = {0.0: 80.0, 60.0: 30.0, 120.0: 20.0}
    hpa = autoscaler(lambda v: totals.get(v.now, 10.0))
    pods = [pod(n) for n in range(8)]
    assert [hpa.decide(view(at, pods)) for at in (0.0, 60.0, 120.0, 299.9, 300.0)] == [8, 8, 8, 8, 3]
    assert hpa.decide(view(360.0, pods[:3])) == 2


def test_loading_pods_are_not_asked_for_twice():
    hpa = autoscaler(lambda _: 60.0)
    assert hpa.decide(view(0, [pod(n) for n in range(3)])) == 6
    loading = [*(pod(n) for n in range(3)), *(pod(n, ready=False) for n in range(3, 6))]
    assert hpa.decide(view(15, loading)) == 6


def test_without_a_metric_nothing_moves_and_nothing_is_remembered():
    def metric(v):
        if 10 < v.now < 400:
            raise MetricError("down")
        return 10.0 if v.now >= 400 else 80.0

    hpa, pods = autoscaler(metric), [pod(n) for n in range(8)]
    assert hpa.decide(view(0, pods)) == 8
    assert hpa.decide(view(200, pods)) == 8
    assert hpa.decide(view(400, pods)) == 1  # the window is empty: down at once, as measured with KEDA


def test_bounds_act_at_once():
    assert autoscaler(lambda _: 1000.0, maximum=12).decide(view(0, [pod(n) for n in range(10)])) == 12
    assert (
        autoscaler(lambda _: 0.0, maximum=12).decide(view(0, [pod(n) for n in range(13)], replicas=13)) == 12
    )
    assert autoscaler(lambda _: 0.0, minimum=3).decide(view(0, [pod(0)], replicas=1)) == 3
