"""Demand that no replica tells of: the user's own signals, and requests held in an inference gateway.

Rules of this module:

* These readings are of the fleet as a whole: they are there when nothing serves, and wake a fleet at zero.
* A query that gives no element, several, or no number is Missing, with the reason in words; never zero.
* What a gateway holds comes on top of what the replicas have in flight. Where that is unknown, what it holds
  is a lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from stoker.api.queries import CustomSignal
from stoker.api.v1alpha1 import Freshness
from stoker.core.demand import ANSWERS_LAST, Demand
from stoker.core.faces import DEFAULT_CONCURRENT_REQUESTS, OCCUPIED, Face, in_flight, needed, shown
from stoker.core.readings import Fresh, Key, Metrics, Missing, Reading, Stale
from stoker.core.signals import MOST, Answer, Failed

IN_FLIGHT = "requests"
"""Unit of the faces that count requests in flight."""

NOT_ASKED = Missing("the query was not answered yet")


def added(
    faces: Sequence[Face],
    signals: Sequence[CustomSignal],
    metrics: Metrics,
    deployment: Key,
    measured: Demand,
    now: float,
) -> tuple[Face, ...]:
    """The replicas' faces, with what a gateway holds on top, and a face for each signal.

    Args:
        faces: From ``faces_of``.
        signals: Of the spec.
        metrics: All readings of this tick.
        deployment: Whose faces they are.
        measured: What ``faces`` were made of.
        now: Unix s.
    """
    held = metrics.held.get(deployment)
    return (*with_held(faces, held, measured, now), *faces_of_signals(signals, metrics, now))


def reading(answer: Answer, at: float) -> Reading:
    """What the answer to a user's query says, at ``at`` (Unix s)."""
    if isinstance(answer, Failed):
        return Missing(f"Prometheus: {answer.why}")
    if not answer.samples:
        return Missing("the query gives no element: is the series there, and are its labels right?")
    if len(answer.samples) > 1:
        many = len(answer.samples)
        return Missing(f"the query gives {many} elements where one is expected: aggregate it, as in sum(…)")
    value = answer.samples[0].value
    if not 0 <= value <= MOST:  # NaN is not either
        return Missing(f"the query gives {value}, which is no load")
    # A part of the data, as Prometheus warns, is a lower bound.
    return Stale(value, at) if answer.warnings else Fresh(value, at)


def faces_of_signals(signals: Sequence[CustomSignal], metrics: Metrics, now: float) -> tuple[Face, ...]:
    """The answer of each signal of the spec, in its order."""
    return tuple(
        _face(signal, _aged(metrics.signals.get(signal.query, NOT_ASKED), now)) for signal in signals
    )


def _face(signal: CustomSignal, said: Reading) -> Face:
    name = f"signals[{signal.name}]"
    if isinstance(said, Missing):
        return Face(
            name=name,
            unit=signal.unit,
            value=None,
            target=signal.target,
            replicas=0,
            complete=False,
            blind=True,
            message=said.why,
            freshness=Freshness.MISSING,
            expected=1,
            whole=True,
        )
    fresh = isinstance(said, Fresh)
    replicas = needed(said.value, signal.target)
    per_replica = f"{shown(said.value)} {signal.unit} at {shown(signal.target)} per replica needs {replicas}"
    return Face(
        name=name,
        unit=signal.unit,
        value=said.value,
        target=signal.target,
        replicas=replicas,
        complete=fresh,
        blind=False,
        message=per_replica if fresh else f"{per_replica} at least: Prometheus has only a part of the data",
        freshness=Freshness.FRESH if fresh else Freshness.STALE,
        covered=int(fresh),
        expected=1,
        whole=True,
    )


def _aged(said: Reading, now: float) -> Reading:
    """The reading; Missing when it is too long ago, or in the future, to be acted on."""
    if isinstance(said, Missing) or abs(now - said.at) <= ANSWERS_LAST:
        return said
    return Missing(f"the query was answered last {now - said.at:.0f} s ago")


# --- Requests that a gateway holds ---------------------------------------------------------------


def with_held(faces: Sequence[Face], said: Reading | None, measured: Demand, now: float) -> tuple[Face, ...]:
    """The faces, those of requests in flight with what a gateway holds on top.

    Args:
        faces: From ``faces_of``. Where none of them counts requests in flight, one is added.
        said: Requests held; None when there is no gateway.
        measured: What ``faces`` were made of.
        now: Unix s.
    """
    if said is None:
        return tuple(faces)
    said = _aged(said, now)
    if isinstance(said, Missing):
        return tuple(_uncertain(face, said.why) for face in faces)
    if said.value <= 0:
        return tuple(faces)
    if not any(_counts(face) for face in faces):
        faces = [*faces, in_flight("heldRequests", measured, DEFAULT_CONCURRENT_REQUESTS)]
    return tuple(_on_top(face, said) if _counts(face) else face for face in faces)


def _counts(face: Face) -> bool:
    """Whether it divides requests by what a replica holds, and does not just ask if there are any."""
    return face.unit == IN_FLIGHT and face.name != OCCUPIED


def _on_top(face: Face, said: Fresh | Stale) -> Face:
    """The face with the requests held; blind no more where there was no replica to ask."""
    if face.blind and face.expected > 0:
        return face
    value = said.value + (face.value or 0.0)
    replicas = needed(value + face.headroom, face.target)
    complete = face.complete and isinstance(said, Fresh)
    message = f"{shown(value)} {face.unit}, {shown(said.value)} of them held in the inference gateway,"
    message += f" at {shown(face.target)} per replica needs {replicas}"
    return face._replace(
        value=value,
        replicas=replicas,
        complete=complete,
        blind=False,
        message=message if complete else f"{message} at least",
        whole=face.whole or face.expected == 0,
    )


def _uncertain(face: Face, why: str) -> Face:
    """The face when nobody knows whether a gateway holds requests: it shrinks nothing."""
    if not face.complete:
        return face
    told = f"{face.message}; requests held in a gateway are unknown: {why}"
    return face._replace(complete=False, message=told)
