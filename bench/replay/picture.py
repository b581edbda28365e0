"""The headline: GPU-hours against attainment, a curve per policy, each with its name beside it.

Rules of this module:

* The vertical axis is the share of requests that miss the objective, on a logarithmic scale: from 99 to
  99.5 % is as far as from 98 to 99 %.
* A curve is drawn through the settings that no other of its policy beats in both; a single setting is a mark.
* The picture is made from the JSON alone, and the same JSON gives the same file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib.figure import Figure

from bench.replay.curves import Point, front

LEVELS = (0.50, 0.70, 0.80, 0.90, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
HIGHEST = 0.9995
"""Beyond, a handful of requests decides."""

USUAL_LOWEST = 0.80
"""The lower edge, unless half of the policies never get there."""

DEARER = 2.2
"""Who needs more times what is usual than this is beyond the picture's right edge."""

_OURS = ("#c1121f", "#f77f00", "#780000", "#e85d9a", "#b5651d")
_THEIRS = ("#1d4e89", "#2a9d8f", "#6a4c93", "#3a86ff", "#577590", "#43aa8b", "#8338ec", "#118ab2", "#90a955")


def draw(document: dict[str, Any], path: Path) -> None:
    """Write the SVG of a document of `bench.replay.results`."""
    mpl.rcParams["svg.hashsalt"] = "replay"
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(11.5, 7), layout="constrained")
    axes: Any = figure.add_subplot()
    curves = {name: _points(policy) for name, policy in document["policies"].items()}
    lowest = _lowest(list(curves.values()))
    left, right = _limits(list(curves.values()), lowest)
    axes.set_xlim(left, right)
    axes.set_ylim(_height(lowest), _height(HIGHEST) + 0.05)
    labels = [
        label
        for name, points in curves.items()
        if (label := _curve(axes, name, points, _colour(name, document["policies"])))
    ]
    _label(axes, labels)
    _frame(axes, document)
    figure.savefig(path, metadata={"Date": None})


def _points(policy: dict[str, Any]) -> list[Point]:
    return front((one["gpu_hours"], one["attainment"]) for one in policy["curve"])


def _lowest(curves: Sequence[Sequence[Point]]) -> float:
    """The lower edge."""
    best = [points[-1][1] for points in curves]
    return LEVELS[0] if 2 * sum(reached < USUAL_LOWEST for reached in best) >= len(best) else USUAL_LOWEST


def _limits(curves: Sequence[Sequence[Point]], lowest: float) -> tuple[float, float]:
    """Left and right edge: from the cheapest that is worth looking at to what nobody would pay."""
    seen = [[hours for hours, reached in points if reached >= lowest] for points in curves]
    hours = sorted(max(own) for own in seen if own) or [1.0]
    left, right = min((min(own) for own in seen if own), default=0.0), hours[-1]
    right = min(right, DEARER * hours[len(hours) // 2])
    margin = 0.04 * (right - left) or 1.0
    return left - margin, right + margin


def _height(attainment: float) -> float:
    return -math.log10(1 - min(attainment, HIGHEST))


def _colour(name: str, policies: dict[str, Any]) -> str:
    if policies[name]["reference"]:
        return "0.35"
    kin = [n for n in policies if n.startswith("stoker") == name.startswith("stoker")]
    palette = _OURS if name.startswith("stoker") else _THEIRS
    rivals = [n for n in kin if not policies[n]["reference"]]
    return palette[rivals.index(name) % len(palette)]


Label = tuple[float, float, str, str]
"""(x, y) of what is named, its name, its colour."""


def _curve(axes: Any, name: str, points: Sequence[Point], colour: str) -> Label | None:
    """Draw one policy; None when nothing of it is within the picture."""
    xs, ys = [hours for hours, _ in points], [_height(reached) for _, reached in points]
    ours = name.startswith("stoker")
    axes.plot(
        xs,
        ys,
        color=colour,
        linestyle=":" if colour == "0.35" else "-",
        linewidth=2.6 if ours else 1.3,
        marker="*" if len(points) == 1 else "o",
        markersize=11 if len(points) == 1 and ours else 4,
        zorder=3 if ours else 2,
    )
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    inside = [(x, y) for x, y in zip(xs, ys, strict=True) if x <= right and y >= bottom]
    return (*inside[-1], name, colour) if inside else None


def _label(axes: Any, labels: Sequence[Label]) -> None:
    """Names in the right margin, spread so that none hides another; who ends farther right stands lower."""
    (_, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    step = (top - bottom) / 26
    place = -math.inf
    spread = []
    for x, y, name, colour in sorted(labels, key=lambda label: (round(label[1] / (2 * step)), -label[0])):
        place = max(y, place + step)
        spread.append((x, y, name, colour, place))
    excess = max(0.0, place - top) if spread else 0.0
    lower = math.inf
    settled = []
    for x, y, name, colour, at in reversed(spread):
        lower = min(at, lower - step) if lower < math.inf else at - excess
        settled.append((x, y, name, colour, lower))
    for x, y, name, colour, at in settled:
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(right, at),
            textcoords="data",
            color=colour,
            fontsize=9,
            fontweight="bold" if name.startswith("stoker") else "normal",
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
        )


def _frame(axes: Any, document: dict[str, Any]) -> None:
    bottom = axes.get_ylim()[0]
    shown = [level for level in LEVELS if _height(level) >= bottom]
    axes.set_yticks([_height(level) for level in shown], [f"{level:.1%}" for level in shown])
    axes.set_xlabel("GPU-hours, from a pod's creation to its deletion")
    axes.set_ylabel("requests with TTFT ≤ 2 s and TPOT ≤ 50 ms")
    seeds = len(document["seeds"])
    axes.set_title(
        f"{document['description']}\nstart-up {document['start_up_seconds']} s, {document['routing']}, "
        f"queues in the {document['queueing']}, mean of {seeds} seed{'s' if seeds > 1 else ''}; "
        "up and left is better",
        fontsize=10,
        loc="left",
    )
    axes.grid(visible=True, alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
