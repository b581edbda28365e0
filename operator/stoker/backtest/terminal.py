"""The answer for a person: the decisions, the fleets over time, the sums, and what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stoker.backtest.period import shown
from stoker.backtest.replay import Change, Moment
from stoker.backtest.report import Report, Short

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_WIDTH: Final = 96
"""Columns of the chart at most."""
_PLAIN_WIDTH: Final = 140
"""Columns of the output where there is no terminal to ask."""


def show(answer: Report, console: Console, *, decisions: bool) -> None:
    """Print the answer; the sums last, so that they stay in sight."""
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    with console.capture() as captured:
        if decisions:
            console.print(_decisions(answer.outcome.changes))
        console.print(_chart(answer, console.width))
        console.print(_sums(answer))
        console.print(_remarks(answer))
    lines = captured.get().splitlines()  # tables are padded to their full width: nobody wants that in a file
    console.file.write("\n".join(line.rstrip() for line in lines) + "\n")


def _decisions(changes: Sequence[Change]) -> RenderableType:
    table = _table("Decisions")
    for name in ("Time (UTC)", "Replicas", "Limited by"):
        table.add_column(name, no_wrap=True)
    table.add_column("Why", overflow="fold")
    for change in changes:
        replicas = f"{change.before:>2} → {change.after}"
        style = "green" if change.after > change.before else "yellow"
        when = shown(change.at).removesuffix(" UTC")
        table.add_row(when, Text(replicas, style), change.limited_by, Text(change.message))
    return table if changes else Text("No decision changed the number of replicas.")


# --- The fleets over time ------------------------------------------------------------------------


def _chart(answer: Report, width: int) -> RenderableType:
    moments = answer.outcome.moments
    columns = min(_WIDTH, width - 22, len(moments))
    rows: list[tuple[str, Callable[[Moment], int]]] = [
        ("needed", lambda m: m.needed or 0),
        ("this spec", lambda m: m.serving),
        ("really ran", lambda m: m.recorded),
    ]
    top = max(1, *(max(value(m) for m in moments) for _, value in rows))
    table = _table(f"\nServing replicas (█ is {top})", show_header=False)
    for label, value in rows:
        values = _columns([value(m) for m in moments], columns)
        table.add_row(label, "".join(_block(v, top) for v in values), f"{min(values)}–{max(values)}")
    since, until = (shown(at).removesuffix(" UTC") for at in (moments[0].at, moments[-1].at))
    table.add_row("", f"{since}{until:>{columns - len(since)}}" if columns > 40 else since)
    return table


def _columns(values: Sequence[int], columns: int) -> list[int]:
    """As many values as there are columns: the highest of each stretch."""
    edges = [number * len(values) // columns for number in range(columns + 1)]
    return [max(values[a:b]) for a, b in pairwise(edges)]


def _block(value: int, top: int) -> str:
    return _BLOCKS[-(-value * (len(_BLOCKS) - 1) // top)]


# --- The sums ------------------------------------------------------------------------------------


def _sums(answer: Report) -> RenderableType:
    terms, ours, real = answer.terms, answer.simulated, answer.recorded
    table = _table(_title(answer))
    table.add_column("")
    for name in ("This spec", "Really ran", "Difference"):
        table.add_column(name, justify="right")
    _row(table, "Replicas, mean", ours.mean, real.mean, "{:,.2f}")
    table.add_row("Replicas, fewest–most", *(f"{t.fewest}–{t.most}" for t in (ours, real)))
    _row(table, "GPU-hours", ours.gpu_hours, real.gpu_hours, "{:,.1f}")
    if ours.cost is not None and real.cost is not None:
        _row(table, f"Cost, at {terms.cost_per_gpu_hour:g} per GPU-hour", ours.cost, real.cost, "{:,.2f}")
    _row(table, "Minutes short of capacity", ours.short.minutes, real.short.minutes, "{:,.1f}")
    table.add_row("  the longest of them", *(_longest(t.short) for t in (ours, real)))
    if answer.bounded_minutes:
        table.add_row("  of them at maxReplicas", f"{answer.bounded_minutes:,.1f}", "")
    table.add_row("Highest load per replica", *(f"{t.short.worst_load:.0%} of target" for t in (ours, real)))
    table.add_row("Changes, reversals", *(f"{t.changes}, {t.reversals}" for t in (ours, real)))
    return Padding(Group(table, *_taught(answer)), (1, 0))


def _taught(answer: Report) -> Iterator[RenderableType]:
    """What one replica carries: every number above rests on it."""
    known = answer.capacity
    if known is not None and known.concurrent_requests is not None:
        sure = f", confidence {known.confidence:g}" if known.confidence is not None else ""
        yield Text(
            f"\nAt the end, status.capacity would say of one replica: {known.tokens_per_second:,} tokens/s "
            f"or {known.concurrent_requests:,.3g} requests in flight ({known.source}{sure})."
        )


def _title(answer: Report) -> str:
    terms = answer.terms
    when = f"{shown(terms.span.start)} to {shown(terms.span.end)}, every {terms.span.step:g} s"
    return f"{terms.deployment.key}, {when}"


def _row(table: Table, name: str, ours: float, real: float, form: str) -> None:
    difference = ours - real
    share = f" ({difference / real:+.0%})" if real >= 1 and difference else ""
    sign = "+" if difference > 0 else "-" if difference < 0 else ""
    table.add_row(name, form.format(ours), form.format(real), f"{sign}{form.format(abs(difference))}{share}")


def _longest(short: Short) -> str:
    if short.longest_since is None:
        return "–"
    since = datetime.fromtimestamp(short.longest_since, UTC)
    return f"{short.longest_minutes:,.1f}, {since:%b %d %H:%M}"


def _table(title: str, **options: Any) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        **options,
    )


# --- What it rests on ----------------------------------------------------------------------------


def _remarks(answer: Report) -> RenderableType:
    minutes = answer.terms.seconds / 60
    lines: list[RenderableType] = []
    if answer.unknown_minutes:
        share = answer.unknown_minutes / minutes
        how_long = f"{answer.unknown_minutes:,.1f} min ({share:.1%})"
        lines.append(_item(f"Not wholly known for {how_long}: the number was held, or only raised."))
    lines += [_item(f"No samples at all from {shown(a)} to {shown(b)}.") for a, b in answer.gaps]
    lines += [_item(note) for note in answer.notes]
    known = [Text("What was missing", "bold"), *lines, Text("")] if lines else []
    return Group(*known, Text("What the answer rests on", "bold"), *map(_item, answer.assumptions))


def _item(text: str) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_row("•", Text(text))
    return table
