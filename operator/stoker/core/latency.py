"""What an engine with continuous batching can carry: one law, and what follows from it.

An iteration gives each sequence of the batch one token and takes

    t = base + per_sequence · sequences + full_cache · share of it in use + per_prompt_token · prompt tokens

With G generated and P computed prompt tokens per second a replica has G·t sequences in its batch (Little's
law) and computes P·t prompt tokens per iteration. For a mix with κ of the KV cache per sequence and p = P/G

    t = base / (1 - load),   load = G · (A + per_prompt_token · p),   A = per_sequence + full_cache · κ

so the mean of t is the objective T at a load of 1 - base/T. The law fits published measurements of vLLM on
H100 within 2 % in the mean (ai-dynamo/aiconfigurator, systems/silicon_sample.csv).

That is the capacity. For nearly every request to keep T the load has to stay below it, since requests come by
chance; how much below is the fleet's business, not the replica's: a router evens out over all replicas what
one alone would have to leave room for. ``offered`` keeps it free, as measured, and ``utilization`` the rest.

Rules of this module:

* Pure arithmetic: no readings, no pods, no spec.
"""

from __future__ import annotations

from typing import NamedTuple

LEAST_LOAD = 0.3
"""Share of its speed that a replica is given work for even when the objective is beyond it: a lone request is
too slow for the objective already, and more replicas would not make it faster."""

FULL = 0.9
"""Share of the KV cache that may be planned for: beyond it sequences are preempted and computed again."""


class Costs(NamedTuple):
    """What an iteration costs, in seconds: properties of model, engine and GPU."""

    base: float
    """Of an iteration with nothing in it: reading the weights."""
    per_sequence: float
    full_cache: float
    """Of reading a whole KV cache; by the share of it that is in use."""
    per_prompt_token: float


class Mix(NamedTuple):
    """What requests are like."""

    prompt: float
    """Computed prompt tokens per generated token."""
    cache: float
    """Share of the KV cache that a sequence in the batch takes."""


class AtObjective(NamedTuple):
    """What one replica carries at the objective."""

    weighted: float
    """Generated plus ``weight`` times computed prompt tokens, per second."""
    in_flight: float
    """Requests in the batch."""
    weight: float
    """Cost of a computed prompt token relative to a generated one."""
    load: float
    """0..1: share of the speed that an infinite latency would give."""


def capacity(costs: Costs, mix: Mix, objective: float, most_sequences: float) -> AtObjective:
    """What one replica carries while tokens take ``objective`` each, in the mean.

    Args:
        costs: All positive.
        mix: Neither number negative.
        objective: Seconds per output token.
        most_sequences: The engine's bound on its batch; infinite when it is not known.
    """
    per_generated = costs.per_sequence + costs.full_cache * mix.cache
    slope = slope_of(costs, mix)
    load = max(LEAST_LOAD, 1 - costs.base / objective)
    generated = load / slope
    in_flight = generated * costs.base / (1 - load)
    if in_flight < 1:  # one request can always be sent
        in_flight, generated = 1.0, 1 / (costs.base + slope)
    bound = max(1.0, min(most_sequences, FULL / mix.cache if mix.cache > 0 else most_sequences))
    if in_flight > bound:
        in_flight = bound
        generated = bound / (costs.base + slope * bound)
    weight = costs.per_prompt_token / per_generated
    return AtObjective(generated * (1 + weight * mix.prompt), in_flight, weight, generated * slope)


def slope_of(costs: Costs, mix: Mix) -> float:
    """Load per generated token and second, with the prompt tokens that come with it; seconds."""
    return costs.per_sequence + costs.full_cache * mix.cache + costs.per_prompt_token * mix.prompt
