"""Requests that an inference gateway holds: asked for once for all, and given to the fleets they wait for.

The endpoint picker of the Gateway API Inference Extension can hold requests in a queue of its own while the
replicas are full, or while there are none (its flow control). Such requests wait for a replica just as those
in an engine's queue do, and they are all that is left to see of the traffic of a fleet at zero.

Rules of this module:

* No series, no gateway: that is no error, and nothing is missing.
* A series belongs to the ModelDeployment of its namespace that has the name of its pool. Where none has, it
  belongs to those that serve its model, in equal parts: that is how a gateway would spread the requests.
* ``namespace`` is the label that Prometheus gives to what it scrapes in Kubernetes: the picker's namespace,
  where its pool and the pool's pods are too. The series itself does not name one.

Sources: llm-d/llm-d-router pkg/epp/metrics/llm_d_router_metrics.go (``llm_d_epp_flow_control_queue_size``)
and metrics.go (the deprecated name, exported beside it); kubernetes-sigs/gateway-api-inference-extension
v1.5.0 pkg/epp/metrics/metrics.go (the deprecated name alone). Their labels: fairness_id, priority,
inference_pool, model_name, target_model_name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from stoker.core.readings import Fresh, Key, Missing, Reading, Stale
from stoker.core.signals import MOST, Answer, Failed, Sample

NAME = "heldRequests"
"""The query's name."""

SERIES = ("llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size")
"""Gauges of requests in the picker's queue, the preferred name first: where both are exported, one counts."""

_LABELS = "namespace, inference_pool, model_name, target_model_name"
QUERY = " or ".join(f"sum by ({_LABELS}) ({series})" for series in SERIES)


class Fleet(NamedTuple):
    """A ModelDeployment, as far as a gateway knows it."""

    key: Key
    model: str
    """The name that clients ask for."""


def held(answer: Answer | None, fleets: Sequence[Fleet], at: float) -> Mapping[Key, Reading]:
    """Requests held for each ModelDeployment; those for which there is no gateway are absent.

    Args:
        answer: To ``QUERY``; None when it was not asked.
        fleets: The ModelDeployments whose number follows the traffic.
        at: Unix s: when the answer came.
    """
    if answer is None:
        return {}
    if isinstance(answer, Failed):
        return {fleet.key: Missing(f"Prometheus: {answer.why}") for fleet in fleets}
    found: dict[Key, list[float]] = defaultdict(list)
    owners = _Owners(fleets)
    for sample in answer.samples:
        keys = owners.of(sample)
        for key in keys:
            found[key].append(sample.value / len(keys))
    return {key: _sum(values, at, partial=bool(answer.warnings)) for key, values in found.items()}


class _Owners:
    """Who the series of a gateway belong to."""

    def __init__(self, fleets: Iterable[Fleet]) -> None:
        self._keys: set[Key] = set()
        self._by_model: dict[tuple[str, str], list[Key]] = defaultdict(list)
        for fleet in fleets:
            self._keys.add(fleet.key)
            self._by_model[fleet.key.namespace, fleet.model].append(fleet.key)

    def of(self, sample: Sample) -> Sequence[Key]:
        """The ModelDeployments that the requests of this series are for."""
        labels = sample.labels
        namespace = labels.get("namespace", "")
        pool = Key(namespace, labels.get("inference_pool", ""))
        if pool in self._keys:
            return (pool,)
        # The picker may send a request for one name to another one; without such a rule the target is empty.
        model = labels.get("target_model_name") or labels.get("model_name", "")
        return self._by_model.get((namespace, model), ())


def _sum(values: Sequence[float], at: float, *, partial: bool) -> Reading:
    """Their sum; a lower bound where Prometheus says that it has only a part of the data."""
    odd = next((value for value in values if not 0 <= value <= MOST), None)
    if odd is not None:
        return Missing(f"Prometheus answered {odd}")
    total = math.fsum(values)
    return Stale(total, at) if partial else Fresh(total, at)
