"""Stoker's own metrics.

Rules of this module:

* Names follow https://prometheus.io/docs/practices/naming/: a ``stoker_`` prefix, base units, ``_total``.
* Labels have few values that Stoker itself chooses. Only the fleet's gauges carry object names; they are read
  from the objects at each scrape, so that a deleted object leaves no series behind.
* A registry of its own: two operators in one process (as in tests) do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from stoker import __version__
from stoker.api.status import Freshness, ModelDeploymentStatus
from stoker.core.readings import Key

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; from one round trip on a local network to the time-out of a request."""
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds; a loop that is late by more than 0.1 s delays every request and probe."""


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One ModelDeployment as the fleet's gauges show it."""

    key: Key
    status: ModelDeploymentStatus
    draining: int = 0
    """Replicas taken out of routing whose requests are finishing."""


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the reference shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


class Metrics:
    """All instruments; the methods are the hooks of clients and controller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        """The instruments with a ``stoker_`` name, but for the fleet's gauges."""
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        info = Info("stoker_build", "The running version of Stoker.", registry=self.registry)
        info.info({"version": __version__})
        self._loop_instruments()
        self._io_instruments()

    def _loop_instruments(self) -> None:
        self._reconciles = self._counter(
            "stoker_reconciles", "Plans made for a ModelDeployment, by how they ended.", "result"
        )
        self._actions = self._counter("stoker_actions", "Actions that were carried out.", "action")
        self._decisions = self._counter(
            "stoker_scaling_decisions", "Changes of a replica count, by reason.", "reason"
        )
        self._ticks = self._histogram(
            "stoker_tick_duration_seconds",
            "Time of one tick, by phase: gather and decide for all ModelDeployments, act for each one.",
            "phase",
        )
        self._tick_at = self._gauge(
            "stoker_last_tick_timestamp_seconds", "When deciding last succeeded (Unix time)."
        )
        self._queue_depth = self._gauge("stoker_queue_depth", "ModelDeployments that wait to be looked at.")
        self._queue_age = self._gauge(
            "stoker_queue_oldest_age_seconds",
            "How long the first of them had waited when it was last looked.",
        )
        self._lag = self._histogram(
            "stoker_event_loop_lag_seconds",
            "How late the event loop was at a regular wake-up.",
            buckets=LAG_BUCKETS,
        )

    def _io_instruments(self) -> None:
        self._kube = self._counter(
            "stoker_kube_requests",
            "Requests to the API server; code is the HTTP status, timeout, or unreachable.",
            "verb",
            "resource",
            "code",
        )
        self._kube_seconds = self._histogram(
            "stoker_kube_request_duration_seconds", "Latency of the API server.", "verb", "resource"
        )
        self._queries = self._counter(
            "stoker_prometheus_queries",
            "Queries to Prometheus; the outcome is ok, partial (with warnings), failed, or unreachable.",
            "query",
            "outcome",
        )
        self._query_seconds = self._histogram(
            "stoker_prometheus_query_duration_seconds", "Latency of Prometheus.", "query"
        )
        self._events = self._counter(
            "stoker_events",
            "Events about objects: sent, aggregated, dropped (too many), or failed.",
            "outcome",
        )

    # --- Hooks -----------------------------------------------------------------------------------

    def kube_request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """One request to the API server (``clients.kube.OnRequest``)."""
        self._kube.labels(verb, resource, code).inc()
        self._kube_seconds.labels(verb, resource).observe(seconds)

    def prometheus_query(self, query: str, outcome: str, seconds: float) -> None:
        """One query to Prometheus (``clients.prometheus.OnQuery``)."""
        self._queries.labels(query, outcome).inc()
        self._query_seconds.labels(query).observe(seconds)

    def event(self, outcome: str) -> None:
        """One Event (``telemetry.events.OnEvent``)."""
        self._events.labels(outcome).inc()

    def tick(self, phase: str, seconds: float) -> None:
        """A phase of a tick took this long."""
        self._ticks.labels(phase).observe(seconds)

    def decided(self, at: float) -> None:
        """Deciding succeeded (Unix s)."""
        self._tick_at.set(at)

    def queue(self, length: int, oldest_seconds: float) -> None:
        """How much work waits, and for how long."""
        self._queue_depth.set(length)
        self._queue_age.set(oldest_seconds)

    def reconciled(self, result: str) -> None:
        """A plan came to its end."""
        self._reconciles.labels(result).inc()

    def action(self, name: str) -> None:
        """An action was carried out."""
        self._actions.labels(name).inc()

    def scaled(self, reason: str) -> None:
        """A replica count changed."""
        self._decisions.labels(reason).inc()

    def loop_lag(self, seconds: float) -> None:
        """The event loop woke up this much too late."""
        self._lag.observe(seconds)

    def fleet(self, rows: Callable[[], Iterable[FleetRow]]) -> None:
        """Show these ModelDeployments; ``rows`` is called at each scrape, in a thread of its own."""
        self.registry.register(_Fleet(rows))

    # --- Instruments -----------------------------------------------------------------------------

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        self.described.append(Described(f"{name}_total", "counter", labels, doc))
        return Counter(name, doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str) -> Gauge:
        self.described.append(Described(name, "gauge", (), doc))
        return Gauge(name, doc, registry=self.registry)

    def _histogram(
        self, name: str, doc: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS
    ) -> Histogram:
        self.described.append(Described(name, "histogram", labels, doc))
        return Histogram(name, doc, labels, buckets=buckets, registry=self.registry)


