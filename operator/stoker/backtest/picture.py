"""The answer as a PNG: needed, simulated and real replicas over time, and how loaded the serving ones were.

Rules of this module:

* matplotlib is no dependency of the operator: who wants pictures installs ``stoker[plot]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stoker.backtest.errors import BacktestError
from stoker.backtest.period import shown
from stoker.backtest.replay import Moment, stretches
from stoker.backtest.report import Report

_OURS, _REAL, _NEEDED, _SHORT = "#1f6feb", "#8250df", "#c9d1d9", "#d1242f"


def available() -> None:
    """Find out early whether pictures can be drawn.

    Raises:
        BacktestError: matplotlib is not installed.
    """
    try:
        import matplotlib as _  # noqa: F401, ICN001, PLC0415 - only who wants a picture has it
    except ImportError as error:
        raise BacktestError("--plot needs matplotlib: pip install 'stoker[plot]'") from error


def draw(answer: Report, file: Path) -> None:
    """Write the picture.

    Raises:
        BacktestError: the file cannot be written, or its ending names no format of pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - as above
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _replicas(upper, answer)
    _load(lower, answer)
    figure.suptitle(_title(answer), x=0.01, ha="left", fontsize=11)
    locator: Any = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise BacktestError(f"--plot {file}: {error}") from error


def _title(answer: Report) -> str:
    terms, ours, real = answer.terms, answer.simulated, answer.recorded
    return (
        f"{terms.deployment.key}, {shown(terms.span.start)} to {shown(terms.span.end)}\n"
        f"this spec: {ours.gpu_hours:,.0f} GPU-hours, {ours.short.minutes:,.0f} min short    "
        f"really ran: {real.gpu_hours:,.0f} GPU-hours, {real.short.minutes:,.0f} min short"
    )


def _replicas(axes: Any, answer: Report) -> None:
    moments = answer.outcome.moments
    times = _times(moments)
    needed = [float("nan") if m.needed is None else m.needed for m in moments]
    axes.fill_between(times, needed, step="post", color=_NEEDED, label="needed, at the spec's targets")
    axes.step(times, [m.recorded for m in moments], where="post", color=_REAL, lw=1.2, label="really ran")
    axes.step(
        times, [m.wanted for m in moments], where="post", color=_OURS, lw=0.8, ls=":", label="asked for"
    )
    axes.step(
        times, [m.serving for m in moments], where="post", color=_OURS, lw=1.6, label="this spec, serving"
    )
    short = [m.needed is not None and m.needed > m.serving for m in moments]
    for first, last in stretches(moments, short):
        label = (
            None if axes.get_legend_handles_labels()[1][-1] == "short of capacity" else "short of capacity"
        )
        end = last.at + answer.terms.span.step
        axes.axvspan(_time(first.at), _time(end), color=_SHORT, alpha=0.18, lw=0, label=label)
    for number, (since, until) in enumerate(answer.gaps):
        label = None if number else "no samples"
        axes.axvspan(
            _time(since), _time(until), facecolor="none", edgecolor="0.6", hatch="//", lw=0, label=label
        )
    axes.set_ylabel("replicas")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(loc="upper left", fontsize=8, ncols=6, frameon=False, bbox_to_anchor=(0, 1.09))


def _load(axes: Any, answer: Report) -> None:
    moments = answer.outcome.moments
    times, loads = _times(moments), [m.load if m.known else float("nan") for m in moments]
    for color, serving in ((_REAL, [m.recorded for m in moments]), (_OURS, [m.serving for m in moments])):
        shares = [load / max(1, count) for load, count in zip(loads, serving, strict=True)]
        axes.step(times, shares, where="post", color=color, lw=1.1)
    axes.axhline(1.0, color=_SHORT, lw=0.8)
    axes.set_ylabel("load per replica")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    axes.set_xlabel("UTC; 100 % is what the targets allow one replica")


def _times(moments: Sequence[Moment]) -> list[datetime]:
    return [_time(m.at) for m in moments]


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
