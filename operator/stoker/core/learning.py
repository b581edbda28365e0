"""What one replica carries at the objective: stated by the user, learned from the fleet, or a prior."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.api.v1alpha1 import CapacitySource, ModelDeploymentSpec

_PRIOR_IN_FLIGHT = 40.0
_PRIOR_TOKENS_PER_SECOND = 2000.0
_PRIOR_PROMPT_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class ReplicaCapacity:
    """What one replica carries at the objective for the time per output token, for the present mix."""

    tokens_per_second: float
    """Weighted: generated ones plus ``prompt_token_weight`` of each computed prompt token."""
    concurrent_requests: float
    """Requests in flight."""
    prompt_token_weight: float
    """Cost of a computed prompt token relative to a generated one."""
    source: CapacitySource
    """Where ``tokens_per_second`` comes from."""
    confidence: float
    """0..1."""
    samples: int
    """Readings of replicas that it was learned from."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What the fleet has taught so far."""


def capacity_of(spec: ModelDeploymentSpec, learned: Learned | None = None) -> ReplicaCapacity:
    """What one replica of the first accelerator carries."""
    stated = spec.accelerators[0].tokens_per_second
    return ReplicaCapacity(
        tokens_per_second=_PRIOR_TOKENS_PER_SECOND if stated is None else float(stated),
        concurrent_requests=_PRIOR_IN_FLIGHT,
        prompt_token_weight=_PRIOR_PROMPT_WEIGHT,
        source=CapacitySource.PRIOR if stated is None else CapacitySource.STATED,
        confidence=0.0 if stated is None else 1.0,
        samples=0,
    )
