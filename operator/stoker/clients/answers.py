"""What Prometheus sends, read: an instant vector or a matrix, or why there is none.

Rules of this module:

* Sans I/O, and it raises nothing: what is malformed is a ``Failed`` with the reason in words.
* NaN and ±Inf are values that Prometheus may give, as texts; they are passed on as such.
* JSON is what orjson takes, in half of the time of ``json.loads``: RFC 8259 in UTF-8, 1,024 levels deep. A
  bare NaN or Infinity, a number beyond all floats and half a surrogate pair are no JSON.
* A tick brings ten answers with a sample of each pod: equal texts are kept once, and nothing twice.

Source of the format: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

import orjson

from stoker.core.signals import Answer, Failed, Sample, Samples

MAX_WHY = 300
"""Characters of a server's words that are kept."""

T = TypeVar("T")

Body: TypeAlias = bytes | bytearray
"""As it came, decompressed."""


@dataclass(frozen=True, slots=True)
class Span:
    """Evenly spaced instants: ``start``, then every ``step`` seconds up to ``end``, both included."""

    start: float
    """Unix s."""
    end: float
    """Unix s."""
    step: float
    """Seconds, more than 0."""

    @property
    def count(self) -> int:
        """How many instants there are."""
        return math.floor((self.end - self.start) / self.step + 1e-6) + 1

    def at(self, number: int) -> float:
        """The instant with this number, from 0."""
        return self.start + number * self.step


@dataclass(frozen=True, slots=True)
class Course:
    """One series of a matrix: its value at some of the instants asked for."""

    labels: Mapping[str, str]
    values: Mapping[int, float]
    """By the number of the instant, from 0; an instant without a sample is absent."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Prometheus answered for a stretch of time; there may be no series."""

    courses: tuple[Course, ...]
    warnings: tuple[str, ...] = ()
    """Prometheus' own, e.g. that a remote store gave only part of the data."""


def read(status: int, body: Body) -> Answer:
    """The samples of a response to an instant query, or why there are none."""
    return _read(status, body, lambda answer: Samples(_vector(answer.get("data")), _warnings(answer)))


def read_range(span: Span, status: int, body: Body) -> Matrix | Failed:
    """The series of a response to a range query over ``span``, or why there are none."""
    return _read(status, body, lambda answer: Matrix(_matrix(answer.get("data"), span), _warnings(answer)))


def _read(status: int, body: Body, made_of: Callable[[Mapping[str, Any]], T]) -> T | Failed:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        why = f"a body that is no JSON: {short(body[:80])} ({error.msg}, character {error.pos})"
        return Failed(f"HTTP {status} with {why}", unreachable=True)
    try:
        return _refusal(status, answer) or made_of(answer)
    except (ValueError, OverflowError, RecursionError) as error:  # the last: nested too deeply to be quoted
        return Failed(f"malformed answer: {short(error)}", unreachable=False)


def _refusal(status: int, answer: Any) -> Failed | None:
    """Why an answer is none, in Prometheus' own words if they are; None when it is one."""
    outcome = answer.get("status") if isinstance(answer, dict) else None
    if outcome not in ("success", "error"):  # a tuple: a set would ask for the hash of whatever came
        return Failed(f"HTTP {status} with JSON that is not Prometheus's", unreachable=True)
    if outcome == "error" or status != 200:
        kind, message = answer.get("errorType", "error"), answer.get("error", "")
        return Failed(f"HTTP {status}, {short(f'{kind}: {message}')}", unreachable=status in {401, 403})
    return None


def _result(data: Any, expected: str, words: str) -> list[Any]:
    if not isinstance(data, dict):
        raise ValueError("no data")  # noqa: TRY004 - every defect of the answer is a ValueError here
    kind, result = data.get("resultType"), data.get("result")
    if kind != expected or not isinstance(result, list):
        raise ValueError(f"resultType {kind!r} where {words} was expected")
    return result


def _vector(data: Any) -> tuple[Sample, ...]:
    """All samples, column by column: a tick reads tens of thousands, and looks at none of them by itself."""
    result = _result(data, "vector", "an instant vector")
    if not result:
        return ()
    columns = _columns(result)
    if columns is None or not _shared(columns[0]):
        raise ValueError(next(filter(None, map(_defect, result))))
    labels, moments, texts = columns
    result.clear()  # what was decoded is larger than the samples: it goes before they come
    return tuple(map(_SAMPLE, zip(labels, list(map(float, texts)), _times(moments), strict=True)))


