"""A wave of real traffic comes and goes, replicas with it, and every request is answered."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.engines import EngineFleet
from testbed.gateway import Gateway
from testbed.kubewatch import KubeReader
from testbed.prometheus import Prometheus
from testbed.trace import TraceRequest
from testbed.traffic import Traffic, TrafficOptions, play
from testbed.traffic_report import Outcome, Result
from tests.cluster.operator_history import History
from tests.cluster.operator_lab import Lab, draining, in_routing, is_ready, manifest, scaling

OUTPUT_TOKENS = 2000
"""Some sixteen seconds of an engine's time: far longer than routers are given to see that a replica left."""


def wave() -> list[TraceRequest]:
    """One request in four seconds for 16 s, nine for 32 s, one for 24 s: at most five replicas' worth."""
    rates = [1] * 4 + [9] * 8 + [1] * 6
    return [
        TraceRequest(4 * (number + part / rate), 200, OUTPUT_TOKENS)
        for number, rate in enumerate(rates)
        for part in range(rate)
    ]


def served(requests: list[TraceRequest], kubeconfig: Path, namespace: str) -> list[Result]:
    """Send requests as a gateway does; the results."""

    async def run() -> list[Result]:
        traffic = Traffic(requests, Gateway(), TrafficOptions("llm"))
        async with KubeReader(kubeconfig) as reader:
            return await play(traffic, reader, namespace=namespace, service="llm")

    return asyncio.run(run())


def test_replicas_follow_a_wave_and_every_request_is_answered(
    lab: Lab, engines: EngineFleet, prometheus: Prometheus
):
    lab.start(prometheus_url=prometheus.url)
    lab.apply(manifest(scaling=scaling(1, 6, requests=8)))
    lab.until_serving(1)
    requests = wave()
    with History(lab.plane, lab.namespace) as history, ThreadPoolExecutor(1) as pool:
        playing = pool.submit(served, requests, lab.plane.kubeconfig, lab.namespace)
        lab.until("the wave's replicas", lambda: len(lab.serving()) >= 3)
        results = playing.result()
        lab.until_serving(1)
    assert Counter(result.outcome for result in results) == {Outcome.SERVED: len(requests)}
    assert engines.stats()["totals"]["cut"] == 0
    assert len({result.pod for result in results}) >= 3, "the traffic reached the replicas that were added"
    assert max(history.counts(draining)) > 0, "replicas left while there was traffic"
    assert min(history.counts(lambda pod: in_routing(pod) and is_ready(pod))) >= 1