class _Fleet(Collector):
    """The fleet's gauges, read from the objects at each scrape."""

    def __init__(self, rows: Callable[[], Iterable[FleetRow]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        rows = list(self._rows())
        yield _replicas(
            "desired", "Replicas that the traffic asks for", rows, lambda r: r.status.desired_replicas
        )
        yield _replicas("granted", "Replicas that the GPUs allow", rows, lambda r: r.status.granted_replicas)
        yield _replicas("existing", "Replicas that exist", rows, lambda r: r.status.replicas)
        yield _replicas("ready", "Replicas that serve", rows, lambda r: r.status.ready_replicas)
        yield _replicas("draining", "Replicas whose requests are finishing", rows, lambda r: r.draining)
        yield _freshness(rows)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: or registering it would already read the objects."""
        return ()


_OBJECT_LABELS = ("namespace", "name")
_SIGNAL_LABELS = (*_OBJECT_LABELS, "signal")


def _replicas(
    what: str, doc: str, rows: Iterable[FleetRow], value: Callable[[FleetRow], int | None]
) -> GaugeMetricFamily:
    """A gauge of replicas. What is not known yet has no series: unknown is not zero."""
    family = GaugeMetricFamily(f"stoker_replicas_{what}", f"{doc}.", labels=_OBJECT_LABELS)
    for row in rows:
        count = value(row)
        if count is not None:
            family.add_metric((row.key.namespace, row.key.name), count)
    return family


def _freshness(rows: Iterable[FleetRow]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "stoker_signal_fresh",
        "Whether the last decision could act on this signal (1), or it was stale or missing (0).",
        labels=_SIGNAL_LABELS,
    )
    for row in rows:
        for demand in row.status.scaling.demand if row.status.scaling else ():
            labels = (row.key.namespace, row.key.name, demand.signal)
            family.add_metric(labels, float(demand.freshness is Freshness.FRESH))
    return family


# --- Reference -----------------------------------------------------------------------------------


def reference_markdown() -> str:
    """Return `docs/reference/metrics.md`."""
    rows = map(_row, (*_described_fleet(), *Metrics().described))
    return "\n".join(
        [
            "# Metrics of the operator",
            "",
            "The operator serves its own metrics at `/metrics`, on the port of `/healthz` and `/readyz`",
            "([settings](settings.md)). Times are in seconds.",
            "",
            "| Metric | Type | Labels | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
            "`stoker_build_info` has the running version as a label. Beside these there are the usual",
            "metrics of a Python process, `process_…` and `python_…`. The engines serve their own;",
            "[engines](engines.md) says which of them Stoker reads.",
            "",
        ]
    )


def _row(one: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in one.labels) or "–"
    return f"| `{one.name}` | {one.kind} | {labels} | {one.doc} |"


def _described_fleet() -> list[Described]:
    """The fleet's gauges; a gauge of replicas is absent while the number is not known."""
    return [
        Described(
            family.name,
            family.type,
            _SIGNAL_LABELS if family.name == "stoker_signal_fresh" else _OBJECT_LABELS,
            family.documentation,
        )
        for family in _Fleet(list).collect()
    ]
