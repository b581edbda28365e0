"""What came of a backtest: both fleets in numbers, what was not known, and what the answer rests on.

Rules of this module:

* Hours and costs of both fleets are counted alike: from creation, so a start-up time before the first sample.
* What limits the answer stands beside it: gaps, targets that were not known, assumptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stoker.api.status import CapacityStatus
from stoker.backtest.errors import BacktestError
from stoker.backtest.period import STEPS, rfc3339, shown
from stoker.backtest.recorded import Recorded
from stoker.backtest.replay import Moment, Outcome, Tally, stretches
from stoker.clients.answers import Span
from stoker.core.learning import published
from stoker.core.observed import ModelDeployment

FEWEST_KNOWN = 0.5
"""Share of the time in which each target's demand has to be known: with less, the rest would be a guess."""

OPERATORS_STEP = STEPS[0]

ENDS = 0.05
"""Share of the period that may lack records at its beginning, and at its end."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a backtest was made on, beside the records."""

    deployment: ModelDeployment
    span: Span
    start_up: float
    """Seconds."""
    start_up_source: str
    """Where that number is from, for the reader."""
    cost_per_gpu_hour: float | None
    """In whatever currency; None: nobody said."""

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        spec = self.deployment.spec
        return spec.accelerators[0].count if spec is not None else 1

    @property
    def seconds(self) -> float:
        """How long the period is: each instant stands for one step."""
        return self.span.count * self.span.step


@dataclass(frozen=True, slots=True)
class Short:
    """Times in which the demand needed more replicas than served."""

    minutes: float
    longest_minutes: float
    longest_since: float | None
    """Unix s; None when there were none."""
    worst_load: float
    """Highest demand per serving replica, 1 being what the targets allow; 0 when none was known."""
    worst_at: float | None
    """Unix s."""


@dataclass(frozen=True, slots=True)
class Totals:
    """One fleet over the period."""

    mean: float
    """Replicas that existed or were wanted, on average."""
    fewest: int
    most: int
    replica_hours: float
    gpu_hours: float
    cost: float | None
    short: Short
    changes: int
    """How often the number of replicas changed."""
    reversals: int
    """How often growing turned to shrinking, or the other way round."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer."""

    terms: Terms
    simulated: Totals
    recorded: Totals
    outcome: Outcome
    gaps: tuple[tuple[float, float], ...]
    """Stretches without a sample of any replica, Unix s."""
    scrape_interval: float
    capacity: CapacityStatus | None
    """What one replica carries, as ``status.capacity`` would say at the end; None without a decision."""
    bounded_minutes: float
    """Minutes short in which ``maxReplicas``, of the spec or of a schedule, stood in the way."""
    unknown_minutes: float
    """Time in which some target's demand was not known, or not wholly."""
    notes: tuple[str, ...]
    """What was odd about the records."""
    assumptions: tuple[str, ...]


def check_ends(found: Recorded, span: Span) -> None:
    """Refuse a period of which the records miss an end.

    Raises:
        BacktestError: says which part has no records, and which period has.
    """
    first, last = min(life.start for life in found.lives), max(life.end for life in found.lives)
    allowed = max(ENDS * (span.end - span.start), 2 * found.scrape_interval)
    if first - span.start > allowed:
        raise BacktestError(
            f"nothing was recorded from {shown(span.start)} to {shown(first)}: write --from "
            f"{rfc3339(first)} or later"
        )
    if span.end - last > allowed:
        raise BacktestError(
            f"nothing was recorded from {shown(last)} to {shown(span.end)}: write --to "
            f"{rfc3339(last)} or earlier"
        )


def check_tallies(outcome: Outcome) -> None:
    """Refuse to answer where a target's demand was mostly unknown.

    Raises:
        BacktestError: names the targets, how long they were unknown, and why.
    """
    thin = {name: t for name, t in outcome.tallies.items() if t.known < FEWEST_KNOWN * t.instants}
    if thin:
        raise BacktestError("\n".join(_thin(name, tally) for name, tally in thin.items()))
    if not outcome.tallies:
        raise BacktestError("no target of the spec has a demand that could be read: set scaling.targets")


def _thin(name: str, tally: Tally) -> str:
    share = 1 - tally.known / tally.instants
    return (
        f"the demand for {name} was not known for {share:.0%} of the time that replicas served, so there is "
        f"no answer ({tally.why}): see that its series are scraped, choose another period, or another target"
    )


