"""From faces to a replica count: windows, bounds, and what to do when nothing is known.

Rules of this module (each is a property test):

* Missing and stale readings never lower the count. Going down needs a whole window of complete
  evidence; an outage breaks the window, so the first answers after it cannot shrink anything.
* Up: the demand must persist for ``windows.up``; a burst of at least twice the current count goes at once,
  and so does the first replica of a fleet at zero.
* Down: the highest load of ``windows.down`` wins, those of incomplete signals included, and some room stays
  free on what is left of the fleet, so that noise does not turn it round; to zero only after
  ``windows.toZero`` of zeros.
* The result stays within the bounds, and bounds act at once. Every result says what limited it.
* The answer does not depend on how often it is computed: windows are stretches of time, not counts of ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

from stoker.api.v1alpha1 import OnMissingMetrics, Scaling
from stoker.core.faces import Face, needed
from stoker.core.observed import Memory, Proposal

MAX_GAP = 60.0
"""Seconds without complete evidence that a window survives: the last proposal is held that long."""

TOLERANCE = 0.1
"""Share of the load that stays free when replicas go: the tolerance of a HorizontalPodAutoscaler
(``--horizontal-pod-autoscaler-tolerance``), here in one direction alone, for a load above what there is is
to be carried."""

LEAST_TOLERANCE = 0.3
"""Replicas that stay free likewise: a tenth of a small fleet is less than its noise."""

BURST_RATIO = 2.0
"""Demand at this multiple of the current count skips the up window (Knative's panic threshold, 200 %:
knative/serving config/core/configmaps/autoscaler.yaml)."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many replicas the traffic asks for, and why."""

    replicas: int
    limited_by: str
    """The target, window, bound or policy that decided."""
    message: str
    memory: Memory


class _Asked(NamedTuple):
    """What the faces ask for now."""

    replicas: int
    face: Face | None
    complete: bool
    blind: Face | None
    present: Face | None
    """The highest without forecasts: these hold what they ask for by themselves, and are no evidence."""
    keep: int
    """What may not be gone below: the load of now with the tolerance on top."""


def recommend(
    scaling: Scaling, faces: Sequence[Face], memory: Memory, current: int, now: float
) -> Recommendation:
    """Decide the replica count of one ModelDeployment.

    Args:
        scaling: Bounds, windows and policy of the spec.
        faces: Every target's answer.
        memory: What earlier ticks proposed.
        current: The last decision.
        now: Unix s.
    """
    asked = _ask(faces)
    memory = _remember(memory, asked, now, _longest_window(scaling))
    wanted, limited_by, message = _decide(scaling, asked, memory, current, now)
    bounded, bound = _bound(scaling, wanted)
    if bound:
        limited_by, message = bound, f"{message}; {bound} is {bounded}"
    return Recommendation(bounded, limited_by, message, memory)


def initial(scaling: Scaling, existing: int | None) -> int:
    """The count to start from when status holds no decision: the running fleet, within the bounds.

    Args:
        scaling: Bounds of the spec.
        existing: Replicas that run; None for a fleet that never had one. That starts with one, even where
            ``minReplicas`` is 0: without a replica there is nothing to measure, so none would ever come.
    """
    return _bound(scaling, 1 if existing is None else existing)[0]


def first(scaling: Scaling, chosen: Recommendation) -> Recommendation:
    """The words for a first decision, made before there is anything to measure."""
    start = max(1, scaling.min_replicas)
    bound = "existing replicas"
    if chosen.replicas == start:
        bound = "minReplicas" if scaling.min_replicas else "the first replica"
    message = f"starts with {chosen.replicas}, until replicas serve and can be measured"
    return replace(chosen, limited_by=bound, message=message)


