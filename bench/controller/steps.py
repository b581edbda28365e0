"""What the steps of a tick cost the operator alone, and where it goes: no control plane, no Prometheus.

    python -m bench.controller.steps --models 1000 --profile decide

A fleet like that of the benchmark scales on made-up answers, which have the bytes that Prometheus would send.
One process takes each step in turn, so its CPU seconds hold on a busy machine too, as far as programs that
share a core leave each other alone.

- read: the answers' JSON becomes samples
- gather: samples become readings of each pod, and the order in which the fleets are decided
- decide: readings become plans
- take in: the statuses that were published come back from the API server
"""

import cProfile
import gc
import json
import pstats
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from bench.controller import exposition, fleet
from stoker.api import meta
from stoker.clients.answers import read
from stoker.controller.loop import MOST_PER_TICK
from stoker.controller.store import Store
from stoker.core import promql, signals, urgency
from stoker.core.engines.vllm import METRICS
from stoker.core.observed import Memory, Snapshot
from stoker.core.parse import timestamp
from stoker.core.plan import Apply, CreatePod, Plan
from stoker.core.promql import Freshness
from stoker.core.readings import Key, Metrics, Signal
from stoker.core.reconcile import reconcile
from stoker.core.signals import Answer

BEGIN = "2027-01-15T08:00:00Z"
SETTLING_SECONDS = 3600.0
"""Between the replicas' start and the first tick that is measured: they have served for long."""
INTERVAL_SECONDS = 5.0
"""The operator's default interval."""
STALE_AFTER = 60.0
WARM_UP_TICKS = 4
"""The first ticks decide for the first time, and write every status."""
LINES = 40
MEANS = {
    Signal.GENERATED_TOKENS: 3000.0,
    Signal.PROMPT_TOKENS: 3000.0,
    Signal.REQUESTS: 1.0,
    Signal.RUNNING: 0.85 * fleet.REQUESTS_PER_REPLICA,
    Signal.WAITING: 0.0,
    Signal.CACHE_USAGE: 0.3,
    Signal.INTER_TOKEN_LATENCY: 0.85 * fleet.REQUESTS_PER_REPLICA / 3000.0,
}
"""What each replica's signals swing around: a fleet that has what it needs."""

T = TypeVar("T")
Object = dict[str, Any]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


class Fleet:
    """ModelDeployments and their pods as the operator knows them, with an API server that always agrees.

    Args:
        size: ModelDeployments.
    """

    def __init__(self, size: int) -> None:
        self.now = timestamp(BEGIN) or 0.0
        self.store = Store(lambda: self.now)
        self.memory: dict[Key, Memory] = {}
        self._version = 0
        self._models = {Key(*key): fleet.manifest(*key) for key in fleet.keys(size)}
        self._put_models()
        while self._settle():
            self.now += INTERVAL_SECONDS
        self.now += SETTLING_SECONDS
        for model in self._models.values():
            del model["spec"]["replicas"]
            model["spec"]["scaling"] = fleet.SCALING
            model["metadata"]["generation"] = 2
        self._put_models()

    @property
    def pods(self) -> list[Key]:
        """All of them, in the order of the fleet."""
        return [pod.key for _, pod in self.store.all_pods()]

    def decide(self, metrics: Metrics, keys: list[Key]) -> list[Plan]:
        """Plans for these, in parts as the operator's loop takes them.

        Raises:
            Exception: a bug in deciding.
        """
        snapshot = Snapshot(
            now=self.now,
            deployments=self.store.deployments,
            pods=self.store.pods_by_deployment,
            services=self.store.services,
            metrics=metrics,
            memory=self.memory,
        )
        plans: list[Plan] = []
        for first in range(0, len(keys), MOST_PER_TICK):
            plans += reconcile(snapshot, keys[first : first + MOST_PER_TICK]).values()
        for plan in plans:
            if plan.error is not None:
                raise plan.error
        return plans

    def act(self, plans: list[Plan]) -> int:
        """Carry plans out; how many statuses were written."""
        for plan in plans:
            self.memory[plan.key] = plan.memory
            for action in plan.actions:
                if isinstance(action, CreatePod):
                    self.store.put("Pod", self._stored(_running(action.manifest)))
                elif isinstance(action, Apply):
                    self.store.put("Service", self._stored(action.manifest))
        published = [plan for plan in plans if plan.status is not None]
        for plan in published:
            self._publish(plan)
        return len(published)

    def _settle(self) -> bool:
        """Decide without metrics and carry it out; whether there was something to do."""
        plans = self.decide(Metrics(at=self.now, failure="not asked", pending=True), list(self._models))
        self.act(plans)
        return any(plan.actions for plan in plans)

    def _publish(self, plan: Plan) -> None:
        assert plan.status is not None  # noqa: S101 - the caller has looked
        status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        self._models[plan.key]["status"] = status
        self.store.put(meta.KIND, self._stored(self._models[plan.key]))

    def _put_models(self) -> None:
        for model in self._models.values():
            self.store.put(meta.KIND, self._stored(model))

    def _stored(self, manifest: Any) -> Object:
        """The object as the API server sends it: another one, with a uid, a time and a version."""
        obj: Object = json.loads(json.dumps(manifest))
        self._version += 1
        known = {"uid": f"uid-{obj['metadata']['name']}", "creationTimestamp": BEGIN, "generation": 1}
        obj["metadata"] = {**known, **obj["metadata"], "resourceVersion": str(self._version)}
        return obj


