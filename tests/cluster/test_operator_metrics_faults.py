"""Prometheus fails in every way it can, and no replica falls for it.

Each fault lasts for longer than the down window, twice over, and the traffic really ends while it does: an
operator that took silence for zero would have shrunk the fleet. Afterwards scaling works in both directions.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import pytest

from testbed.engine import MetricsFault
from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_history import History
from tests.cluster.operator_lab import Json, Lab, draining, manifest, scaling
from tests.cluster.operator_load import HeldRequests

FAULT_SECONDS: Final = 14.0
"""More than twice the down window of 6 s."""


class Faults:
    """What can go wrong between engines and operator; each is a context manager that ends it."""

    def __init__(self, lab: Lab, engines: EngineFleet, prometheus: Prometheus) -> None:
        self._lab = lab
        self._engines = engines
        self._prometheus = prometheus

    @contextmanager
    def stopped(self):
        """Prometheus is gone: connections are refused."""
        self._prometheus.kill()
        yield
        self._prometheus.restart()

    @contextmanager
    def hung(self):
        """Prometheus accepts connections and answers nothing."""
        self._prometheus.pause()
        yield
        self._prometheus.resume()

    @contextmanager
    def blank(self):
        """Prometheus has lost its data and cannot scrape: every answer is empty."""
        with self._metrics(MetricsFault.MISSING, 1.0):
            self._prometheus.restart(empty=True)
            yield

    def error(self):
        """Every engine answers its scrapes with an error."""
        return self._metrics(MetricsFault.ERROR, 1.0)

    def missing(self):
        """The engines' series are absent; the targets are up."""
        return self._metrics(MetricsFault.MISSING, 1.0)

    def half_missing(self):
        """Half of the engines have no series: sums are half of the truth."""
        return self._metrics(MetricsFault.MISSING, 0.5)

    def nan(self):
        """Every engine says NaN."""
        return self._metrics(MetricsFault.NAN, 1.0)

    def half_nan(self):
        """Half of the engines say NaN."""
        return self._metrics(MetricsFault.NAN, 0.5)

    @contextmanager
    def _metrics(self, fault: MetricsFault, share: float):
        pods = self._lab.serving()
        chosen = [f"{self._lab.namespace}/{p['metadata']['name']}" for p in pods[: round(len(pods) * share)]]
        self._engines.break_metrics(fault, *chosen)
        yield
        self._engines.break_metrics(MetricsFault.NONE, *chosen)


@pytest.fixture
def faults(lab: Lab, engines: EngineFleet, prometheus: Prometheus) -> Faults:
    """Faults of this test's metrics."""
    return Faults(lab, engines, prometheus)


def loaded_fleet(lab: Lab, load: HeldRequests, url: str, **more: object) -> list[Json]:
    """Four serving replicas with ten requests each, which is what they are to carry."""
    lab.start(prometheus_url=url)
    lab.apply(manifest(replicas=4))
    pods = lab.until_serving(4)
    for pod in pods:
        lab.age(pod)
    load.spread(pods, 40)
    lab.patch("modeldeployments/llm", {"spec": {"replicas": None, "scaling": scaling(1, 8, **more)}})
    lab.until_verdict("ScalingActive", "True/MetricsFresh")
    assert not lab.events("PrometheusUnreachable"), "that nobody had asked it yet is no failure"
    return pods


def untouched(pod: Json) -> bool:
    """Whether nobody has taken leave of it."""
    return not draining(pod) and "deletionTimestamp" not in pod["metadata"]


FAULTS: Final[dict[str, tuple[str, str]]] = {
    "stopped": ("False/PrometheusUnreachable", "refused"),
    "hung": ("False/PrometheusUnreachable", "no answer"),
    "blank": ("False/MetricsMissing", "0 of 4"),
    "error": ("False/MetricsMissing", "0 of 4"),
    "missing": ("False/MetricsMissing", "0 of 4"),
    "half_missing": ("False/MetricsMissing", "2 of 4"),
    "nan": ("False/MetricsMissing", "0 of 4"),
    "half_nan": ("False/MetricsMissing", "2 of 4"),
}
"""By fault: the condition ScalingActive, and what its message says."""


@pytest.mark.parametrize("fault", FAULTS)
def test_no_replica_falls_while_metrics_fail(
    lab: Lab, load: HeldRequests, prometheus: Prometheus, faults: Faults, fault: str
):
    verdict, says = FAULTS[fault]
    pods = loaded_fleet(lab, load, prometheus.url)
    during: Callable[[], AbstractContextManager[None]] = getattr(faults, fault)
    with History(lab.plane, lab.namespace) as history:
        with during():
            lab.until_verdict("ScalingActive", verdict)
            lab.until(f"{says} in words", lambda: says in lab.condition("ScalingActive")["message"])
            assert lab.verdict("Ready") == "True/Serving", "metrics never touch Ready"
            load.release()
            lab.stays("four replicas", lambda: lab.status()["desiredReplicas"] == 4, FAULT_SECONDS)
            load.spread(pods, 40)
        lab.until_verdict("ScalingActive", "True/MetricsFresh")
        assert min(history.counts(untouched)) == 4

        load.put(pods[0], 15)
        lab.until_serving(6)
        assert min(history.counts(untouched)) == 4
    load.release()
    lab.until_serving(1)


def test_signals_that_are_left_may_add_where_the_spec_says_so(
    lab: Lab, load: HeldRequests, prometheus: Prometheus, faults: Faults
):
    pods = loaded_fleet(lab, load, prometheus.url, onMissingMetrics="ScaleUpOnly")
    with faults.half_missing():
        lab.until_verdict("ScalingActive", "False/MetricsMissing")
        load.put(pods[3], 45)  # the other half now reports 65: 7 replicas at least
        lab.until("more replicas", lambda: lab.status()["desiredReplicas"] == 7)
        load.release()
        lab.stays("seven replicas", lambda: lab.status()["desiredReplicas"] == 7, FAULT_SECONDS)


def test_without_a_prometheus_the_number_is_held_and_the_setting_named(lab: Lab, load: HeldRequests):
    lab.start(prometheus_url="")
    lab.apply(manifest(replicas=3))
    lab.until_serving(3)
    section = scaling(1, 8, down="1s")
    lab.patch("modeldeployments/llm", {"spec": {"replicas": None, "scaling": section}})
    lab.until_verdict("ScalingActive", "False/PrometheusUnreachable")
    lab.until("the setting", lambda: "STOKER_PROMETHEUS_URL" in lab.condition("ScalingActive")["message"])
    lab.stays("three replicas", lambda: len(lab.serving()) == 3, 4)
