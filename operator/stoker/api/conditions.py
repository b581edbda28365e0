"""Condition types, how they are set, and which of them make up `Ready`.

`lastTransitionTime` moves only when the status flips. Unknown is not False: a condition that was never set is
Unknown, and what cannot be known never makes a fleet look broken. `Ready` stands for what users get, so
neither metrics nor a wish for more GPUs than the minimum needs touch it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stoker.api.reasons import GUIDES, Reason
from stoker.api.v1alpha1 import Condition, ConditionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ConditionType",
    "Reason",
    "find",
    "ready_condition",
    "reference_markdown",
    "set_condition",
]


class ConditionType(StrEnum):
    """The aspects of a ModelDeployment, in the order in which they are shown."""

    ACCEPTED = "Accepted"
    CAPACITY_GRANTED = "CapacityGranted"
    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    SCALING_ACTIVE = "ScalingActive"
    READY = "Ready"


_TRUE_WHEN: Final[Mapping[ConditionType, str]] = {
    ConditionType.ACCEPTED: "the spec can be acted on",
    ConditionType.CAPACITY_GRANTED: "every replica that is asked for has its GPUs",
    ConditionType.PROGRESSING: "replicas are starting, draining or being replaced",
    ConditionType.AVAILABLE: "at least the minimum of replicas serves",
    ConditionType.SCALING_ACTIVE: "signals are fresh and decisions are being carried out",
    ConditionType.READY: "`Accepted` and `Available` are True; its reason is the most actionable cause",
}
_ORDER: Final = {str(kind): place for place, kind in enumerate(ConditionType)}

# What Available says when the replicas that lack are simply not there: then the cause is why they are not.
_VAGUE: Final = frozenset({Reason.NO_READY_REPLICA, Reason.STARTING, Reason.UNSCHEDULABLE})


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Return the condition of this type, or None when it was never set."""
    for condition in conditions:
        if condition.type == kind:
            return condition
    return None


def set_condition(previous: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """Return the conditions with `new` in the place of the one of its type, in the order of `ConditionType`.

    `new.last_transition_time` is when `new` was observed; it is kept only if the status differs from before.
    """
    old = find(previous, new.type)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    others = [condition for condition in previous if condition.type != new.type]
    return tuple(sorted([*others, new], key=lambda condition: _ORDER.get(condition.type, len(_ORDER))))


def ready_condition(conditions: Sequence[Condition]) -> tuple[ConditionStatus, str, str]:
    """Return status, reason and message of `Ready`.

    A fleet is ready when its spec is accepted and its minimum serves. A minimum that serves has its GPUs, so
    `CapacityGranted=False` beside `Available=True` says that the fleet cannot grow, which is worth a word and
    no alarm; beside `Available=False` it is usually the cause.
    """
    accepted = find(conditions, ConditionType.ACCEPTED)
    capacity = find(conditions, ConditionType.CAPACITY_GRANTED)
    available = find(conditions, ConditionType.AVAILABLE)
    cause = _cause(accepted, capacity, available)
    if cause is not None:
        return cause.status, cause.reason, cause.message
    if accepted is None or available is None:
        missing = ConditionType.ACCEPTED if accepted is None else ConditionType.AVAILABLE
        return ConditionStatus.UNKNOWN, Reason.NOT_OBSERVED, f"{missing} is not known yet"
    short = capacity is not None and capacity.status is ConditionStatus.FALSE
    addition = f"; it cannot grow: {capacity.message}" if capacity is not None and short else ""
    return ConditionStatus.TRUE, available.reason, f"{available.message.rstrip('.')}{addition}"


def _cause(
    accepted: Condition | None, capacity: Condition | None, available: Condition | None
) -> Condition | None:
    """Return the condition that keeps the fleet from being ready: a False one first, then an Unknown one."""
    if accepted is not None and accepted.status is ConditionStatus.FALSE:
        return accepted
    if available is not None and available.status is ConditionStatus.FALSE:
        short = capacity is not None and capacity.status is ConditionStatus.FALSE
        return capacity if short and available.reason in _VAGUE else available
    for condition in (accepted, available):
        if condition is not None and condition.status is ConditionStatus.UNKNOWN:
            return condition
    return None


def reference_markdown() -> str:
    """Return `docs/reference/conditions.md`."""
    lines = [
        "# Conditions and their reasons",
        "",
        "`kubectl describe modeldeployment <name>` shows the conditions; the column `REASON` of",
        "`kubectl get` is that of `Ready`. Each condition is True, False or Unknown. Unknown is not False:",
        "it means that Stoker cannot tell. `lastTransitionTime` moves only when the status changes.",
        "Reasons are stable: alerts can match on them.",
        "",
        "| Condition | True when |",
        "|---|---|",
        *(f"| `{kind}` | {text} |" for kind, text in _TRUE_WHEN.items()),
        "",
        "## Reasons",
    ]
    for reason, guide in sorted(GUIDES.items()):
        lines += ["", f"### {reason}", "", guide.means, ""]
        lines += [f"- **Check:** {guide.check}", f"- **Do:** {guide.do}"]
    return "\n".join(lines) + "\n"
