"""What the demo shows: a live view in a terminal, plain lines elsewhere, and the summary at its end."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from testbed.demo.story import Check, Decision, Moment, Record, checks, summary

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
PHASES = (
    ("Serving", "green"),
    ("Loading", "yellow"),
    ("Pending", "dim"),
    ("Draining", "cyan"),
    ("Stopping", "dim cyan"),
    ("Failed", "red"),
)
SMOOTHED = 5
"""Moments that a shown rate is the mean of: single seconds are noise."""


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The values as one line of bars, the last `width` of them, from zero to their maximum."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return BARS[0] * len(shown)
    return "".join(BARS[min(len(BARS) - 1, int(value / top * (len(BARS) - 1) + 0.5))] for value in shown)


def smoothed(values: Sequence[float]) -> list[float]:
    """Moving means over the last `SMOOTHED` values."""
    windows = [values[max(0, end - SMOOTHED) : end] for end in range(1, len(values) + 1)]
    return [sum(window) / len(window) for window in windows]


def line(moment: Moment, decision: Decision | None) -> str:
    """One moment as a line for logs and pipes."""
    text = (
        f"{moment.at:5.0f} s  wanted {moment.wanted:2}  serving {moment.serving:2}  "
        f"offered {moment.offered:6.0f}  generated {moment.tokens_per_second:6.0f} tokens/s  "
        f"in flight {moment.in_flight:3}  served {moment.served:5}  cut {moment.cut}"
        f"  refused {moment.refused}"
    )
    return f"{text}  last: {said(decision)}" if decision is not None else text


def said(decision: Decision) -> str:
    """A decision in words."""
    return f"{decision.before} → {decision.after} by {decision.limited_by}: {decision.message}"


def live(record: Record, duration: float) -> RenderableType:
    """The live view of a run so far."""
    if not record.moments:
        return Panel("waiting for the first replicas …", title="Stoker")
    moment = record.moments[-1]
    title = f"Stoker · second {moment.at:.0f} of {duration:.0f}"
    parts = (_fleet(moment), Text(), _rates(record), Text(), _decisions(record.decisions))
    return Panel(Group(*parts), title=title)


def _fleet(moment: Moment) -> Text:
    text = Text(f"replicas  {moment.serving} of {moment.wanted} serve  ", style="bold")
    for phase, style in PHASES:
        count = moment.phases.get(phase, 0)
        if count:
            text.append("■ " * count, style=style)
            text.append(f"{phase}  ", style=style)
    return text


def _rates(record: Record) -> Table:
    moments, last = record.moments, record.moments[-1]
    table = Table.grid(padding=(0, 2))
    rows = (
        ("offered (weighted) tokens/s", smoothed([m.offered for m in moments])),
        ("generated tokens/s", smoothed([m.tokens_per_second for m in moments])),
        ("replicas serving", [float(m.serving) for m in moments]),
        ("requests in flight", [float(m.in_flight) for m in moments]),
    )
    for name, values in rows:
        table.add_row(
            name, Text(f"{values[-1]:,.0f}", justify="right"), Text(sparkline(values), style="cyan")
        )
    outcome = f"served {last.served:,}   cut {last.cut}   refused {last.refused}   queued {last.queued}"
    table.add_row("requests", "", Text(outcome, style="bold"))
    return table


def _decisions(decisions: Sequence[Decision], most: int = 6) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for decision in decisions[-most:]:
        style = "green" if decision.after > decision.before else "cyan"
        change = Text(f"{decision.before} → {decision.after}", style=style)
        table.add_row(f"{decision.at:4.0f} s", change, Text(f"{decision.limited_by}: {decision.message}"))
    return table


def show_summary(console: Console, record: Record) -> bool:
    """Print the summary; whether the story happened."""
    figures = Table(title="What happened", show_header=False, title_justify="left")
    for what, value in summary(record):
        figures.add_row(what, value)
    console.print(figures)
    decisions = Table(title="Each decision", title_justify="left")
    for column in ("at", "replicas", "by"):
        decisions.add_column(column, no_wrap=True)
    decisions.add_column("because")
    for decision in record.decisions:
        change = f"{decision.before} → {decision.after}"
        decisions.add_row(f"{decision.at:.0f} s", change, decision.limited_by, decision.message)
    console.print(decisions)
    story = checks(record)
    for check in story:
        console.print(_verdict(check))
    return all(check.ok for check in story)


def _verdict(check: Check) -> Text:
    return Text("✓ " if check.ok else "✗ ", style="green" if check.ok else "bold red") + Text(check.text)
