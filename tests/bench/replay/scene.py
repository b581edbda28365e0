"""Views for policies, made by hand."""

from collections.abc import Sequence

from bench.replay.fleet import SimulatedPod
from bench.replay.prometheus import Exposition, Prometheus
from bench.replay.view import Gateway, View
from testbed.replica import Replica
from testbed.replica_models import ReplicaModel, model_named

MODEL: ReplicaModel = model_named("qwen3-32b-2xh100")


def pod(ordinal: int, *, ready: bool = True, in_flight: int = 0, created: float = 0.0) -> SimulatedPod:
    return SimulatedPod(ordinal, created, created, 0.5, Replica(MODEL), in_flight=in_flight, ready=ready)


def view(
    now: float,
    pods: Sequence[SimulatedPod],
    *,
    replicas: int | None = None,
    prometheus: Prometheus | None = None,
    gateway: Gateway | None = None,
) -> View:
    wanted = len(pods) if replicas is None else replicas
    return View(now, wanted, tuple(pods), prometheus or Prometheus(), gateway or Gateway())


def exposed(**values: float) -> Exposition:
    return Exposition(**{name: values.get(name, 0.0) for name in Exposition._fields})
