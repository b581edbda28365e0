"""Fleets of engines that keep the law of `stoker.core.latency`, and what Prometheus says of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from stoker.core.belief import Learned
from stoker.core.latency import Costs, Mix, capacity, slope_of
from stoker.core.learning import ReplicaCapacity, capacity_of, learn
from stoker.core.observed import Pod
from stoker.core.readings import Metrics, PodMetrics
from testbed.replica_models import ReplicaModel
from tests.factories import NOW, deployment, pod, readings

WINDOW = 60.0
OBJECTIVE = 0.05
CHAT = (1155, 211)
EVEN = (1024, 1024)
LONG = (4096, 128)
NOISE = 0.05
"""Relative, of each number of a window: what four scrapes of uneven traffic make of it."""


def costs_of(model: ReplicaModel) -> Costs:
    """The law of a testbed's engine, in the units of the fit."""
    return Costs(
        model.base_ns * 1e-9,
        model.per_sequence_ns * 1e-9,
        model.per_kv_token_ps * 1e-12 * model.kv_capacity_tokens,
        model.per_prefill_token_ns * 1e-9,
    )


def mix_of(model: ReplicaModel, request: tuple[int, int]) -> Mix:
    """Requests of (prompt, output) tokens."""
    prompt, output = request
    return Mix(prompt / output, (prompt + output / 2) / model.kv_capacity_tokens)


def slower(costs: Costs, times: float) -> Costs:
    """The same engine on a throttled GPU."""
    return Costs(*(times * cost for cost in costs))


def window(costs: Costs, mix: Mix, load: float, luck: random.Random, noise: float = NOISE) -> PodMetrics:
    """What is read of an engine that carries a load, after one window."""
    generated = load / slope_of(costs, mix) * luck.gauss(1, noise)
    prompt = generated * mix.prompt * luck.gauss(1, noise)
    sequences = costs.per_sequence + costs.full_cache * mix.cache
    latency = costs.base / max(0.02, 1 - sequences * generated - costs.per_prompt_token * prompt)
    latency *= luck.gauss(1, noise / 2)
    cache = min(1.0, max(0.0, mix.cache * generated * latency * luck.gauss(1, noise)))
    return readings(
        generated_tokens=generated,
        prompt_tokens=prompt,
        inter_token_latency=latency,
        cache_usage=cache,
        running=float(round(generated * latency)),
        waiting=0.0,
        requests=1.0,
    )


class Fleet:
    """A ModelDeployment whose replicas are read once per window.

    Args:
        replicas: how many.
        spec: of the ModelDeployment, by field names of the API.
    """

    def __init__(self, replicas: int, **spec: Any) -> None:
        self.deployment = deployment(**({"scaling": {"maxReplicas": 100}} | spec))
        self.pods = [pod(n, of=self.deployment) for n in range(replicas)]
        self.now = NOW
        self.learned: Learned | None = None
        self.luck = random.Random(7)

    @property
    def capacity(self) -> ReplicaCapacity:
        """What one replica is said to carry."""
        assert self.deployment.spec is not None
        return capacity_of(self.deployment.spec, self.learned)

    def look(self, read: Mapping[Pod, PodMetrics], after: float = WINDOW) -> Learned:
        """One tick, so many seconds later."""
        self.now += after
        known = Metrics(at=self.now, pods={p.key: m for p, m in read.items()})
        self.learned = learn(self.learned, self.deployment, self.pods, known, self.now)
        assert self.learned is not None
        return self.learned

    def run(
        self,
        costs: Costs,
        mix: Mix,
        windows: int,
        *,
        loads: Sequence[float] = (0.15, 0.3, 0.45, 0.6),
        odd: Mapping[int, Costs] | None = None,
        noise: float = NOISE,
    ) -> ReplicaCapacity:
        """So many windows; the load goes up and down, replicas in ``odd`` have costs of their own."""
        own = odd or {}
        for n in range(windows):
            load = loads[n % len(loads)]
            self.look({p: window(own.get(p.ordinal, costs), mix, load, self.luck, noise) for p in self.pods})
        return self.capacity


def generated(found: ReplicaCapacity, mix: Mix) -> float:
    """Generated tokens per second at a capacity: one mix alone does not tell what a prompt token weighs."""
    return found.tokens_per_second / (1 + found.prompt_token_weight * mix.prompt)


def truth(costs: Costs, mix: Mix) -> float:
    """Generated tokens per second that a replica with these costs carries."""
    at = capacity(costs, mix, OBJECTIVE, 256)
    return at.weighted / (1 + at.weight * mix.prompt)
