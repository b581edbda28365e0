"""The headline: GPU-hours against attainment, a curve per policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib.figure import Figure

LOWEST = 0.80
"""Attainment below this is of no interest to anybody who has an objective."""


def draw(title: str, curves: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Write an SVG.

    Args:
        title: above the picture.
        curves: (GPU-hours, attainment) of each setting, by policy; in the order of the legend.
        path: of the file.
    """
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes: Any = figure.add_subplot()
    for number, (name, points) in enumerate(curves.items()):
        _curve(axes, name, sorted(points), number)
    axes.set_xlabel("GPU-hours, from a pod's creation to its deletion")
    axes.set_ylabel("requests with TTFT ≤ 2 s and TPOT ≤ 50 ms")
    axes.set_ylim(LOWEST, 1.002)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    mpl.rcParams["svg.hashsalt"] = "replay"  # the same results give the same file
    figure.savefig(path, metadata={"Date": None})


def _curve(axes: Any, name: str, points: Sequence[tuple[float, float]], number: int) -> None:
    ours, reference = name.startswith("stoker"), name in {"static", "clairvoyant heuristic"}
    axes.plot(
        [hours for hours, _ in points],
        [reached for _, reached in points],
        label=name,
        color="0.35" if reference else f"C{number % 10}",
        linestyle=":" if reference else "-",
        linewidth=2.4 if ours else 1.2,
        marker="os^vD"[number % 5],
        markersize=6 if ours else 4,
    )
