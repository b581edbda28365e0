"""What one replica carries at the objective: stated by the user, learned from the fleet, or a prior.

The fleet's own metrics teach the four costs of an iteration (``latency``, ``belief``, ``lessons``); what a
replica carries follows from them for any mix of requests, without a replica having been saturated.

Rules of this module:

* One reading per replica and rate window: asking more often is asking the same again.
* The costs belong to a revision: another one starts from what is known of such replicas, and learns anew.
* What is published is enough to go on from after a restart.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stoker.api.status import LearnedCosts
from stoker.api.v1alpha1 import CapacitySource, CapacityStatus, ModelDeploymentSpec, Targets
from stoker.core.belief import Learned, believe
from stoker.core.demand import ANSWERS_LAST
from stoker.core.engines import engine_for
from stoker.core.latency import AtObjective, Costs, Mix, capacity, slope_of
from stoker.core.lessons import samples_of, taught
from stoker.core.priors import Prior, prior_of
from stoker.core.readings import Key, Metrics

if TYPE_CHECKING:  # observed keeps what is learned between ticks
    from collections.abc import Sequence

    from stoker.core.observed import ModelDeployment, Pod

STATED_PROMPT_WEIGHT = 0.3
"""The weight that ``accelerators[].tokensPerSecond`` is stated with."""

ENOUGH_SAMPLES = 10
"""Readings from which on a capacity is called learned."""

RELATIVE_ERROR = 0.15
"""A relative error of the capacity that halves the confidence in it."""

LAW_ERROR = 0.03
"""Relative error of the capacity that no number of samples takes away."""

REACH_ERROR = 0.15
"""Likewise, of a fleet that was never busy: what it does at the objective is extrapolated."""

WORTH_WRITING = 0.03
"""Relative change of a published number below which it stays: what a decision uses is always the latest."""

SEED_DEVIATION = 0.1
"""Relative standard deviation of costs read back from status, or taken over from another revision."""


@dataclass(frozen=True, slots=True)
class ReplicaCapacity:
    """What one replica carries at the objective for the time per output token, for the present mix."""

    tokens_per_second: float
    """Weighted: generated ones plus ``prompt_token_weight`` of each computed prompt token."""
    concurrent_requests: float
    """Requests in the batch."""
    prompt_token_weight: float
    """Cost of a computed prompt token relative to a generated one."""
    source: CapacitySource
    """Where ``tokens_per_second`` comes from."""
    confidence: float
    """0..1."""
    samples: int
    """Readings of replicas that were learned from."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What follows from what was learned, kept because every tick asks for it and few change it."""

    spec: ModelDeploymentSpec
    learned: Learned | None
    capacity: ReplicaCapacity
    status: CapacityStatus


# --- Learning ------------------------------------------------------------------------------------


def learn(
    before: Learned | None, deployment: ModelDeployment, pods: Sequence[Pod], metrics: Metrics, now: float
) -> Learned | None:
    """What the fleet has taught by now; None for a spec that cannot be read.

    Args:
        before: What it had taught at the last tick; None after a restart: then status is read.
        deployment: With its spec, its published status and its metric names.
        pods: Its own, in any order.
        metrics: Of this tick.
        now: Unix s.
    """
    if deployment.spec is None or deployment.metrics is None:
        return before
    learned = _continued(before, deployment, deployment.spec)
    window = deployment.metrics.rate_window_seconds
    number = window_number(deployment.key, metrics.at, window)
    if number == learned.window or abs(now - metrics.at) > ANSWERS_LAST:
        return learned
    samples = samples_of(learned, pods, metrics, window)
    return taught(learned, samples, number, metrics.at) if samples else learned


def window_number(key: Key, at: float, window: float) -> int:
    """Number of the rate window that ``at`` lies in, counted from the epoch.

    Each ModelDeployment has its own moment at which one ends and the next begins, so that of ten thousand not
    all learn in the same tick.
    """
    return int(at / window + zlib.crc32(str(key).encode()) / 2**32)


def _continued(before: Learned | None, deployment: ModelDeployment, spec: ModelDeploymentSpec) -> Learned:
    """What to go on from: the last tick, else status, else the prior."""
    if before is not None and before.revision == deployment.revision:
        return before
    prior = prior_of(spec)
    if before is None:
        return _recalled(deployment, spec, prior) or _fresh(deployment.revision, prior)
    if before.origin == prior.origin and before.samples >= ENOUGH_SAMPLES:  # such a model on such a GPU
        return _seeded(deployment.revision, before.belief.costs, before.mix, prior)
    return _fresh(deployment.revision, prior)


def _fresh(revision: str, prior: Prior) -> Learned:
    return Learned(revision, prior.origin, believe(prior.costs, prior.deviation), prior.mix)


def _seeded(revision: str, costs: Costs, mix: Mix, prior: Prior) -> Learned:
    """With costs that some replica of the kind was found to have."""
    return Learned(revision, prior.origin, believe(costs, SEED_DEVIATION), mix)


# --- What follows from it ------------------------------------------------------------------------


def capacity_of(spec: ModelDeploymentSpec, learned: Learned | None = None) -> ReplicaCapacity:
    """What one replica of the first accelerator carries, for the present mix or the last that was seen.

    Args:
        spec: The objective is ``scaling.targets.timePerOutputToken``.
        learned: From ``learn``; None: the prior.
    """
    known = learned if learned is not None else _fresh("", prior_of(spec))
    found = _at_objective(spec, known)
    stated = spec.accelerators[0].tokens_per_second
    if stated is not None:
        return ReplicaCapacity(
            float(stated), found.in_flight, STATED_PROMPT_WEIGHT, CapacitySource.STATED, 1.0, known.samples
        )
    source = CapacitySource.LEARNED if known.samples >= ENOUGH_SAMPLES else CapacitySource.PRIOR
    return ReplicaCapacity(
        found.weighted, found.in_flight, found.weight, source, _confidence(spec, known, found), known.samples
    )


