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


class Fleet:
    """Four replicas, and ten requests for each, which is what they are to carry."""

    def __init__(self, lab: Lab, engines: EngineFleet, load: HeldRequests, url: str) -> None:
        self._lab = lab
        self._engines = engines
        self._load = load
        self._url = url
        self.pods: list[Json] = []

    def start(self, **more: object) -> list[Json]:
        """Let them serve, with the requests in them and under a scaling section; their pods."""
        lab = self._lab
        lab.start(prometheus_url=self._url)
        lab.apply(manifest(replicas=4))
        self.pods = lab.until_serving(4)
        for pod in self.pods:
            lab.age(pod)
        self.fill()
        lab.patch("modeldeployments/llm", {"spec": {"replicas": None, "scaling": scaling(1, 8, **more)}})
        lab.until_verdict("ScalingActive", "True/MetricsFresh")
        assert not lab.events("PrometheusUnreachable"), "that nobody had asked it yet is no failure"
        return self.pods

    def fill(self) -> None:
        """Send the requests, and wait until the engines have taken them: until then a scrape sees fewer."""
        self._load.spread(self.pods, 40)
        self._lab.until("all requests in the engines", lambda: self._in_flight() == 40)

    def _in_flight(self) -> int:
        return sum(pod["running"] + pod["waiting"] for pod in self._engines.stats()["pods"].values())


@pytest.fixture
def fleet(lab: Lab, engines: EngineFleet, load: HeldRequests, prometheus: Prometheus) -> Fleet:
    """The fleet whose metrics fail."""
    return Fleet(lab, engines, load, prometheus.url)


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
    lab: Lab, load: HeldRequests, fleet: Fleet, faults: Faults, fault: str
):
    verdict, says = FAULTS[fault]
    pods = fleet.start()
    during: Callable[[], AbstractContextManager[None]] = getattr(faults, fault)
    with History(lab.plane, lab.namespace) as history:
        with during():
            lab.until_verdict("ScalingActive", verdict)
            lab.until(f"{says} in words", lambda: says in lab.condition("ScalingActive")["message"])
            assert lab.verdict("Ready") == "True/Serving", "metrics never touch Ready"
            load.release()
            lab.stays("four replicas", lambda: lab.status()["desiredReplicas"] == 4, FAULT_SECONDS)
            fleet.fill()
        lab.until_verdict("ScalingActive", "True/MetricsFresh")
        assert min(history.counts(untouched)) == 4

        load.put(pods[0], 15)
        lab.until_serving(6)
        assert min(history.counts(untouched)) == 4
    load.release()
    lab.until_serving(1)


def test_signals_that_are_left_may_add_where_the_spec_says_so(
    lab: Lab, load: HeldRequests, fleet: Fleet, faults: Faults
):
    pods = fleet.start(onMissingMetrics="ScaleUpOnly")
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
