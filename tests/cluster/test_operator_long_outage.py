"""Prometheus is away for six minutes, comes back with no data, and finds the engines again half by half.

With KEDA 2.21 and the HPA of Kubernetes 1.37, six of six fleets fell from 8 replicas to 1 or 2 within seconds
of such a return: empty answers, and sums over the first targets, were taken for the truth, and the
stabilisation window had run empty during the outage.
"""

from collections import defaultdict
from typing import Final

import pytest

from testbed.engine import MetricsFault
from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_history import History
from tests.cluster.operator_lab import Json, Lab, draining, manifest, names, scaling
from tests.cluster.operator_load import HeldRequests

OUTAGE_SECONDS: Final = 370.0
STAGE_SECONDS: Final = 20.0
"""Each stage of the return lasts three times the down window."""

REPLICAS: Final = 8
REQUESTS: Final = 5
"""Per replica. An engine makes 680 tokens a second of them at first, and 500 when their contexts are long."""


def section(targets: Json, **more: object) -> Json:
    """A scaling section with these targets."""
    return {**scaling(1, REPLICAS, **more), "targets": targets}


FLEETS: Final[dict[str, Json]] = {
    "in-flight": section({"concurrentRequests": REQUESTS}),
    "no-window": section({"concurrentRequests": REQUESTS}, down="0s"),
    "up-only": section({"concurrentRequests": REQUESTS}, onMissingMetrics="ScaleUpOnly"),
    "to-zero": {**section({"concurrentRequests": REQUESTS}), "minReplicas": 0},
    "tokens": section({"generatedTokensPerSecond": 400}),
    "utilization": section({"utilization": 0.8}),
}
"""Six fleets of eight, which is what their traffic needs, or as many as they may have."""


@pytest.fixture
def fleets(lab: Lab, engines: EngineFleet, load: HeldRequests, prometheus: Prometheus) -> list[Json]:
    """All six at work, for more than a rate window; their pods."""
    lab.start(prometheus_url=prometheus.url)
    for name in FLEETS:
        accelerators = [{"tokensPerSecond": 500}]
        lab.apply(manifest(name, replicas=REPLICAS, accelerators=accelerators))
    pods: list[Json] = []
    for name in FLEETS:
        mine = lab.until_serving(REPLICAS, name, seconds=120)
        load.spread(mine, REQUESTS * REPLICAS)
        pods += mine
    whole = "count(rate(vllm:generation_tokens_total[60s]) > 0 and vllm:num_requests_running offset 60s)"
    lab.until("a whole window of every pod", lambda: _value(prometheus, whole) == len(pods), 180)
    for pod in pods:
        lab.age(pod)
    for name, scaled in FLEETS.items():
        lab.patch(f"modeldeployments/{name}", {"spec": {"replicas": None, "scaling": scaled}})
        lab.until_verdict("ScalingActive", "True/MetricsFresh", name)
    assert desired(lab) == {REPLICAS}
    return pods


def desired(lab: Lab) -> set[int]:
    """What the fleets want; one number when all want the same."""
    return {lab.status(name)["desiredReplicas"] for name in FLEETS}


def _value(prometheus: Prometheus, query: str) -> float:
    return next((float(item["value"][1]) for item in prometheus.query(query)), 0.0)


def smallest(history: History) -> dict[str, int]:
    """The fewest replicas that each fleet ever had, those not counted that were taken leave of."""
    least: dict[str, int] = defaultdict(lambda: REPLICAS)
    for pods in history.steps():
        counts = dict.fromkeys(FLEETS, 0)
        for pod in pods.values():
            leaving = draining(pod) or "deletionTimestamp" in pod["metadata"]
            counts[pod["metadata"]["labels"]["stoker.dev/model-deployment"]] += not leaving
        for name, count in counts.items():
            least[name] = min(least[name], count)
    return dict(least)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_fleet_falls_when_prometheus_comes_back(
    lab: Lab, engines: EngineFleet, load: HeldRequests, prometheus: Prometheus, fleets: list[Json]
):
    keys = [f"{lab.namespace}/{name}" for name in names(fleets)]

    def all_stay(seconds: float) -> None:
        for _ in lab.watch(seconds, pause=1.0):
            assert desired(lab) == {REPLICAS}, lab.story()

    with History(lab.plane, lab.namespace) as history:
        prometheus.kill()
        lab.until_verdict("ScalingActive", "False/PrometheusUnreachable", "tokens")
        all_stay(OUTAGE_SECONDS)
        engines.break_metrics(MetricsFault.MISSING)
        prometheus.restart(empty=True)
        lab.until_verdict("ScalingActive", "False/MetricsMissing", "tokens")
        all_stay(STAGE_SECONDS)
        engines.break_metrics(MetricsFault.NONE, *keys[::2])
        all_stay(STAGE_SECONDS)
        engines.break_metrics(MetricsFault.NONE)
        for name in FLEETS:
            lab.until_verdict("ScalingActive", "True/MetricsFresh", name, seconds=150)
        all_stay(STAGE_SECONDS)
    assert smallest(history) == dict.fromkeys(FLEETS, REPLICAS)

    load.release()
    for name, scaled in FLEETS.items():
        lab.until(
            f"{name} scales again",
            lambda: lab.status(name)["desiredReplicas"] <= max(1, scaled["minReplicas"]),  # noqa: B023
            150,
        )
