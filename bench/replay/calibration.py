"""What one replica carries at the objective: the number that a user would measure before setting targets.

Rules of this module:

* Measured with Poisson arrivals, on requests drawn from the workload's beginning: not on the trace that is
  scored, whose bursts no target may know.
* Every policy's target is derived from the same measurement, and swept around it by the same factors.
* A request that misses the objective in an empty replica says nothing about how full replicas may be.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from bench.replay.policies.signals import PROMPT_WEIGHT
from bench.replay.scores import TPOT_SECONDS, TTFT_SECONDS
from testbed.replica import Replica, ReplicaModel, Request
from testbed.trace import TraceRequest

SECONDS = 1500.0
WARM_UP = 300.0
ATTAINMENT = 0.99
"""Of those requests that are within the objective where each has a replica for itself."""
ROUNDS = 9

Lengths: TypeAlias = tuple[int, int]
"""Prompt and output tokens of a request."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica carries at the objective, see `ATTAINMENT`.

    Attributes:
        requests: per second.
        generated: tokens per second.
        weighted: generated plus 0.3 times prompt tokens per second.
        in_flight: mean number of requests in the replica.
    """

    requests: float
    generated: float
    weighted: float
    in_flight: float

    def as_json(self) -> dict[str, float]:
        """Plain values."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def calibrate(model: ReplicaModel, mix: Sequence[TraceRequest], *, seed: int = 0) -> Capacity:
    """Find the highest rate of Poisson arrivals that one replica carries at the objective.

    Args:
        model: of the replica.
        mix: requests to draw lengths from.
        seed: of the draws; the same ones at every rate.

    Raises:
        ValueError: the mix is empty, or one replica cannot even carry a request every ten seconds.
    """
    if not mix:
        raise ValueError("the mix is empty: there is nothing to calibrate on")
    low, high = 0.1, 64.0
    possible = attainable(model, mix)
    best = _carried(model, mix, low, seed, possible)
    if best is None:
        raise ValueError(f"{model.name} misses the objective at {low} requests/s of this mix already")
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        found = _carried(model, mix, middle, seed, possible)
        if found is None:
            high = middle
        else:
            low, best = middle, found
    return best


def attainable(model: ReplicaModel, mix: Iterable[TraceRequest]) -> frozenset[Lengths]:
    """The lengths of those requests that are within the objective where each has a replica for itself."""
    known = {(request.prompt_tokens, request.output_tokens) for request in mix}
    return frozenset(lengths for lengths in known if _within(_alone(model, lengths)))


def _alone(model: ReplicaModel, lengths: Lengths) -> Request:
    request, replica = Request(0, *lengths), Replica(model)
    replica.submit(request, 0)
    while (following := replica.next_event()) is not None:
        replica.advance(following)
    return request


def _carried(
    model: ReplicaModel, mix: Sequence[TraceRequest], rate: float, seed: int, possible: Container[Lengths]
) -> Capacity | None:
    """What flows at this rate; None when the objective is missed by too many that could be within it."""
    scored = [r for r in _play(model, mix, rate, seed) if int(r.id) >= WARM_UP * 1e9]
    judged = [_within(r) for r in scored if (r.prompt_tokens, r.output_tokens) in possible]
    if not judged or sum(judged) < ATTAINMENT * len(judged):
        return None
    seconds = SECONDS - WARM_UP
    generated = sum(r.output_tokens for r in scored) / seconds
    prompt = sum(r.prompt_tokens for r in scored) / seconds
    busy = sum((r.finished_ns or 0) - int(r.id) for r in scored) / 1e9
    return Capacity(len(scored) / seconds, generated, generated + PROMPT_WEIGHT * prompt, busy / seconds)


def _play(model: ReplicaModel, mix: Sequence[TraceRequest], rate: float, seed: int) -> list[Request]:
    draw, replica = random.Random(seed), Replica(model)
    requests, at = [], draw.expovariate(rate)
    while at < SECONDS:
        sample = draw.choice(mix)
        requests.append(Request(round(at * 1e9), sample.prompt_tokens, sample.output_tokens))
        replica.submit(requests[-1], round(at * 1e9))
        if replica.waiting > 2000:
            break  # hopelessly over its capacity
        at += draw.expovariate(rate)
    while (following := replica.next_event()) is not None:
        replica.advance(following)
    return requests


def _within(request: Request) -> bool:
    first, last = request.first_token_ns, request.finished_ns
    assert first is not None and last is not None  # noqa: S101, PT018 - all have been played to their end
    ttft, tpot = (first - int(request.id)) / 1e9, (last - first) / 1e9 / max(1, request.output_tokens - 1)
    return ttft <= TTFT_SECONDS and tpot <= TPOT_SECONDS
