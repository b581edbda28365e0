"""Who is compared, and with which settings: Stoker's ways to be set up beside the rivals.

Rules of this module:

* Stoker has the budget that everybody has (`bench.replay.candidate`), and beside ``utilization`` the second
  knob that the HPAs have: how long it waits before it goes down.
* ``stoker, min and max only`` is the ModelDeployment of a user who has measured nothing and states nothing.
"""

from __future__ import annotations

from bench.replay.candidate import FACTORS, FINE, Candidate, Choice, Context, Make
from bench.replay.policies.stoker import Stoker, deployment
from bench.replay.rivals import FACTOR, RIVALS, SHORTER
from bench.replay.view import Policy

__all__ = ["CANDIDATES", "FACTORS", "FINE", "Candidate", "Choice", "Context", "candidate"]


def _stoker_defaults(context: Context, _: float) -> Policy:
    return Stoker(deployment(context.minimum, context.maximum))


def _utilization(*, stated: bool, windows: dict[str, str] | None = None) -> Make:
    """``utilization`` of a capacity that is ``stated``, as it was measured, or else learned."""

    def make(context: Context, utilization: float) -> Policy:
        capacity = round(context.capacity.weighted) if stated else None
        bounds, targets = (context.minimum, context.maximum), {"utilization": utilization}
        return Stoker(deployment(*bounds, tokens_per_second=capacity, targets=targets, windows=windows))

    return make


def _stoker_in_flight(context: Context, factor: float) -> Policy:
    targets = {"concurrentRequests": max(1, round(context.capacity.in_flight * factor))}
    return Stoker(deployment(context.minimum, context.maximum, targets=targets))


def _stoker_both(context: Context, factor: float) -> Policy:
    """Tokens and requests in flight; the latter at its full measure, as a guard."""
    targets = {"utilization": factor, "concurrentRequests": max(1, round(context.capacity.in_flight))}
    capacity = round(context.capacity.weighted)
    return Stoker(deployment(context.minimum, context.maximum, tokens_per_second=capacity, targets=targets))


_UTILIZATIONS = (0.5, 0.65, 0.8, 0.9, 1.0)
_GUARDED = (*tuple(factor for factor in FINE if factor <= 1), 1.0)
_SHORTER_WINDOW = {"down": "2m"}


def _swept(name: str, *, stated: bool) -> Candidate:
    shorter = {SHORTER: _utilization(stated=stated, windows=_SHORTER_WINDOW)}
    return Candidate(name, "utilization", _UTILIZATIONS, _utilization(stated=stated), shorter)


STOKER: tuple[Candidate, ...] = (
    Candidate("stoker, min and max only", "none", (0,), _stoker_defaults, default=Choice(0.0)),
    _swept("stoker utilization, learned", stated=False),
    _swept("stoker utilization", stated=True),
    Candidate("stoker concurrentRequests", FACTOR, FINE, _stoker_in_flight),
    Candidate("stoker utilization and concurrentRequests", "utilization", _GUARDED, _stoker_both),
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
