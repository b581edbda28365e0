"""The workloads: what arrives, when, on which replicas.

Rules of this module:

* A workload is the same for every policy of a seed.
* Real recordings are superposed, never compressed; what is made up says so in its description.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.replay import traces
from bench.replay.simulation import Leak
from testbed.trace import Stage, TraceRequest, load_azure, stage, superpose

MINUTE = 60.0

SERVEGEN_SHARE = 0.15
"""Of each client's rate: about 12 to 22 replicas on the first day, 6 to 10 on the others."""

MOONCAKE_COPIES = 3


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload.

    Attributes:
        name: in results.
        description: what arrives, for the reader of a result.
        duration: seconds.
        arrivals: the requests for a seed.
        initial_seconds: the fleet begins with what the first so many seconds need.
        leak: of a replica's speed, if that is what the workload is about.
        tuned_on: the workload that settings are chosen on, where it is another one; else it is the same with
            another seed.
    """

    name: str
    description: str
    duration: float
    arrivals: Callable[[int], Sequence[TraceRequest]]
    initial_seconds: float = 600.0
    leak: Leak | None = None
    tuned_on: str | None = None


def _azure(plan: Sequence[tuple[float, int]], duration: float) -> Callable[[int], list[TraceRequest]]:
    """Copies of the Azure conversation trace, in stages of (minute, copies)."""
    stages = [Stage(minute * MINUTE, copies) for minute, copies in plan]
    return lambda seed: stage(load_azure(), stages, duration, seed=seed)


def _mix_shift(seed: int) -> list[TraceRequest]:
    shift, end = 25 * MINUTE, 60 * MINUTE
    before = traces.poisson(16.0, 0.0, shift, (1024, 1024), seed=seed)
    return before + traces.poisson(16.0, shift, end, (4096, 128), seed=seed + 1)


def _wave() -> list[tuple[float, int]]:
    """(minute, copies): from minute 10 on 2 to 8 and back within the hour, one copy at a time."""
    waves = [(10 + minute, 5 - 3 * math.cos(2 * math.pi * minute / 60)) for minute in range(0, 70, 2)]
    return [(0, 2), *((minute, round(copies)) for minute, copies in waves)]


WORKLOADS: dict[str, Workload] = {
    one.name: one
    for one in (
        Workload(
            "azure-wave",
            "Azure 2023 conversation, 2 to 8 superposed copies and back within an hour (the wave is made up)",
            80 * MINUTE,
            _azure(_wave(), 80 * MINUTE),
        ),
        Workload(
            "mix-shift",
            "Poisson, 16 requests/s (made up): 1024 tokens in and out, from 25 min on 4096 in and 128 out",
            60 * MINUTE,
            _mix_shift,
        ),
        Workload(
            "burst",
            "Azure 2023 conversation, 1 copy, 10 copies from 20 to 35 min: a burst of ten times the traffic",
            60 * MINUTE,
            _azure(((0, 1), (20, 10), (35, 1)), 60 * MINUTE),
        ),
        Workload(
            "dead-hour",
            "Azure 2023 conversation, 4 copies, none from 20 to 80 min, then one copy more every 3 min, to 8",
            120 * MINUTE,
            _azure(
                ((0, 4), (20, 0), *((80 + 3 * step, step + 1) for step in range(8))),
                120 * MINUTE,
            ),
        ),
        Workload(
            "slow-leak",
            "Azure 2023 conversation, 4 copies; one replica loses 2 % of its speed per minute from 15 min on",
            75 * MINUTE,
            _azure(((0, 4),), 75 * MINUTE),
            leak=Leak(ordinal=0, start=15 * MINUTE, per_minute=0.02),
        ),
        Workload(
            "steady",
            "Azure 2023 conversation, 3 copies: for faults of the metrics",
            35 * MINUTE,
            _azure(((0, 3),), 35 * MINUTE),
        ),
    )
}


STANDARD = (
    "azure-wave",
    "mix-shift",
    "burst",
    "dead-hour",
    "slow-leak",
    "mooncake",
    "servegen-day2",
    "servegen-day3",
)
"""What is tuned and scored without being asked for, as far as its traces are there."""


def workload_names(traces: Path | None) -> list[str]:
    """Every workload that can be replayed."""
    return [*WORKLOADS, *(from_files(traces) if traces is not None else ())]


def from_files(folder: Path) -> dict[str, Workload]:
    """Workloads on traces that the project does not carry.

    Args:
        folder: with ``mooncake/conversation_trace.jsonl`` and ``servegen-m-large/``; what is absent is left
            out.
    """
    found = {}
    mooncake, servegen = folder / "mooncake" / "conversation_trace.jsonl", folder / "servegen-m-large"
    if mooncake.exists():
        found["mooncake"] = Workload(
            "mooncake",
            f"Mooncake conversation, {MOONCAKE_COPIES} superposed copies, prefix cache not modelled",
            59 * MINUTE,
            lambda seed: superpose(
                traces.load_mooncake(mooncake), copies=MOONCAKE_COPIES, window=(0.0, 59 * MINUTE), seed=seed
            ),
        )
    for day in (1, 2, 3) if servegen.is_dir() else ():
        found[f"servegen-day{day}"] = _servegen(servegen, day)
    return found


def _servegen(folder: Path, day: int) -> Workload:
    return Workload(
        f"servegen-day{day}",
        f"ServeGen m-large, day {day}, thinned to {SERVEGEN_SHARE:.0%} of each client's rate",
        86_400.0,
        lambda seed: traces.load_servegen(folder, share=SERVEGEN_SHARE, days=(day, day), seed=seed),
        tuned_on="servegen-day1",
    )
