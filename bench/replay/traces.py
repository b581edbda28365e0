"""Traffic beyond the trace that the project carries: made here, or read from files that the user has.

Rules of this module:

* Time is never compressed; a busier service is superposed copies, shifted in time.
* Sources: Mooncake's conversation trace (kvcache-ai/Mooncake, FAST25-release/traces, Apache-2.0); ServeGen's
  m-large (alibaba/ServeGen, Apache-2.0): rates per client and 600 s, arrivals drawn from the fitted family.
"""

from __future__ import annotations

import ast
import csv
import heapq
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from testbed.trace import TraceError, TraceRequest

LONGEST = 250_000
"""Tokens of prompt and answer together: longer requests do not fit a replica of the smallest model."""

MOONCAKE_STEP_SECONDS = 3.0
"""Mooncake's timestamps come in steps of 3 s: each request is put somewhere within its step."""

SERVEGEN_WINDOW_SECONDS = 600.0
SERVEGEN_LENGTHS_SECONDS = 21_600


def poisson(
    rate: float, start: float, end: float, lengths: tuple[int, int], *, seed: int
) -> list[TraceRequest]:
    """Poisson arrivals with lengths uniform within ± 25 % of (prompt, output) tokens.

    Args:
        rate: requests per second.
        start: seconds.
        end: seconds.
        lengths: mean prompt and output tokens.
        seed: of the one generator.
    """
    draw = random.Random(seed)
    prompt, output = lengths
    found = []
    at = start + draw.expovariate(rate)
    while at < end:
        sizes = [max(1, round(mean * draw.uniform(0.75, 1.25))) for mean in (prompt, output)]
        found.append(TraceRequest(at, sizes[0], sizes[1]))
        at += draw.expovariate(rate)
    return found


def load_mooncake(path: Path, *, seed: int = 0) -> tuple[TraceRequest, ...]:
    """Mooncake's conversation trace; prefix-cache hits are not modelled, so every prompt is computed whole.

    Raises:
        TraceError: a line cannot be read.
    """
    draw = random.Random(seed)
    requests = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            at = row["timestamp"] / 1000 + draw.uniform(0, MOONCAKE_STEP_SECONDS)
            request = TraceRequest(at, int(row["input_length"]), int(row["output_length"]))
        except (ValueError, KeyError, TypeError) as error:
            raise TraceError(f"{path}, line {number}: {error!r}") from None
        if request.prompt_tokens > 0 and request.output_tokens > 0 and _fits(request):
            requests.append(request)
    return tuple(sorted(requests))


def _fits(request: TraceRequest) -> bool:
    return request.prompt_tokens + request.output_tokens <= LONGEST


# --- ServeGen ------------------------------------------------------------------------------------


class _Lengths:
    """A length distribution: tokens and their cumulated weights."""

    def __init__(self, probabilities: Mapping[int, float]) -> None:
        self._tokens = [max(1, int(tokens)) for tokens in probabilities]
        self._weights = list(accumulate(probabilities.values()))

    def draw(self, generator: random.Random) -> int:
        return generator.choices(self._tokens, cum_weights=self._weights)[0]


@dataclass(frozen=True, slots=True)
class _Window:
    start: float
    rate: float
    family: str
    shape: float


def load_servegen(folder: Path, *, share: float, days: tuple[int, int], seed: int = 0) -> list[TraceRequest]:
    """Draw requests of ServeGen's clients; synthetic below ten minutes, lengths independent of arrivals.

    Args:
        folder: with ``chunk-N-trace.csv`` and ``chunk-N-dataset.json``.
        share: of each client's rate that is kept: the clients keep their shapes.
        days: first and last, from 1 on.
        seed: of the generators, one per client.

    Raises:
        TraceError: the folder has no such files.
    """
    files = sorted(folder.glob("chunk-*-trace.csv"), key=_client)
    if not files:
        raise TraceError(f"{folder} has no chunk-*-trace.csv: name the folder of ServeGen's clients")
    lengths = {_client(file): _load_lengths(file) for file in files}
    pool = [known for known in lengths.values() if known]
    start, end = (days[0] - 1) * 86_400.0, days[1] * 86_400.0
    streams = []
    for file in files:
        number = _client(file)
        draw = random.Random(f"{seed}/client/{number}")
        known = lengths[number] or draw.choice(pool)
        streams.append(_client_requests(_load_windows(file, start, end, share), known, draw, start))
    return list(heapq.merge(*streams))


def _client(file: Path) -> int:
    return int(file.name.split("-")[1])


def _load_windows(file: Path, start: float, end: float, share: float) -> list[_Window]:
    windows = []
    with file.open(newline="") as rows:
        for row in csv.reader(rows):
            at, rate = float(row[0]), float(row[1]) * share
            if start <= at < end and rate > 0 and row[3]:
                windows.append(_Window(at, rate, row[3], float(row[4])))
    return windows


def _load_lengths(trace: Path) -> dict[int, tuple[_Lengths, _Lengths]]:
    """(prompt, output) distributions by the second from which they hold; empty for a client without any."""
    file = trace.with_name(trace.name.replace("-trace.csv", "-dataset.json"))
    if not file.exists():
        return {}
    found = {}
    for start, texts in json.loads(file.read_text()).items():
        pair = [ast.literal_eval(texts.get(name) or "{}") for name in ("input_tokens", "output_tokens")]
        if all(pair):
            found[int(start)] = (_Lengths(pair[0]), _Lengths(pair[1]))
    return found


def _client_requests(
    windows: Sequence[_Window],
    lengths: Mapping[int, tuple[_Lengths, _Lengths]],
    draw: random.Random,
    origin: float,
) -> Iterator[TraceRequest]:
    """A renewal process that runs on from window to window, at each one's rate.

    ``due`` is the next arrival's distance in mean gaps. Begun anew in every window, a bursty client of less
    than a request per window would send far too many: most of its gaps are short.
    """
    due = draw.random() * _gap(windows[0], draw) if windows else 0.0
    for window in windows:
        at = window.start + due / window.rate
        while at < window.start + SERVEGEN_WINDOW_SECONDS:
            prompt, output = _at(lengths, at)
            request = TraceRequest(at - origin, prompt.draw(draw), output.draw(draw))
            if _fits(request):
                yield request
            at += _gap(window, draw) / window.rate
        due = (at - window.start - SERVEGEN_WINDOW_SECONDS) * window.rate


def _gap(window: _Window, draw: random.Random) -> float:
    """Between two requests, in mean gaps: the fitted family's shape."""
    if window.family == "Weibull":
        return draw.weibullvariate(1 / math.gamma(1 + 1 / window.shape), window.shape)
    return draw.gammavariate(window.shape, 1 / window.shape)


def _at(lengths: Mapping[int, tuple[_Lengths, _Lengths]], at: float) -> tuple[_Lengths, _Lengths]:
    start = int(at) // SERVEGEN_LENGTHS_SECONDS * SERVEGEN_LENGTHS_SECONDS
    return lengths[start] if start in lengths else lengths[min(lengths, key=lambda known: abs(known - at))]
