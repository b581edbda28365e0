"""The measurements, one function each; what they measure is said in the package's docstring."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.controller import bulk, fleet
from bench.controller.exposition import Exposition, prometheus_configuration
from bench.controller.results import Figures
from bench.controller.scrape import Scrape
from bench.controller.usage import Usage, load_average
from testbed.access import Access, PlaneError
from testbed.addresses import free_ports
from testbed.operator_process import Operator
from testbed.prometheus import Prometheus

Say = Callable[[str], None]

SECONDS_PER_MODEL = 1.0
"""Patience: many times what a ModelDeployment takes, on a busy machine too."""
LEAST_PATIENCE = 120.0
SETTLED_SECONDS = 10.0
POLL_SECONDS = 0.1
LARGE = 5_000
"""ModelDeployments from which on one repetition has to do, and a round of queries takes longer than the
operator waits unless it is told to: Prometheus has a part of two cores."""
PROMETHEUS_TIMEOUT_SECONDS = 30.0
"""For large fleets; the operator's default is 8 s."""
RATE_WINDOW_SECONDS = 60.0
"""Of vLLM's counters: before it is full, the operator takes no rate for whole."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One size on one control plane.

    Attributes:
        plane: fresh, with nodes, CRD and namespaces.
        kubeconfig: the operator's.
        size: ModelDeployments.
        seconds: how long `quiet` and `tick` look.
        say: is told what is going on.
    """

    plane: Access
    kubeconfig: Path
    size: int
    seconds: float
    say: Say

    @property
    def patience(self) -> float:
        """Seconds after which waiting for the whole fleet is given up."""
        return max(LEAST_PATIENCE, self.size * SECONDS_PER_MODEL)

    def operator(self, prometheus_url: str = "") -> Operator:
        """Return an operator that was just started; its settings are the defaults but for `LARGE` fleets."""
        environment = {
            "STOKER_KUBECONFIG": str(self.kubeconfig),
            "STOKER_PROMETHEUS_URL": prometheus_url,
            "STOKER_LISTEN_ADDRESS": "127.0.0.1",
        }
        if self.size >= LARGE:
            environment["STOKER_PROMETHEUS_TIMEOUT_SECONDS"] = str(PROMETHEUS_TIMEOUT_SECONDS)
        operator = Operator(self.plane.directory, environment)
        operator.restart(wait=False)
        return operator


def create(bench: Bench) -> Figures:
    """From the operator's start, with nothing but the objects there, until all are Ready."""
    with fleet.Readiness(bench.plane, fleet.ready) as readiness:
        started = time.monotonic()
        with bench.operator() as operator:
            readiness.wait(bench.size, bench.patience, _told(bench, "Ready"))
            usage = Usage.of(operator.pid)
            scrape = Scrape.parse(operator.metrics())
    return {
        **_used(usage, started),
        "cpu_ms_per_model": round(usage.cpu_seconds * 1000 / bench.size, 3),
        "api_writes": sum(scrape.writes.values()),
        "api_writes_by_verb": scrape.writes,
        "api_writes_per_model": round(sum(scrape.writes.values()) / bench.size, 2),
        "reconciles": scrape.total("stoker_reconciles_total"),
    }


def restart(bench: Bench, operator: Operator, started: float) -> Figures:
    """From the operator's start, with everything there, until it has looked at all and nothing waits."""
    deadline = started + bench.patience
    while True:
        usage = Usage.of(operator.pid)
        if operator.healthy("/readyz"):
            scrape = Scrape.parse(operator.metrics())
            seen = scrape.total("stoker_reconciles_total")
            bench.say(f"restart: {seen:.0f} looked at")
            if seen >= bench.size and not scrape.total("stoker_queue_depth"):
                break
        if time.monotonic() > deadline:
            raise PlaneError(f"the operator had not looked at {bench.size} ModelDeployments in time")
        time.sleep(POLL_SECONDS)
    return {
        **_used(usage, started),
        "cpu_ms_per_model": round(usage.cpu_seconds * 1000 / bench.size, 3),
        "decide_seconds": round(scrape.total("stoker_tick_duration_seconds_sum", phase="decide"), 3),
        "api_writes": sum(scrape.writes.values()),
    }


def settle(bench: Bench, operator: Operator) -> None:
    """Wait until the operator has written nothing for a while: Events and messages trail behind.

    Raises:
        PlaneError: it goes on writing.
    """
    deadline = time.monotonic() + bench.patience
    before = Scrape.parse(operator.metrics())
    while True:
        time.sleep(SETTLED_SECONDS)
        now = Scrape.parse(operator.metrics())
        writes = now.since(before).writes
        if not writes:
            return
        bench.say(f"settling: {writes}")
        if time.monotonic() > deadline:
            raise PlaneError(f"the operator does not come to rest: {writes} in {SETTLED_SECONDS:.0f} s")
        before = now


