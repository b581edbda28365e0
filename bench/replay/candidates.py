"""Who is compared, and with which settings: Stoker's ways to be set up beside the rivals.

Rules of this module:

* Stoker has the budget that everybody has (`bench.replay.candidate`).
* ``stoker, min and max only`` is the ModelDeployment of a user who has measured nothing and states nothing.
"""

from __future__ import annotations

from bench.replay.candidate import FACTORS, FINE, Candidate, Choice, Context
from bench.replay.policies.stoker import Stoker, deployment
from bench.replay.rivals import FACTOR, RIVALS
from bench.replay.view import Policy

__all__ = ["CANDIDATES", "FACTORS", "FINE", "Candidate", "Choice", "Context", "candidate"]


def _stoker_defaults(context: Context, _: float) -> Policy:
    return Stoker(deployment(context.minimum, context.maximum))


def _stoker_utilization(context: Context, utilization: float) -> Policy:
    capacity = round(context.capacity.weighted)
    targets = {"utilization": utilization}
    return Stoker(deployment(context.minimum, context.maximum, tokens_per_second=capacity, targets=targets))


def _stoker_learned(context: Context, utilization: float) -> Policy:
    """``utilization`` alone: the capacity is learned."""
    return Stoker(deployment(context.minimum, context.maximum, targets={"utilization": utilization}))


def _stoker_in_flight(context: Context, factor: float) -> Policy:
    targets = {"concurrentRequests": max(1, round(context.capacity.in_flight * factor))}
    return Stoker(deployment(context.minimum, context.maximum, targets=targets))


def _stoker_both(context: Context, factor: float) -> Policy:
    """Tokens and requests in flight; the latter at its full measure, as a guard."""
    targets = {"utilization": factor, "concurrentRequests": max(1, round(context.capacity.in_flight))}
    capacity = round(context.capacity.weighted)
    return Stoker(deployment(context.minimum, context.maximum, tokens_per_second=capacity, targets=targets))


_UTILIZATIONS = (*tuple(factor for factor in FINE if factor <= 1), 1.0)

STOKER: tuple[Candidate, ...] = (
    Candidate("stoker, min and max only", "none", (0,), _stoker_defaults, default=Choice(0.0)),
    Candidate("stoker utilization, learned", "utilization", _UTILIZATIONS, _stoker_learned),
    Candidate("stoker utilization", "utilization", _UTILIZATIONS, _stoker_utilization),
    Candidate("stoker concurrentRequests", FACTOR, FINE, _stoker_in_flight),
    Candidate("stoker utilization and concurrentRequests", "utilization", _UTILIZATIONS, _stoker_both),
)

CANDIDATES: tuple[Candidate, ...] = (*RIVALS, *STOKER)


def candidate(name: str) -> Candidate:
    """The candidate of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    found = next((c for c in CANDIDATES if c.name == name), None)
    if found is None:
        raise ValueError(f"policy {name!r} is not known; known are: {'; '.join(c.name for c in CANDIDATES)}")
    return found
