"""KPA and APA, rule by rule, and with the cases of their own tests."""

from dataclasses import dataclass

import pytest

from bench.replay.policies.aibrix import ApaLike, apa
from bench.replay.policies.knative import PANIC_SECONDS, KnativePodAutoscaler
from tests.bench.replay.scene import pod, view


@dataclass
class Measured(KnativePodAutoscaler):
    """A KPA that is told its averages (stable, panic), as knative's own tests do."""

    averages: tuple[float, float] = (0.0, 0.0)

    def _average(self, now, seconds):
        return self.averages[seconds == PANIC_SECONDS]

    def at(self, now, ready, stable, panic):
        self.averages = (stable, panic)
        self._started = True  # without replicas at its creation it does not begin in panic
        return self.decide(view(now, [pod(n) for n in range(ready)]))


def test_kpa_leaves_panic_after_a_slow_increase():
    """knative/serving, autoscaler_test.go, TestAutoscalerUnpanicAfterSlowIncrease."""
    one = Measured(target=1.0, minimum=0, maximum=1000)
    assert one.at(0, 10, 11, 25) == 25
    assert one.at(30, 40, 30, 41) == 41
    assert one._panic_since == 0
    assert one.at(62, 55, 50, 56) == 50
    assert one._panic_since is None


def test_kpa_extends_its_panic():
    """TestAutoscalerExtendPanicWindow."""
    one = Measured(target=1.0, minimum=0, maximum=1000)
    assert one.at(0, 10, 11, 25) == 25
    assert one.at(30, 40, 30, 80) == 80
    assert one._panic_since == 30


def test_kpa_follows_in_stable_mode():
    """TestAutoscalerStableModeIncreaseWithConcurrencyDefault, TestAutoscalerStableModeDecrease."""
    up = Measured(target=10.0, minimum=0, maximum=1000)
    assert [up.at(0, 1, 50, 10), up.at(0, 1, 100, 10)] == [5, 10]
    down = Measured(target=10.0, minimum=0, maximum=1000)
    assert [down.at(0, 8, 100, 100), down.at(0, 8, 50, 50)] == [10, 5]


def test_kpa_delays_going_down_to_the_second():
    """TestAutoscalerScaleDownDelay, "simple" and "gradual", and TestAutoscalerScaleDownDelayZero."""
    one = Measured(target=10.0, minimum=0, maximum=1000, delay=300.0, panic_threshold=100.0)
    assert [one.at(2, 0, 40, 40), one.at(300, 0, 0, 0), one.at(302, 0, 0, 0)] == [4, 4, 0]
    gradual = [(540, 40), (600, 30), (660, 0), (840, 0), (900, 0)]
    assert [one.at(at, 0, n, n) for at, n in gradual] == [4, 4, 4, 3, 0]
    undelayed = Measured(target=10.0, minimum=0, maximum=1000, panic_threshold=100.0)
    assert [undelayed.at(0.0, 0, 40, 40), undelayed.at(0.5, 0, 20, 20)] == [4, 2]


def kpa(**options):
    return KnativePodAutoscaler(**{"target": 10.0, "minimum": 1, "maximum": 1000} | options)


def run(policy, seconds, pods):
    return [policy.decide(view(at, pods)) for at in range(*seconds, 2)][-1]


def test_kpa_follows_the_average_of_a_minute():
    assert run(kpa(), (0, 200), [pod(0, in_flight=15), pod(1, in_flight=10)]) == 3


def test_kpa_never_halves_faster_than_its_rate():
    policy, idle = kpa(), [pod(n) for n in range(8)]
    assert run(policy, (0, 62), idle) == 8  # it begins in panic, to keep what is there
    assert run(policy, (62, 66), idle) == 4
    assert run(policy, (66, 68), idle[:4]) == 2


def test_kpa_panics_at_twice_the_ready_pods_and_does_not_go_down_for_a_minute():
    policy = kpa()
    assert run(policy, (0, 60), [pod(0, in_flight=8)]) == 1
    assert run(policy, (60, 68), [pod(0, in_flight=100)]) == 10
    quiet = [pod(0, in_flight=5)]
    assert run(policy, (68, 120), quiet) == 10
    assert run(policy, (120, 200), quiet) == 1


def test_kpa_panic_looks_at_ready_pods_alone():
    """While pods load, a demand that they will carry is still a panic."""
    policy = kpa()
    loading = [pod(0, in_flight=25), *(pod(n, ready=False) for n in range(1, 4))]
    assert run(policy, (0, 100), loading) == 3
    assert policy._panic_since == 98


def test_kpa_delays_going_down_by_the_highest_of_its_window():
    policy, busy, quiet = kpa(delay=300.0), [pod(0, in_flight=45)], [pod(0, in_flight=5)]
    assert run(policy, (0, 60), busy) == 5
    assert run(policy, (60, 400), quiet) == 5
    assert run(policy, (400, 500), quiet) == 1


@pytest.mark.parametrize(
    ("replicas", "ratio", "expected"),
    [
        # vllm-project/aibrix, pkg/controller/podautoscaler/algorithm/apa_test.go, rates of 2
        (2, 45 / 30, 3),
        (2, 35 / 30, 3),
        (2, 90 / 30, 4),
        (6, 20 / 30, 4),
        (6, 18 / 30, 4),
        (6, 10 / 30, 3),
        (2, 33 / 30, 2),
        (2, 27 / 30, 2),
        # beyond
        (4, 1.0, 4),
        (4, 1.1, 4),
        (4, 1.2, 5),
        (4, 9.0, 8),
        (4, 0.9, 4),
        (4, 0.8, 4),
        (4, 0.7, 3),
        (5, 0.1, 2),
    ],
)
def test_apa_multiplies_within_tolerance_and_rates(replicas, ratio, expected):
    assert apa(replicas, ratio) == expected


def test_apa_multiplies_again_while_pods_load():
    policy = ApaLike(10.0, 1, 1000, corrected=True)
    one = pod(0, in_flight=30)
    assert policy.decide(view(0, [one])) == 2
    assert policy.decide(view(10, [one, pod(1, ready=False)])) == 4


def test_apa_cool_down_takes_the_lowest_as_coded_and_the_highest_when_corrected():
    def course(corrected):
        policy = ApaLike(10.0, 1, 1000, corrected)
        pods = [pod(n) for n in range(4)]
        decided = []
        for at, load in ((0, 10), (200, 6), (250, 13), (390, 1)):
            for one in pods:
                one.in_flight = load
            decided.append(policy.decide(view(at, pods)))
        return decided

    assert course(corrected=False) == [4, 3, 4, 3]
    assert course(corrected=True) == [4, 4, 4, 4]
