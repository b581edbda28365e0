"""The picture of a run: demand against capacity, replicas wanted and serving, and what users waited."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from testbed.demo.story import Decision, Record
from testbed.demo.view import smoothed
from testbed.traffic_report import percentile

INK, DEMAND, CAPACITY, WANTED, SERVING = "#24292f", "#d1495b", "#9bc1bc", "#24292f", "#66a182"
BIN_SECONDS = 10.0
LABEL_SECONDS = 28.0
"""Labels of decisions closer than this would overlap."""


def draw(record: Record, capacity_per_replica: float, path: Path) -> None:
    """Write the picture as PNG.

    Args:
        record: of the run.
        capacity_per_replica: weighted tokens/s that one replica is to carry.
        path: of the file.
    """
    plt.rcParams.update(
        {"font.size": 10, "axes.edgecolor": "#8c959f", "text.color": INK, "axes.labelcolor": INK}
    )
    figure, axes = plt.subplots(
        3, 1, figsize=(11, 8.2), sharex=True, height_ratios=(3, 2.4, 1.6), layout="constrained"
    )
    figure.suptitle(
        "A recorded production trace, and the fleet that Stoker made of it",
        fontsize=14,
        fontweight="bold",
        x=0.02,
        ha="left",
    )
    _demand(axes[0], record, capacity_per_replica)
    _replicas(axes[1], record)
    _waits(axes[2], record)
    axes[2].set_xlabel("seconds since the start of the traffic")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eaeef2")
        axis.set_axisbelow(True)
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, record.moments[-1].at)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _demand(axis: Axes, record: Record, capacity_per_replica: float) -> None:
    at = [m.at for m in record.moments]
    capacity = [m.serving * capacity_per_replica for m in record.moments]
    axis.fill_between(
        at, capacity, step="post", color=CAPACITY, alpha=0.55, label="capacity that serves, at the target"
    )
    axis.plot(
        at,
        smoothed(smoothed([m.offered for m in record.moments])),
        color=DEMAND,
        lw=2,
        label="demand (weighted tokens that arrive)",
    )
    axis.set_ylabel("weighted tokens/s")
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_ylim(0, max(capacity) * 1.2)  # room for the legend
    axis.legend(loc="upper right", frameon=False)


def _replicas(axis: Axes, record: Record) -> None:
    at = [m.at for m in record.moments]
    axis.fill_between(
        at, [m.serving for m in record.moments], step="post", color=SERVING, alpha=0.7, label="serving"
    )
    axis.step(at, [m.wanted for m in record.moments], where="post", color=WANTED, lw=1.8, label="wanted")
    for move in moves(record.decisions):
        axis.annotate(
            f"{move.before}→{move.after}\n{move.limited_by}",
            (move.at, max(move.before, move.after)),
            textcoords="offset points",
            xytext=(4, 3),
            fontsize=7.5,
            color=INK,
        )
    axis.set_ylabel("replicas")
    axis.set_ylim(0, max(m.wanted for m in record.moments) * 1.35)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="upper right", frameon=False)


def moves(decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions to be labelled: those in one direction that follow each other closely are one move."""
    merged: list[Decision] = []
    for decision in decisions:
        last = merged[-1] if merged else None
        if decision.before == 0:
            continue
        same_way = last is not None and (last.after > last.before) == (decision.after > decision.before)
        if last is not None and same_way and decision.at - last.at < LABEL_SECONDS:
            merged[-1] = replace(last, after=decision.after)
        else:
            merged.append(decision)
    return merged


def _waits(axis: Axes, record: Record) -> None:
    """p50 and p95 of the time to first token, by the second in which requests arrived."""
    bins: dict[int, list[float]] = {}
    for result in record.results:
        if result.ttft is not None:
            bins.setdefault(int(result.arrival // BIN_SECONDS), []).append(result.ttft)
    at = [(number + 0.5) * BIN_SECONDS for number in sorted(bins)]
    for rank, style in ((95, "-"), (50, ":")):
        values = [_ranked(bins[number], rank) for number in sorted(bins)]
        axis.plot(at, values, style, color=DEMAND, lw=1.6, label=f"p{rank}")
    axis.set_ylabel("time to first\ntoken, s")
    axis.legend(loc="upper right", frameon=False, ncols=2)


def _ranked(values: Sequence[float], rank: int) -> float:
    return percentile(sorted(values), rank) or 0.0
