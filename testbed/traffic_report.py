"""What is known of traffic that was played: counts during it, a result per request, a summary at its end.

Waits include everything from the moment when a request was to arrive: the gateway's queue, the engine's, the
network. A percentile is always a value that occurred (nearest rank); without values it is None, not zero.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Counters", "Outcome", "Result", "percentile", "summarize"]

PERCENTILES = (50, 90, 95, 99)


class Outcome(StrEnum):
    """What became of a request."""

    SERVED = "served"
    CUT = "cut"  # the answer broke off
    REFUSED = "refused"  # no endpoint, no connection, or an HTTP error
    ABANDONED = "abandoned"  # given up by the load generator when it was stopped


@dataclass(frozen=True, slots=True)
class Result:
    """One request, from its arrival on; times in seconds.

    Attributes:
        arrival: after the start of the run.
        prompt_tokens: length of the prompt.
        output_tokens: length asked for.
        tokens: tokens received.
        outcome: how it ended.
        pod: which pod answered.
        queued: wait for an endpoint.
        ttft: from arrival to the first token; None without one.
        tpot: mean time per token after the first; None with fewer than two.
        duration: from arrival to the end.
        detail: why it was cut or refused.
    """

    arrival: float
    prompt_tokens: int
    output_tokens: int
    tokens: int = 0
    outcome: Outcome = Outcome.ABANDONED
    pod: str | None = None
    queued: float = 0.0
    ttft: float | None = None
    tpot: float | None = None
    duration: float = 0.0
    detail: str = ""


@dataclass(slots=True)
class Counters:
    """A live view: totals since the start, except `in_flight` and `queued`.

    Attributes:
        arrivals: requests whose time has come.
        in_flight: requests at an engine.
        queued: requests that wait for an endpoint.
        served: answered to the end.
        cut: broken off.
        refused: not answered.
        abandoned: given up when the run was stopped.
        prompt_tokens: prompts that got their first token.
        generated_tokens: tokens received.
        asked_prompt_tokens: prompts that arrived: the demand.
        asked_output_tokens: tokens asked for: the demand.
    """

    arrivals: int = 0
    in_flight: int = 0
    queued: int = 0
    served: int = 0
    cut: int = 0
    refused: int = 0
    abandoned: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    asked_prompt_tokens: int = 0
    asked_output_tokens: int = 0


def percentile(values: Sequence[float], rank: float) -> float | None:
    """The nearest-rank percentile of sorted values; None if there are none."""
    if not values:
        return None
    return values[max(0, math.ceil(rank / 100 * len(values)) - 1)]


def summarize(results: Iterable[Result]) -> dict[str, Any]:
    """Counts, token totals, percentiles of TTFT and time per token (seconds), requests per pod, as JSON."""
    results = list(results)
    outcomes = Counter(result.outcome for result in results)
    served = [result for result in results if result.outcome is Outcome.SERVED]
    return {
        "requests": len(results),
        **{outcome.value: outcomes[outcome] for outcome in Outcome},
        "prompt_tokens": sum(result.prompt_tokens for result in served),
        "generated_tokens": sum(result.tokens for result in results),
        "ttft_seconds": _distribution(result.ttft for result in results),
        "time_per_output_token_seconds": _distribution(result.tpot for result in results),
        "queued_seconds": _distribution(result.queued for result in results),
        "served_by_pod": dict(sorted(Counter(str(result.pod) for result in served).items())),
        "failures": dict(Counter(result.detail for result in results if result.detail).most_common(10)),
    }


def _distribution(values: Iterable[float | None]) -> dict[str, float | None]:
    known = sorted(value for value in values if value is not None)
    figures = {f"p{rank}": percentile(known, rank) for rank in PERCENTILES}
    return {
        "mean": sum(known) / len(known) if known else None,
        **figures,
        "max": known[-1] if known else None,
    }
