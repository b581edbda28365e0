"""The demo's story: what is played, what must have happened, and the arithmetic of its summary.

Pure: functions of what was recorded, so that all of it is tested without a control plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.trace import Stage
from testbed.traffic_report import Outcome, Result, percentile

STAGES = (Stage(0, 1), Stage(45, 3), Stage(95, 6), Stage(170, 3), Stage(205, 1))
"""Copies of the recorded conversation that play at once, from second on: a day's rise and fall."""
DURATION = 345.0
"""Seconds of arrivals: the fall takes the rate window (60 s) and `windows.down` to be believed."""
GPUS_PER_REPLICA = 2
PROMPT_WEIGHT = 0.3
"""Prompt tokens count this much in the capacity of a replica (docs/explanation/how-it-decides.md)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen at one moment; times in seconds since the start of the traffic."""

    at: float
    offered: float
    """Weighted tokens per second that arrived since the last moment: the demand."""
    wanted: int
    granted: int
    serving: int
    phases: dict[str, int]
    """Replicas by phase."""
    in_flight: int
    queued: int
    served: int
    cut: int
    refused: int
    tokens_per_second: float
    """Generated tokens that clients received since the last moment, per second."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A change of the number of replicas, as status told it."""

    at: float
    before: int
    after: int
    limited_by: str
    message: str

    @classmethod
    def read(cls, raw: dict[str, Any], at: float) -> "Decision":
        """From an entry of `status.scaling`."""
        return cls(at, raw["from"], raw["to"], raw.get("limitedBy", ""), raw.get("message", ""))


@dataclass(slots=True)
class Record:
    """Everything that was recorded of one run."""

    moments: list[Moment] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    pod_seconds: float = 0.0
    """Seconds from creation to deletion, over all pods, until the end."""
    seconds: float = 0.0
    """From the first pod to the end."""
    ready: bool = False
    """Whether `kubectl wait --for=condition=Ready` succeeded."""
    lag: float = 0.0
    """Longest delay of this process's event loop, seconds: how far the machine was behind."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must have happened."""

    text: str
    ok: bool


def checks(record: Record) -> list[Check]:
    """Whether the story happened."""
    rises = [d for d in record.decisions if 0 < d.before < d.after]
    falls = [d for d in record.decisions if d.after < d.before]
    counts = _outcomes(record)
    start = record.moments[0].wanted if record.moments else 0
    end = record.moments[-1].serving if record.moments else 0
    return [
        Check("the fleet became Ready", record.ready),
        Check(f"replicas were added in {len(rises)} steps (at least 2)", len(rises) >= 2),
        Check(f"replicas were taken away in {len(falls)} steps (at least 1)", bool(falls)),
        Check(f"the fleet ended as small as it began ({end} of {start})", 0 < end <= start),
        Check(f"{counts[Outcome.CUT]} requests were cut", counts[Outcome.CUT] == 0),
        Check(f"{counts[Outcome.REFUSED]} requests were refused", counts[Outcome.REFUSED] == 0),
        Check("every decision has a reason", all(d.limited_by and d.message for d in record.decisions)),
    ]


def gpu_seconds(record: Record) -> tuple[float, float]:
    """(used, what a fleet fixed at the peak would have used) in GPU-seconds."""
    peak = max((m.wanted for m in record.moments), default=0)
    return record.pod_seconds * GPUS_PER_REPLICA, peak * record.seconds * GPUS_PER_REPLICA


def summary(record: Record) -> list[tuple[str, str]]:
    """The summary's rows: (what, figures)."""
    counts = _outcomes(record)
    used, fixed = gpu_seconds(record)
    peak = max((m.wanted for m in record.moments), default=0)
    saved = f"{1 - used / fixed:.0%} less" if fixed else "–"
    return [
        ("Requests served", f"{counts[Outcome.SERVED]:,}"),
        ("Requests cut / refused", f"{counts[Outcome.CUT]} / {counts[Outcome.REFUSED]}"),
        ("Time to first token", _percentiles([r.ttft for r in record.results], 1.0, "s")),
        ("Time per output token", _percentiles([r.tpot for r in record.results], 1000.0, "ms")),
        ("GPU-seconds", f"{used:,.0f}, {saved} than {peak} replicas all the time ({fixed:,.0f})"),
        ("This machine's worst lag", f"{record.lag:.2f} s{_caution(record.lag)}"),
    ]


def _caution(lag: float) -> str:
    return "" if lag < 0.5 else " (too slow for these latencies to be the engines')"


def _outcomes(record: Record) -> dict[Outcome, int]:
    return {outcome: sum(r.outcome is outcome for r in record.results) for outcome in Outcome}


def _percentiles(values: Sequence[float | None], scale: float, unit: str) -> str:
    known = sorted(value * scale for value in values if value is not None)
    shown = [(rank, percentile(known, rank)) for rank in (50, 95, 99)]
    return "  ".join(f"p{rank} {value:.3g} {unit}" for rank, value in shown if value is not None) or "–"
