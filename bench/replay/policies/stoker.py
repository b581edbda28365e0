"""Stoker: the operator's own decisions, made by its own code in virtual time.

Rules of this module:

* Nothing is decided here. What Prometheus would answer to those queries that the operator's own rounds ask
  goes through `stoker.core.signals.gathered`, the pods become the operator's records, and
  `stoker.core.reconcile.want` decides, with the settings that an installation has by default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.replay.fleet import SimulatedPod
from bench.replay.prometheus import Prometheus, Unavailable
from bench.replay.view import View
from stoker.controller.rounds import Rounds
from stoker.core.history import History
from stoker.core.observed import ContainerStatus, Memory, ModelDeployment, Pod, PodCondition, Snapshot
from stoker.core.parse import deployment_from
from stoker.core.promql import COUNTERS, Freshness, edge, series_id
from stoker.core.readings import Key, MetricNames, Metrics, Signal
from stoker.core.reconcile import Want, want
from stoker.core.signals import Answer, Failed, Sample, Samples, gathered

INTERVAL = 5.0
"""``STOKER_SCALING_INTERVAL_SECONDS``, default."""

STALE_AFTER = 60.0
"""``STOKER_STALE_AFTER_SECONDS``, default."""

NAMESPACE: Final = "replay"
_UID: Final = "9f6e2f2e-5d0c-4a4e-9d43-000000000000"

_COLUMNS: Final = {
    Signal.GENERATED_TOKENS: "generation_tokens_total",
    Signal.PROMPT_TOKENS: "prompt_tokens_total",
    Signal.REQUESTS: "request_success_total",
    Signal.RUNNING: "num_requests_running",
    Signal.WAITING: "num_requests_waiting",
    Signal.CACHE_USAGE: "kv_cache_usage_perc",
    Signal.INTER_TOKEN_LATENCY: "inter_token_latency_seconds",
}


def deployment(
    minimum: int,
    maximum: int,
    *,
    tokens_per_second: int | None = None,
    targets: dict[str, Any] | None = None,
    windows: dict[str, str] | None = None,
    forecast: bool = True,
) -> ModelDeployment:
    """A ModelDeployment as a user writes it; without options it says the bounds and nothing else.

    Raises:
        ValueError: the spec is refused; the message says why.
    """
    scaling: dict[str, Any] = {"minReplicas": minimum, "maxReplicas": maximum}
    scaling |= {"targets": targets} if targets else {}
    scaling |= {"windows": windows} if windows else {}
    scaling |= {} if forecast else {"forecast": "Disabled"}
    accelerator: dict[str, Any] = {"count": 2}
    if tokens_per_second is not None:
        accelerator["tokensPerSecond"] = tokens_per_second
    return deployment_of(
        {"model": {"uri": "hf://Qwen/Qwen3-32B"}, "scaling": scaling, "accelerators": [accelerator]}
    )


def deployment_of(spec: Mapping[str, Any]) -> ModelDeployment:
    """A ModelDeployment with this spec, as it is written in YAML.

    Raises:
        ValueError: the spec is refused; the message says why.
    """
    metadata = {"namespace": NAMESPACE, "name": "fleet", "uid": _UID, "generation": 1}
    record = deployment_from({"metadata": metadata, "spec": spec})
    if record.errors or record.spec is None or record.metrics is None:
        raise ValueError("; ".join(f"{error.path}: {error.message}" for error in record.errors))
    return record


@dataclass(slots=True)
class Stoker:
    """The operator, as far as it decides the replica count of one ModelDeployment.

    Attributes:
        deployment: from `deployment`; its status holds the last decision.
        history: the demand of the days before the run, as Prometheus would have it.
        last: what was decided last, for whoever wants to know why.
    """

    deployment: ModelDeployment
    interval: float = INTERVAL
    history: History | None = None
    last: Want | None = None
    _memory: Memory = field(default_factory=Memory)
    _pods: dict[str, Pod] = field(default_factory=dict)
    _now: float = 0.0
    _rounds: Rounds = field(init=False)

    def __post_init__(self) -> None:
        self._rounds = Rounds(lambda: self._now)

    def decide(self, view: View) -> int:
        """One tick of the operator."""
        names, spec = self.deployment.metrics, self.deployment.spec
        assert names is not None and spec is not None  # noqa: S101, PT018 - `deployment` has made sure
        self._now = view.now
        pods = tuple(self._record(pod) for pod in view.pods)
        known = self.deployment.status.model_copy(update={"desired_replicas": view.replicas})
        current = replace(self.deployment, status=known)
        snapshot = Snapshot(
            now=view.now,
            deployments={current.key: current},
            pods={current.key: pods},
            metrics=asked(view.prometheus, pods, names, self._rounds, view.now),
            memory={current.key: self._memory},
            history={current.key: self.history} if self.history is not None else {},
        )
        self.last = want(snapshot, current, spec)
        self._memory = self.last.memory
        return self.last.desired

    def _record(self, pod: SimulatedPod) -> Pod:
        record = self._pods.get(pod.name)
        if record is None or (record.ready, record.drain_started_at) != (pod.ready, pod.drain_since):
            record = self._pods[pod.name] = _pod(pod, self.deployment)
        return record


def _pod(pod: SimulatedPod, deployment: ModelDeployment) -> Pod:
    """The operator's record of a pod."""
    assert deployment.spec is not None  # noqa: S101 - `deployment_of` has made sure
    ready = PodCondition("Ready", "True" if pod.ready else "False", since=pod.ready_at if pod.ready else None)
    return Pod(
        key=Key(NAMESPACE, pod.name),
        uid=pod.name,
        owner="fleet",
        owner_uid=_UID,
        revision=deployment.revision,
        ordinal=pod.ordinal,
        accelerator=deployment.spec.accelerators[0].name,
        serving=not pod.draining,
        created_at=pod.ready_at - pod.loaded_in,
        drain_started_at=pod.drain_since,
        phase="Running",
        conditions=(ready,),
        containers=(ContainerStatus("engine", ready=pod.ready, started=pod.ready, state="running"),),
    )