def quiet(bench: Bench, operator: Operator) -> Figures:
    """A while in which nothing happens: by the operator's count and by the objects' own versions."""
    versions = _versions(bench.plane)
    before, used_before = Scrape.parse(operator.metrics()), Usage.of(operator.pid)
    bench.say(f"quiet: {bench.seconds:.0f} s")
    time.sleep(bench.seconds)
    usage = Usage.of(operator.pid)
    changed = Scrape.parse(operator.metrics()).since(before)
    seconds = usage.at - used_before.at
    return {
        "seconds": round(seconds, 1),
        "api_writes": sum(changed.writes.values()),
        "objects_changed": len(_versions(bench.plane) ^ versions),
        "cpu_ms_per_second": round((usage.cpu_seconds - used_before.cpu_seconds) * 1000 / seconds, 2),
        "resident_mib": round(usage.resident_mib, 1),
        "load_average": load_average(),
    }


def tick(bench: Bench, operator: Operator) -> Figures:
    """What one round of asking Prometheus and deciding for the whole fleet takes."""
    before, used_before = Scrape.parse(operator.metrics()), Usage.of(operator.pid)
    bench.say(f"tick: {bench.seconds:.0f} s")
    time.sleep(bench.seconds)
    usage = Usage.of(operator.pid)
    changed = Scrape.parse(operator.metrics()).since(before)
    name = "stoker_tick_duration_seconds"
    rounds = changed.total(f"{name}_count", phase="gather")
    # A round's own status writes come back as events and small ticks: they are part of its price.
    decide = changed.total(f"{name}_sum", phase="decide") / rounds
    gather = changed.mean(name, phase="gather")
    queries = changed.total("stoker_prometheus_queries_total")
    ok = changed.total("stoker_prometheus_queries_total", outcome="ok")
    return {
        "rounds": rounds,
        "gather_seconds": round(gather, 4),
        "decide_seconds": round(decide, 4),
        "tick_seconds": round(gather + decide, 4),
        "act_seconds_per_plan": round(changed.mean(name, phase="act"), 4),
        "cpu_seconds_per_round": round((usage.cpu_seconds - used_before.cpu_seconds) / rounds, 4),
        "queries_per_round": round(queries / rounds, 2),
        "queries_failed": queries - ok,
        "query_seconds": round(changed.mean("stoker_prometheus_query_duration_seconds"), 4),
        "status_writes_per_second": round(sum(changed.writes.values()) / (usage.at - used_before.at), 2),
        "peak_mib": round(usage.peak_mib, 1),
        "load_average": load_average(),
    }


@contextmanager
def scaled(bench: Bench) -> Iterator[tuple[Exposition, Prometheus]]:
    """Let the fleet scale on what a real Prometheus scrapes from a simulated exposition."""
    bench.say("switching to scaling")
    bulk.send_all(bench.plane, fleet.switches_to_scaling(bench.size), lambda: None)
    pods = [
        (namespace, name) for namespace, name, _ in bulk.names(bench.plane, "/api/v1/pods", fleet.MANAGED)
    ]
    with Exposition(pods) as exposition, _prometheus(bench.plane.directory, exposition) as prometheus:
        bench.say("filling the rate window")
        time.sleep(RATE_WINDOW_SECONDS + 2 * exposition.scrape_seconds)
        yield exposition, prometheus


@contextmanager
def scaling_operator(bench: Bench, url: str) -> Iterator[Operator]:
    """Run an operator until it has fresh metrics of the whole fleet, and then for the `with` block."""
    with (
        fleet.Readiness(bench.plane, fleet.scaling_on_metrics) as readiness,
        bench.operator(url) as operator,
    ):
        readiness.wait(bench.size, bench.patience, _told(bench, "scaling"))
        yield operator


def _prometheus(directory: Path, exposition: Exposition) -> Prometheus:
    where = directory / "prometheus"
    where.mkdir(exist_ok=True)
    (where / "prometheus.yaml").write_text(yaml.safe_dump(prometheus_configuration(exposition)))
    prometheus = Prometheus(where.resolve(), free_ports(1)[0], ())
    prometheus.restart()
    return prometheus


def _used(usage: Usage, started: float) -> Figures:
    return {
        "wall_seconds": round(usage.at - started, 2),
        "cpu_seconds": round(usage.cpu_seconds, 2),
        "resident_mib": round(usage.resident_mib, 1),
        "peak_mib": round(usage.peak_mib, 1),
        "load_average": load_average(),
    }


def _versions(plane: Access) -> set[tuple[str, str, str]]:
    """Every object that the operator could write to, with its version."""
    return {
        *bulk.names(plane, fleet.COLLECTION),
        *bulk.names(plane, "/api/v1/pods", fleet.MANAGED),
        *bulk.names(plane, "/api/v1/services", fleet.MANAGED),
    }


def _told(bench: Bench, what: str) -> Callable[[int], None]:
    return lambda count: bench.say(f"{count} of {bench.size} {what}")