def _ask(faces: Sequence[Face]) -> _Asked:
    blind = _blind(faces)
    top = max(faces, key=lambda f: (f.replicas, not f.blind), default=None)
    complete = bool(faces) and all(f.complete for f in faces)
    now = [f for f in faces if not f.ahead]
    present = max(now, key=attrgetter("replicas"), default=None)
    keep = max([_keeps(f) for f in now], default=0)
    return _Asked(top.replicas if top else 0, top, complete, blind, present, keep)


def _keeps(face: Face) -> int:
    """Replicas that a face's load leaves some room on; what it asks for where it has no load."""
    load = face.load
    if not load:
        return face.replicas
    return max(face.replicas, needed(load + max(LEAST_TOLERANCE, TOLERANCE * load), 1.0))


def _blind(faces: Sequence[Face]) -> Face | None:
    """A face that nothing is known for, and should be.

    Where no replica serves there is none to ask: then what is known of the fleet as a whole counts alone, or
    nothing would ever wake a fleet at zero.
    """
    blind = [f for f in faces if f.blind]
    asked = next((f for f in blind if f.expected > 0), None)
    if asked is not None or not blind or any(f.whole and not f.blind for f in faces):
        return asked
    return blind[0]


def _decide(
    scaling: Scaling, asked: _Asked, memory: Memory, current: int, now: float
) -> tuple[int, str, str]:
    """(replicas, limited by, message) before bounds."""
    if asked.blind is not None and scaling.on_missing_metrics is OnMissingMetrics.HOLD:
        return current, "onMissingMetrics", f"held at {current}: {asked.blind.name}: {asked.blind.message}"
    if asked.face is None or (asked.blind is not None and asked.replicas <= current):
        blind = asked.blind.message if asked.blind else "no signal"
        return current, "onMissingMetrics", f"held at {current}: {blind}"
    if asked.replicas > current:
        return _up(scaling, asked, memory, current, now)
    if asked.replicas < current:
        return _down(scaling, asked, memory, current, now)
    return current, asked.face.name, asked.face.message


def _up(scaling: Scaling, asked: _Asked, memory: Memory, current: int, now: float) -> tuple[int, str, str]:
    assert asked.face is not None  # noqa: S101 - _decide has looked
    name, message = asked.face.name, asked.face.message
    burst = asked.present
    if burst is not None and burst.load >= BURST_RATIO * max(current, 1):
        return (
            burst.replicas,
            burst.name,
            f"{burst.message} (a burst: at least {BURST_RATIO:.0f}× the {current} wanted before)",
        )
    window = scaling.windows.up.seconds
    lowest = _extreme(memory.asked, now - window, now, min)
    if current == 0 and not lowest:
        return 1, name, f"{message}; the first replica starts at once: somebody may wait for it"
    if lowest is None or lowest <= current:
        return current, "windows.up", f"{message}; waiting for it to last {window:.0f} s"
    if lowest < asked.replicas:
        return lowest, "windows.up", f"{message}; {lowest} were needed throughout the last {window:.0f} s"
    return lowest, name, message


def _down(scaling: Scaling, asked: _Asked, memory: Memory, current: int, now: float) -> tuple[int, str, str]:
    assert asked.face is not None  # noqa: S101 - _decide has looked
    name, message = asked.face.name, asked.face.message
    if not asked.complete:
        return current, "onMissingMetrics", f"held at {current}: {_incomplete(asked, message)}"
    window = scaling.windows.down.seconds
    highest = _extreme(memory.evidence, now - window, now, max)
    if highest is None:
        return current, "windows.down", f"{message}; going down needs {window:.0f} s of uninterrupted metrics"
    if asked.keep >= current:
        return current, "tolerance", f"{message}; a replica goes when {TOLERANCE:.0%} stay free without it"
    if highest >= current:
        return current, "windows.down", f"{message}; {highest} were needed within the last {window:.0f} s"
    if highest < asked.replicas:
        return asked.replicas, name, message
    if highest > asked.replicas and highest >= scaling.min_replicas:
        return highest, "windows.down", f"{message}; {highest} were needed within the last {window:.0f} s"
    if highest > 0 or scaling.min_replicas > 0:
        return highest, name, message
    return _to_zero(scaling, memory, current, now, message)


