"""Records of the replica model.

`Request`, `Event`, `Counters` and `Steps` are what callers see; `Sequence` and `Run` are the engine's own.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import isqrt
from typing import NamedTuple, Protocol

__all__ = ["Counters", "Event", "EventKind", "Request", "Run", "Sequence", "StepObserver", "Steps"]


class EventKind(IntEnum):
    """What happened to a request; the value orders events of one instant."""

    FIRST_TOKEN = 0
    FINISHED = 1


@dataclass(slots=True, eq=False)
class Request:
    """One generation: what is asked for, and (filled in by the replica) when it happened.

    Attributes:
        id: a name for reports.
        prompt_tokens: length of the prompt, at least 1.
        output_tokens: tokens to generate, at least 1.
        submitted_ns: when the replica got it.
        scheduled_ns: start of the iteration that first worked on it.
        first_token_ns: end of the iteration that produced its first token.
        finished_ns: end of the iteration that produced its last token.
        preemptions: how often it lost its KV cache and was recomputed.
    """

    id: str | int
    prompt_tokens: int
    output_tokens: int
    submitted_ns: int | None = None
    scheduled_ns: int | None = None
    first_token_ns: int | None = None
    finished_ns: int | None = None
    preemptions: int = 0


class Event(NamedTuple):
    """A request's first token or its finish, at the end of the iteration that produced the token."""

    time_ns: int
    kind: EventKind
    request: Request


@dataclass(slots=True)
class Counters:
    """Cumulative counts since the replica was made.

    Attributes:
        prompt_tokens: prompts whose prefill completed, in tokens (vLLM counts a prompt at that moment).
        generated_tokens: tokens generated, counted at the end of every iteration.
        prefill_tokens: tokens that prefill computed, recomputation after a preemption included.
        iterations: engine steps.
        busy_ps: time spent in engine steps, picoseconds.
        finished: requests that produced their last token.
        cancelled: requests withdrawn by the caller.
        preemptions: sequences that lost their KV cache.
        inter_token_ps: between the tokens of a request, summed over all intervals, picoseconds.
        inter_tokens: how many such intervals there were.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefill_tokens: int = 0
    iterations: int = 0
    busy_ps: int = 0
    finished: int = 0
    cancelled: int = 0
    preemptions: int = 0
    inter_token_ps: int = 0
    inter_tokens: int = 0


class Steps(NamedTuple):
    """A run of iterations alike: the k-th (from 0) took ``first_ps + k·increment_ps``.

    Attributes:
        iterations: how many.
        decoding: sequences that got a token after their first in each of them.
        tokens: tokens per iteration as vLLM counts them: prompts completed plus tokens generated.
        first_ps: duration of the first iteration, picoseconds.
        increment_ps: growth of the duration from one iteration to the next, picoseconds.
    """

    iterations: int
    decoding: int
    tokens: int
    first_ps: int
    increment_ps: int


class StepObserver(Protocol):
    """Whoever wants histograms over iterations (the metrics); virtual-time callers pass none."""

    def on_steps(self, steps: Steps) -> None:
        """Iterations have completed."""

    def on_gap(self, duration_ps: int) -> None:
        """A preempted sequence got its next token this long after the one before."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request inside the engine. ``finish_step`` is -1 unless the sequence is decoding."""

    request: Request
    order: int
    target: int  # tokens to prefill: the prompt, plus what was generated before a preemption
    computed: int = 0  # of these, already computed
    generated: int = 0  # tokens generated when it last joined the decoding batch
    joined_step: int = 0
    finish_step: int = -1
    last_token_ps: int = 0  # kept only across a preemption
    cancelled: bool = False


@dataclass(slots=True)
class Run:
    """Iterations under way: ``count`` of them from ``start``, of which ``done`` are accounted for."""

    start: int
    count: int
    first: int
    increment: int
    chunks: list[tuple[Sequence, int]]
    done: int = 0

    def duration(self, steps: int) -> int:
        """Time that the first `steps` iterations take together, picoseconds: an arithmetic series."""
        return steps * self.first + self.increment * (steps * (steps - 1) // 2)

    def completed_by(self, time: int) -> int:
        """The largest n with ``duration(n) <= time - start``: the root of a quadratic, in integers."""
        elapsed = time - self.start
        if self.increment == 0:
            return min(self.count, elapsed // self.first)
        b = 2 * self.first - self.increment
        root = isqrt(b * b + 8 * self.increment * elapsed)
        return min(self.count, (root - b) // (2 * self.increment))