def _running(manifest: Any) -> Object:
    """A pod whose engine serves."""
    kinds = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
    status = {
        "phase": "Running",
        "podIP": "127.1.0.1",
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": BEGIN} for kind in kinds],
        "containerStatuses": [
            {"name": c["name"], "ready": True, "started": True, "state": {"running": {"startedAt": BEGIN}}}
            for c in manifest["spec"]["containers"]
        ],
    }
    return {**manifest, "spec": {**manifest["spec"], "nodeName": "node-0"}, "status": status}


# --- Answers -------------------------------------------------------------------------------------


def bodies(pods: list[Key], now: float) -> dict[str, bytes]:
    """What Prometheus answers to each of the operator's queries about these pods."""
    return {name: _body(name, pods, now) for name in promql.queries([METRICS])}


def _body(name: str, pods: list[Key], now: float) -> bytes:
    scraped = now - now % exposition.SCRAPE_SECONDS
    signal = Signal.RUNNING if name in set(Freshness) else Signal(name)
    tag = promql.series_id(METRICS.series[signal][0], METRICS)
    result = [
        {
            "metric": {"namespace": pod.namespace, "pod": pod.name, "series": tag},
            "value": [now, str(_value(name, scraped, number))],
        }
        for number, pod in enumerate(pods)
    ]
    answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
    return json.dumps(answer, separators=(",", ":")).encode()


def _value(name: str, scraped: float, number: int) -> float:
    if name == Freshness.LAST_SAMPLE:
        return scraped
    if name == Freshness.WINDOW_START:
        return scraped - METRICS.rate_window_seconds - 1.0
    return exposition.swung(MEANS[Signal(name)], scraped, number)


# --- Steps ---------------------------------------------------------------------------------------


class Meter:
    """CPU seconds by step, and a profile of one of them.

    Args:
        profiled: Name of the step; empty for none.
    """

    def __init__(self, profiled: str) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.profile = cProfile.Profile(builtins=False)
        self._profiled = profiled

    def take(self, step: str, do: Callable[[], T]) -> T:
        """Do a step and note what it took."""
        if step == self._profiled:
            self.profile.enable()
        started = time.process_time()
        try:
            return do()
        finally:
            self.seconds[step].append(time.process_time() - started)
            self.profile.disable()


def ticks(world: Fleet, meter: Meter) -> Iterator[int]:
    """Tick after tick; how many statuses each has published."""
    in_flight: dict[Key, float] = {}
    while True:
        world.now += INTERVAL_SECONDS
        answers = meter.take("read", partial(_read, bodies(world.pods, world.now)))
        metrics, now = meter.take("gather", partial(_gather, world, answers))
        order, in_flight = urgency.by_growth(in_flight, now), now
        plans = meter.take("decide", partial(world.decide, metrics, order))
        yield meter.take("take in", partial(world.act, plans))


def _read(sent: dict[str, bytes]) -> dict[str, Answer]:
    return {name: read(200, body) for name, body in sent.items()}


def _gather(world: Fleet, answers: dict[str, Answer]) -> tuple[Metrics, dict[Key, float]]:
    """What `stoker.controller.gather` does with the answers."""
    pods = {key: [pod.key for pod in world.store.pods(key)] for key in world.store.deployments}
    named = [(pod, METRICS) for of in pods.values() for pod in of]
    metrics = signals.gathered(answers, named, world.now, STALE_AFTER)
    return metrics, {key: urgency.in_flight(metrics, key, of) for key, of in pods.items()}


@app.command()
def main(
    models: Annotated[int, typer.Option(min=1, help="ModelDeployments, of four pods each.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Ticks to measure.")] = 12,
    profile: Annotated[str, typer.Option(help="Step to profile: read, gather, decide or take in.")] = "",
) -> None:
    """Measure the steps of a tick in this process."""
    gc.set_threshold(50_000, 50, 100)  # as the operator does
    world = Fleet(models)
    warm, meter = ticks(world, Meter("")), Meter(profile)
    for _ in range(WARM_UP_TICKS):
        next(warm)
    measured = ticks(world, meter)
    written = [next(measured) for _ in range(rounds)]
    console.print(
        _table(meter, f"{models} models, {rounds} ticks, {sum(written) / rounds:.0f} statuses each")
    )
    if profile:
        pstats.Stats(meter.profile).sort_stats("tottime").print_stats(LINES)


def _table(meter: Meter, title: str) -> Table:
    table = Table(title=title)
    for column in ("step", "least, ms", "median, ms", "most, ms"):
        table.add_column(column, justify="right")
    for step, seconds in meter.seconds.items():
        told = (min(seconds), median(seconds), max(seconds))
        table.add_row(step, *(f"{1000 * value:.0f}" for value in told))
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench.controller.steps")
