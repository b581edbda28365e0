"""Everything real that both sides share, started and ended together.

One plane, with a KEDA if any fleet is KEDA's; per `Site` a Prometheus, the Stoker operator that asks it, and
the fleets whose metrics it has. More than one site is for faults of Prometheus itself, which must not reach
others. The simulated engines of each side are in a process of that side.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import fleets
from bench.peers.fleets import SIDE_LABEL, Fleet, Side
from testbed.access import Access
from testbed.components import PlaneOptions
from testbed.engine_pods import EngineOptions
from testbed.engines import EngineFleet
from testbed.keda import Keda
from testbed.nodes import create_nodes
from testbed.operator_access import grant, install_crds
from testbed.operator_process import Operator
from testbed.plane import Plane
from testbed.prometheus import Prometheus

GPUS_PER_NODE = 128
"""Far more than a real node's: where pods land is not what is compared."""
LOGS = Path("out") / "bench-peers"


@dataclass(frozen=True, slots=True)
class Site:
    """A Prometheus, the operator that asks it, and their fleets."""

    name: str
    fleets: Sequence[Fleet]
    prometheus: Prometheus
    operator: Operator


@dataclass(frozen=True, slots=True)
class Arena:
    """A plane with the autoscalers of its fleets at work; without fleets of KEDA's there is no KEDA."""

    plane: Access
    keda: Keda | None
    sites: Mapping[str, Site]
    engines: Mapping[Side, EngineFleet]

    @property
    def fleets(self) -> list[Fleet]:
        """All of them."""
        return [fleet for site in self.sites.values() for fleet in site.fleets]

    def prometheus_of(self, fleet: Fleet) -> Prometheus:
        """The one that has the fleet's metrics."""
        return next(site.prometheus for site in self.sites.values() if fleet in site.fleets)

    def active(self) -> set[str]:
        """Namespaces whose autoscaler has read its metrics: the condition ScalingActive of either side."""
        with self.plane.client() as client:
            paths = (
                "/apis/autoscaling/v2/horizontalpodautoscalers",
                "/apis/stoker.dev/v1alpha1/modeldeployments",
            )
            found = [one for path in paths for one in client.get(path).raise_for_status().json()["items"]]
        return {one["metadata"]["namespace"] for one in found if _scaling_active(one.get("status", {}))}


@contextmanager
def open_arena(
    groups: Mapping[str, Sequence[Fleet]], *, scrape_interval: str, engines: EngineOptions
) -> Iterator[Arena]:
    """Start everything, apply the fleets, and end everything with the block.

    Args:
        groups: fleets by the name of their site.
        scrape_interval: of every Prometheus, as a Prometheus duration.
        engines: how the simulated engines are run.

    Raises:
        PlaneError, PrometheusError, OperatorError, KedaError, EngineFleetError: a part did not start.
        testbed.binaries.BuildError: a program could not be built.
    """
    with ExitStack() as stack:
        plane = stack.enter_context(Plane.start(options=PlaneOptions(aggregation=True)))
        stack.push(lambda kind, *_: _keep_logs(plane.directory) if kind is not None else None)
        everyone = [fleet for group in groups.values() for fleet in group]
        pods = sum(fleet.maximum for fleet in everyone)
        create_nodes(plane, pods * fleets.GPUS_PER_REPLICA // GPUS_PER_NODE + 2, gpus=GPUS_PER_NODE)
        install_crds(plane)
        sides = {fleet.contender.side for fleet in everyone}
        keda = stack.enter_context(Keda.start(plane)) if Side.KEDA in sides else None
        _apply(plane, [fleets.namespace(fleet) for fleet in everyone])
        processes = {
            side: stack.enter_context(
                EngineFleet(
                    plane.kubeconfig,
                    engines,
                    selector=f"{SIDE_LABEL}={side}",
                    log=plane.directory / "logs" / f"engines-{side}.log",
                )
            )
            for side in sorted(sides)
        }
        sites = {
            name: _open_site(stack, plane, name, group, scrape_interval) for name, group in groups.items()
        }
        yield Arena(plane, keda, sites, processes)


def _open_site(
    stack: ExitStack, plane: Plane, name: str, group: Sequence[Fleet], scrape_interval: str
) -> Site:
    namespaces = [fleet.namespace for fleet in group]
    folder = plane.directory / name
    prometheus = stack.enter_context(
        Prometheus.start(folder / "prometheus", plane, namespaces=namespaces, scrape_interval=scrape_interval)
    )
    scaled = [fleet.namespace for fleet in group if fleet.contender.side is Side.STOKER]
    system = f"stoker-{name}"
    plane.kubectl("create", "namespace", system)
    kubeconfig = grant(plane, system, scaled)
    operator = stack.enter_context(
        Operator.start(folder, kubeconfig, prometheus_url=prometheus.url, namespaces=scaled)
    )
    _apply(plane, [one for fleet in group for one in fleets.manifests(fleet, prometheus.url)])
    return Site(name, group, prometheus, operator)


def _apply(plane: Access, objects: Sequence[fleets.Manifest]) -> None:
    plane.kubectl("apply", "-f", "-", input=fleets.listed(objects))


def _scaling_active(status: fleets.Manifest) -> bool:
    conditions = status.get("conditions") or ()
    return any(one["type"] == "ScalingActive" and one["status"] == "True" for one in conditions)


def _keep_logs(directory: Path) -> None:
    """Save what explains a failure before the plane's folder goes away."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for log in directory.rglob("*.log"):
        shutil.copy(log, LOGS / "-".join(log.relative_to(directory).parts))
    print(f"logs are in {LOGS}")
