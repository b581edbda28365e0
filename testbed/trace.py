"""Recorded production traffic: when requests arrive, how long they and their answers are.

Rules of this module:

- Time is never compressed: a busier service is played by superposing copies of the trace, each shifted in
  time (and wrapped around at the end of the recording), which keeps burstiness and lengths as recorded.
- Shifts come from a seeded generator: the same call gives the same traffic.
"""

import csv
import gzip
import heapq
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path

__all__ = [
    "AZURE_2023_CONVERSATION",
    "Stage",
    "TraceError",
    "TraceRequest",
    "load_azure",
    "stage",
    "superpose",
]

AZURE_2023_CONVERSATION = Path(__file__).parent / "traces" / "azure-llm-inference-2023-conv.csv.gz"


class TraceError(ValueError):
    """A trace cannot be read; the message names file and line."""


@dataclass(frozen=True, slots=True, order=True)
class TraceRequest:
    """One request of a trace.

    Attributes:
        arrival: seconds after the start of the trace.
        prompt_tokens: length of the prompt.
        output_tokens: length of the answer.
    """

    arrival: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Stage:
    """From `start` (seconds) on, `copies` of the trace play at once."""

    start: float
    copies: int


def load_azure(path: Path = AZURE_2023_CONVERSATION) -> tuple[TraceRequest, ...]:
    """Read a trace in the format of Azure's LLM inference traces 2023 (CSV, may be gzipped).

    Requests without a prompt or without an answer (cancelled ones) are left out: an engine has nothing to do.

    Raises:
        TraceError: a line cannot be read.
    """
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    rows = csv.DictReader(io.StringIO(text, newline=""))
    requests: list[TraceRequest] = []
    first: datetime | None = None
    for row in rows:
        try:
            at, prompt, output = (
                _timestamp(row["TIMESTAMP"]),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path}, line {rows.line_num}: {error!r}") from None
        first = first or at
        if prompt > 0 and output > 0:
            requests.append(TraceRequest((at - first).total_seconds(), prompt, output))
    return tuple(sorted(requests))


def _timestamp(text: str) -> datetime:
    # Seven digits after the point: a hundred nanoseconds, one more than Python's microseconds.
    return datetime.strptime(text[:26], "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007 - only differences count


def superpose(
    trace: Sequence[TraceRequest],
    *,
    copies: int | None = None,
    shifts: Sequence[float] | None = None,
    window: tuple[float, float] | None = None,
    seed: int = 0,
) -> list[TraceRequest]:
    """Play several time-shifted copies of a trace at once.

    Args:
        trace: in order of arrival.
        copies: how many, at shifts drawn with `seed`; or
        shifts: the shift of each copy, seconds.
        window: keep arrivals from start to before end, seconds, and count time from start; default: all.
        seed: of the shifts.

    Raises:
        ValueError: neither or both of `copies` and `shifts` are given, or the trace is empty.
    """
    if (copies is None) == (shifts is None):
        raise ValueError("give either the number of copies or their shifts")
    chosen = _shifts(trace, copies, seed) if copies is not None else list(shifts or ())
    start, end = window or (0.0, _duration(trace))
    return [
        TraceRequest(request.arrival - start, request.prompt_tokens, request.output_tokens)
        for request in heapq.merge(*(_copy(trace, shift, start, end) for shift in chosen))
    ]


def stage(
    trace: Sequence[TraceRequest], stages: Sequence[Stage], duration: float, *, seed: int = 0
) -> list[TraceRequest]:
    """Play a number of copies that changes from stage to stage: a day's ups and downs, in recorded traffic.

    A copy that plays in several stages plays on; it is not started again.

    Args:
        trace: in order of arrival.
        stages: in order of their starts.
        duration: when the last stage ends, seconds.
        seed: of the copies' shifts.
    """
    shifts = _shifts(trace, max((one.copies for one in stages), default=0), seed)
    ends = [one.start for one in stages[1:]] + [duration]
    parts = [
        _copy(trace, shift, one.start, end)
        for one, end in zip(stages, ends, strict=True)
        for shift in shifts[: one.copies]
    ]
    return list(heapq.merge(*parts))


def _duration(trace: Sequence[TraceRequest]) -> float:
    """Length of the recording, seconds: to just after its last arrival."""
    if not trace:
        raise ValueError("the trace is empty")
    return trace[-1].arrival + 1e-6


def _shifts(trace: Sequence[TraceRequest], copies: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    length = _duration(trace)
    return [generator.uniform(0, length) for _ in range(copies)]


def _copy(trace: Sequence[TraceRequest], shift: float, start: float, end: float) -> Iterable[TraceRequest]:
    """One copy's arrivals in [start, end): the recording played in a loop, `shift` seconds into it."""
    return takewhile(lambda request: request.arrival < end, _loop(trace, shift, start))


def _loop(trace: Sequence[TraceRequest], shift: float, start: float) -> Iterator[TraceRequest]:
    length = _duration(trace)
    lap = int((start + shift) // length)
    while True:
        base = lap * length - shift
        for request in trace:
            if base + request.arrival >= start:
                yield TraceRequest(base + request.arrival, request.prompt_tokens, request.output_tokens)
        lap += 1