def report(terms: Terms, found: Recorded, outcome: Outcome, notes: Sequence[str]) -> Report:
    """Sum up a replay."""
    moments, span = outcome.moments, terms.span
    step_hours = span.step / 3600
    simulated_hours = sum(m.wanted for m in moments) * step_hours
    recorded_hours = found.hours(span.start, span.start + terms.seconds, terms.start_up)
    gaps = tuple((max(a, span.start), min(b, span.end)) for a, b in found.gaps if b > span.start)
    return Report(
        terms=terms,
        simulated=_totals(terms, moments, lambda m: m.wanted, lambda m: m.serving, simulated_hours),
        recorded=_totals(terms, moments, lambda m: m.recorded, lambda m: m.recorded, recorded_hours),
        outcome=outcome,
        gaps=gaps,
        scrape_interval=found.scrape_interval,
        capacity=_capacity(outcome),
        bounded_minutes=sum(_bounded(m) for m in moments) * span.step / 60,
        unknown_minutes=sum(not m.known for m in moments) * span.step / 60,
        notes=tuple(notes),
        assumptions=tuple(_assumptions(terms, outcome)),
    )


def _bounded(m: Moment) -> bool:
    return m.needed is not None and m.needed > m.serving and m.limited_by.endswith("maxReplicas")


def _capacity(outcome: Outcome) -> CapacityStatus | None:
    last = outcome.last
    return published(last.spec, last.memory.learned) if last is not None else None


_Count = Callable[[Moment], int]


def _totals(
    terms: Terms, moments: Sequence[Moment], exist: _Count, serve: _Count, replica_hours: float
) -> Totals:
    counts = [exist(m) for m in moments]
    different = [n for n, before in zip(counts, [None, *counts], strict=False) if n != before]
    gpu_hours, price = replica_hours * terms.gpus, terms.cost_per_gpu_hour
    return Totals(
        mean=replica_hours / (terms.seconds / 3600),
        fewest=min(counts),
        most=max(counts),
        replica_hours=replica_hours,
        gpu_hours=gpu_hours,
        cost=None if price is None else gpu_hours * price,
        short=_short(moments, serve, terms.span.step),
        changes=len(different) - 1,
        reversals=_reversals(different),
    )


def _short(moments: Sequence[Moment], serve: _Count, step: float) -> Short:
    short = [m.needed is not None and m.needed > serve(m) for m in moments]
    runs = [(last.at - first.at + step, first.at) for first, last in stretches(moments, short)]
    longest, since = max(runs, default=(0.0, None))
    loads = [(m.load / max(1, serve(m)), m.at) for m in moments if m.needed is not None]
    worst, worst_at = max(loads, default=(0.0, None))
    return Short(sum(short) * step / 60, longest / 60, since, worst, worst_at)


def _reversals(different: Sequence[int]) -> int:
    ups = [after > before for before, after in pairwise(different)]
    return sum(a != b for a, b in pairwise(ups))


def _assumptions(terms: Terms, outcome: Outcome) -> Iterator[str]:
    yield (
        "A fleet counts as short of capacity while the demand needs more replicas, at the spec's targets, "
        "than serve. Both fleets are held against the same demand."
    )
    yield (
        "The load is the recorded one: tokens that were served, requests in flight and queued. Another fleet "
        "would have changed both. Where the real one was short, its queue asks for replicas that a larger "
        "one would not have needed; where this spec's is short, the queue that would have built up is not "
        "there: in and after its short minutes the rest deserves the least trust."
    )
    yield (
        f"A replica takes {terms.start_up:g} s from creation to serving ({terms.start_up_source}). The real "
        "ones are seen from their first sample; so much is added before it."
    )
    yield (
        "The recorded replicas are taken for replicas of this spec: of the same model and engine, with "
        f"{terms.gpus} GPU{'s' if terms.gpus > 1 else ''} each. GPUs are there whenever they are asked for."
    )
    spec = terms.deployment.spec
    drain = spec.drain.timeout.seconds if spec is not None else 0.0
    hours = outcome.removed * drain / 3600 * terms.gpus
    yield (
        f"A replica that leaves costs nothing from then on: how long its last requests take is not recorded. "
        f"{outcome.removed} drains would add at most {hours:,.1f} GPU-hours (drain.timeout is {drain:g} s)."
    )
    if terms.span.step > OPERATORS_STEP:
        yield (
            f"Decisions are {terms.span.step:g} s apart, the operator's {OPERATORS_STEP:g} s: a replica may "
            "come or go up to a step later. --step sets it."
        )