_SAMPLE = partial(tuple.__new__, Sample)
"""A sample of a tuple of its fields: ``Sample._make`` without a frame of Python's for each."""


def _times(moments: Sequence[float]) -> Sequence[float]:
    """The same as floats, and as one where they are equal, as in every instant vector."""
    first = float(moments[0])
    return [first] * len(moments) if moments.count(first) == len(moments) else list(map(float, moments))


def _shared(labels: Sequence[dict[str, Any]]) -> bool:
    """Keep equal texts of labels once; whether they are texts.

    Once for all answers, and with the names that the store keeps: nine answers about 40,000 pods hold 99
    MiB instead of 177. With 4,000 pods it costs 15 ms of CPU per tick, what is won back by sorting samples by
    pod deducted: a text finds itself sooner than its equal.
    """
    intern = sys.intern
    try:
        for one in labels:
            for name, text in one.items():
                one[name] = intern(text)
    except TypeError:
        return False
    return True


def _matrix(data: Any, span: Span) -> tuple[Course, ...]:
    return tuple(_course(raw, span) for raw in _result(data, "matrix", "a matrix"))


def _course(raw: Any, span: Span) -> Course:
    """One series. A week of a fleet has millions of points: each is looked at once, in one comprehension."""
    labels, points = (raw.get("metric"), raw.get("values")) if isinstance(raw, dict) else (None, None)
    if not isinstance(points, list):
        native = isinstance(raw, dict) and "histograms" in raw
        why = "a native histogram where a number was expected" if native else f"no series: {raw!r}"
        raise ValueError(why)  # noqa: TRY004 - every defect of the answer is a ValueError here
    if not isinstance(labels, dict) or not _TEXT.issuperset(map(type, labels.values())):
        raise ValueError(f"labels that are no text: {labels!r}")
    start, step = span.start - span.step / 2, span.step
    try:
        values = {int((at - start) / step): float(text) for at, text in points}
    except TypeError as error:
        raise ValueError(f"no points: {error}") from error
    if values and not 0 <= min(values) <= max(values) < span.count:
        raise ValueError("points outside of the time that was asked for")
    return Course(labels, values)


_LABELS, _POINT = itemgetter("metric"), itemgetter("value")


def _columns(result: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]] | None:
    """Labels, times and values as they were written; None when an element is no sample."""
    try:
        labels, points = list(map(_LABELS, result)), list(map(_POINT, result))
        moments, texts = zip(*points, strict=True)
    except (KeyError, TypeError, ValueError):
        return None
    sound = (
        {dict}.issuperset(map(type, labels))
        and {list}.issuperset(map(type, points))
        and _TEXT.issuperset(map(type, texts))
        and _NUMBER.issuperset(map(type, moments))
    )
    return (labels, moments, texts) if sound else None


def _defect(raw: Any) -> str:
    """What is wrong with one element of a vector; empty when it is a sample."""
    labels, point = (raw.get("metric"), raw.get("value")) if isinstance(raw, dict) else (None, None)
    if not isinstance(labels, dict) or not isinstance(point, list) or len(point) != 2:
        if isinstance(raw, dict) and "histogram" in raw:
            return "a native histogram where a number was expected"
        return f"no sample: {raw!r}"
    at, value = point
    if type(at) not in _NUMBER or not isinstance(value, str):
        return f"no sample: {raw!r}"
    return "" if _TEXT.issuperset(map(type, labels.values())) else f"labels that are no text: {labels!r}"


_TEXT, _NUMBER = frozenset({str}), frozenset({int, float})


def _warnings(answer: Mapping[str, Any]) -> tuple[str, ...]:
    raw = answer.get("warnings")
    if raw is None:
        return ()
    if not isinstance(raw, list):
        return (short(raw),)
    return tuple(short(warning) for warning in raw)


def short(what: object) -> str:
    """Words of a server or of an error on one line, cut where they are long."""
    text = what.decode(errors="replace") if isinstance(what, bytes | bytearray) else str(what)
    text = " ".join(text.split())
    return text if len(text) <= MAX_WHY else f"{text[: MAX_WHY - 1]}…"