def _to_zero(
    scaling: Scaling, memory: Memory, current: int, now: float, message: str
) -> tuple[int, str, str]:
    window = scaling.windows.to_zero.seconds
    if _extreme(memory.evidence, now - window, now, max) == 0:
        return 0, "windows.toZero", f"no demand for {window:.0f} s"
    return (
        min(current, 1),
        "windows.toZero",
        f"{message}; the last replica goes after {window:.0f} s without demand",
    )


def _incomplete(asked: _Asked, message: str) -> str:
    return f"{asked.blind.name}: {asked.blind.message}" if asked.blind else message


def _bound(scaling: Scaling, wanted: int) -> tuple[int, str]:
    if wanted < scaling.min_replicas:
        return scaling.min_replicas, "minReplicas"
    if wanted > scaling.max_replicas:
        return scaling.max_replicas, "maxReplicas"
    return wanted, ""


# --- Memory --------------------------------------------------------------------------------------


def _longest_window(scaling: Scaling) -> float:
    windows = scaling.windows
    longest = max(windows.up.seconds, windows.down.seconds)
    return longest if scaling.min_replicas > 0 else max(longest, windows.to_zero.seconds)


def _remember(memory: Memory, asked: _Asked, now: float, keep: float) -> Memory:
    evidence, seen = memory.evidence, memory.asked
    if asked.complete:
        evidence = _extend(evidence, asked.keep, now, keep, max)
    else:
        evidence = _raised(evidence, asked.keep)
    if asked.face is not None and (asked.blind is None or asked.replicas > 0):
        seen = _extend(seen, asked.replicas, now, keep, min)
    return memory._replace(evidence=evidence, asked=seen)


def _extend(
    stretches: tuple[Proposal, ...],
    replicas: int,
    now: float,
    keep: float,
    choose: Callable[[Iterable[int]], int],
) -> tuple[Proposal, ...]:
    """Append what is proposed now. The last proposal holds until now, unless the gap is too long.

    A clock that stepped back starts the memory anew: nothing in the future can be evidence. Windows end now,
    so a proposal that ``choose`` prefers this one to can never decide again, and melts into it: the memory is
    never longer than there are different proposals.
    """
    if stretches and not 0.0 <= now - stretches[-1].until <= MAX_GAP:
        stretches = ()
    if stretches:
        last = stretches[-1]
        stretches = (*stretches[:-1], Proposal(last.since, now, last.replicas))
    stretches = _melted(stretches, Proposal(now, now, replicas), choose)
    return tuple([s for s in stretches if s.until >= now - keep])


def _melted(
    stretches: tuple[Proposal, ...], last: Proposal, choose: Callable[[Iterable[int]], int]
) -> tuple[Proposal, ...]:
    since, left = last.since, len(stretches)
    while left and choose((last.replicas, stretches[left - 1].replicas)) == last.replicas:
        left -= 1
        since = stretches[left].since
    return (*stretches[:left], Proposal(since, last.until, last.replicas))


def _raised(stretches: tuple[Proposal, ...], replicas: int) -> tuple[Proposal, ...]:
    """A lower bound is no evidence for a low demand, but it is against one: the last proposal is no lower."""
    if not stretches:
        return ()
    *earlier, last = stretches
    return _melted(tuple(earlier), last._replace(replicas=max(replicas, last.replicas)), max)


def _extreme(
    stretches: Sequence[Proposal], since: float, now: float, choose: Callable[[Iterable[int]], int]
) -> int | None:
    """Lowest or highest proposal since then; None unless the evidence covers the time whole, up to now."""
    if not stretches or stretches[0].since > since or stretches[-1].until < now:
        return None
    return choose(s.replicas for s in stretches if s.until > since or s is stretches[-1])