def asked(
    prometheus: Prometheus, pods: tuple[Pod, ...], names: MetricNames, rounds: Rounds, now: float
) -> Metrics:
    """What the operator knows after one round of its queries (`stoker.core.promql.queries`)."""
    answers = _answers(prometheus, names, rounds.queries([names], []), now)
    return gathered(rounds.completed(answers, [names]), [(p.key, names) for p in pods], now, STALE_AFTER)


def _answers(
    prometheus: Prometheus, names: MetricNames, wanted: Collection[str], now: float
) -> dict[str, Answer]:
    window = names.rate_window_seconds
    try:
        vectors = {
            signal.value: _asked_of(prometheus, signal, column, window, now)
            for signal, column in _COLUMNS.items()
            if signal in wanted
        }
        vectors[Freshness.LAST_SAMPLE.value] = prometheus.timestamps(now)
        vectors[Freshness.WINDOW_START.value] = prometheus.timestamps(now, window)
    except Unavailable as error:
        return {query: Failed(str(error), unreachable=True) for query in wanted}
    return {query: Samples(_vector(query, vector, names, now)) for query, vector in vectors.items()}


def _asked_of(
    prometheus: Prometheus, signal: Signal, column: str, window: float, now: float
) -> dict[str, float]:
    """The instant vector of one signal's query."""
    if signal in COUNTERS:
        return prometheus.slopes(column, window, window + edge(window), now)
    if signal is Signal.CACHE_USAGE:
        return prometheus.averages(column, window, now)
    if signal is Signal.INTER_TOKEN_LATENCY:
        return prometheus.means(column, window, now)
    return prometheus.instant(column, now)


def _vector(query: str, vector: dict[str, float], names: MetricNames, now: float) -> tuple[Sample, ...]:
    signal = Signal.RUNNING if query in set(Freshness) else Signal(query)
    tag = series_id(names.series[signal][-1], names)  # the last alternative is the one every version has
    return tuple(
        Sample({"namespace": NAMESPACE, "pod": pod, "series": tag}, value, now)
        for pod, value in vector.items()
    )