def standing(before: Standing | None, spec: ModelDeploymentSpec, learned: Learned | None) -> Standing:
    """What follows from ``learned``; the very same as before when it follows from the very same."""
    if before is not None and before.spec is spec and before.learned is learned:
        return before
    return Standing(spec, learned, capacity_of(spec, learned), published(spec, learned))


def _objective(spec: ModelDeploymentSpec) -> float:
    targets = spec.scaling.targets if spec.scaling is not None else Targets()
    return targets.time_per_output_token.seconds


def _at_objective(spec: ModelDeploymentSpec, learned: Learned) -> AtObjective:
    most = engine_for(spec).most_sequences
    return capacity(learned.belief.costs, learned.mix, _objective(spec), math.inf if most is None else most)


def _confidence(spec: ModelDeploymentSpec, learned: Learned, found: AtObjective) -> float:
    """0..1, from the relative error to be expected of the capacity.

    That grows with the uncertainty of the costs, in the direction that the objective and the present mix ask
    for; with the error that the law leaves; and with how far the load has stayed below the objective.
    """
    costs, mix, objective = learned.belief.costs, learned.mix, _objective(spec)
    slope = slope_of(costs, mix)
    # The relative change of the capacity with each cost: of (1 - base / objective) / slope.
    gradient = (1 / (objective * found.load), 1 / slope, mix.cache / slope, mix.prompt / slope)
    reach = REACH_ERROR * max(0.0, 1 - learned.busiest / found.load)
    variance = learned.belief.variance(gradient) + learned.noise / (1 + learned.samples)
    error = math.sqrt(max(0.0, variance) + (LAW_ERROR + reach) ** 2)
    return 1 / (1 + (error / RELATIVE_ERROR) ** 2)


# --- Status --------------------------------------------------------------------------------------


def published(spec: ModelDeploymentSpec, learned: Learned | None) -> CapacityStatus:
    """What one replica carries, as status shows it."""
    found = capacity_of(spec, learned)
    known = learned if learned is not None else _fresh("", prior_of(spec))
    return CapacityStatus(
        accelerator=spec.accelerators[0].name,
        tokens_per_second=round(_rounded(found.tokens_per_second)),
        concurrent_requests=_rounded(found.concurrent_requests),
        prompt_token_weight=_rounded(found.prompt_token_weight),
        confidence=round(found.confidence, 2),
        samples=found.samples,
        source=found.source,
        message=_message(spec, known, found),
        learned=_costs(known) if known.samples else None,
    )


def settled(before: Sequence[CapacityStatus], after: CapacityStatus) -> tuple[CapacityStatus, ...]:
    """What to publish: what is published already, unless something has changed that is worth a write."""
    for known in before:
        if known.accelerator == after.accelerator and _alike(known, after):
            return (known,)
    return (after,)


def _alike(before: CapacityStatus, after: CapacityStatus) -> bool:
    """Whether the numbers differ by so little that neither a reader nor a restarted operator would mind."""
    old, new = before.learned, after.learned
    if (before.source, before.message, old is None) != (after.source, after.message, new is None):
        return False
    if (after.samples or 0) >= 2 * max(1, before.samples or 0):
        return False
    if old is not None and new is not None and old.revision != new.revision:
        return False
    shown = ("tokens_per_second", "concurrent_requests", "prompt_token_weight", "confidence")
    return all(_near(getattr(before, name), getattr(after, name)) for name in shown)


def _near(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before == after
    return abs(after - before) <= WORTH_WRITING * before


def _message(spec: ModelDeploymentSpec, learned: Learned, found: ReplicaCapacity) -> str:
    objective, alone = _objective(spec), learned.belief.costs.base
    if alone >= objective:
        return (
            f"a request that is alone takes {alone * 1000:.3g} ms per token, more than the objective of "
            f"{objective * 1000:.3g} ms: raise scaling.targets.timePerOutputToken, or take a faster GPU"
        )
    return learned.origin if found.source is CapacitySource.PRIOR else ""


def _costs(learned: Learned) -> LearnedCosts:
    costs, mix = learned.belief.costs, learned.mix
    return LearnedCosts(
        revision=learned.revision,
        iteration_milliseconds=_precise(costs.base * 1e3),
        sequence_microseconds=_precise(costs.per_sequence * 1e6),
        full_cache_milliseconds=_precise(costs.full_cache * 1e3),
        prompt_token_microseconds=_precise(costs.per_prompt_token * 1e6),
        prompt_tokens_per_generated_token=_precise(mix.prompt),
        cache_share_per_sequence=_precise(mix.cache),
    )


def _recalled(deployment: ModelDeployment, spec: ModelDeploymentSpec, prior: Prior) -> Learned | None:
    """What status says was learned; None if nothing, or about another revision."""
    name = spec.accelerators[0].name
    status = next((c for c in deployment.status.capacity if c.accelerator == name), None)
    if status is None or status.learned is None or status.learned.revision != deployment.revision:
        return None
    said = status.learned
    costs = Costs(
        said.iteration_milliseconds / 1e3,
        said.sequence_microseconds / 1e6,
        said.full_cache_milliseconds / 1e3,
        said.prompt_token_microseconds / 1e6,
    )
    mix = Mix(said.prompt_tokens_per_generated_token, said.cache_share_per_sequence)
    if min(costs) <= 0:
        return None
    return replace(_seeded(deployment.revision, costs, mix, prior), samples=status.samples or 0)


def _rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def _precise(value: float) -> float:
    """Four significant digits: what is read back must not move the capacity that it gives."""
    return float(f"{value:.4g}")
