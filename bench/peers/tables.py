"""The results as the tables of `docs/explanation/peers.md`: what is read there is what was measured."""

from collections.abc import Iterable, Sequence

from bench.controller.results import Figures
from bench.peers.faults import REPLICAS
from bench.peers.fleets import Side

_SIDES = {Side.KEDA: "KEDA with the HPA", Side.STOKER: "Stoker"}
_NEVER = "–"


def reaction(section: Figures) -> str:
    """From visible to pods, by step and side."""
    rows = [
        (
            step,
            _SIDES[side],
            _spread(figures[side]["visible_to_first_pod_seconds"]),
            _spread(figures[side]["visible_to_all_pods_seconds"]),
            str(figures[side]["samples"]),
        )
        for step, figures in section["steps"].items()
        for side in Side
        if side in figures
    ]
    return _table(("replicas", "", "first pod, s", "all pods, s", "n"), rows)


def faults(section: Figures) -> str:
    """Who lost replicas to what."""
    rows = [
        (
            row["fault"],
            row["autoscaler"],
            f"{row['fleets_that_lost_replicas']} of {row['fleets']}",
            _fewest(row["replicas_lowest"]),
            _when(row["first_fall_seconds"]),
        )
        for row in section["rows"]
    ]
    return _table(("fault", "autoscaler", "fleets that lost replicas", "fewest replicas", "after, s"), rows)


def ramp(section: Figures) -> str:
    """Predicted beside measured, by contender."""
    rows = [row for name, cell in section["cells"].items() for row in _cell(name, cell)]
    return _table(("", "", "replay", "measured", "difference"), rows)


def _cell(name: str, cell: Figures) -> list[tuple[str, ...]]:
    predicted, measured, ratio = cell["predicted"], cell["measured"], cell["measured_over_predicted"]
    both = (predicted, measured)
    gpu_seconds = [
        f"{one['gpu_seconds']:,} ({min(one['gpu_seconds_of_each']):,} to {max(one['gpu_seconds_of_each']):,})"
        for one in both
    ]
    reached = [f"{one['attainment']:.2%}" for one in both]
    # Of p50, p95 and p99 the second.
    late = measured["sent_late_seconds"]
    first = [f"{one['ttft_seconds'][1]:.2f}" for one in both]
    further = [f"{one['tpot_seconds'][1] * 1000:.0f}" for one in both]
    return [
        (name, "GPU-seconds", *gpu_seconds, f"{ratio['gpu_seconds']:+.1%}"),
        ("", "within the objective", *reached, f"{ratio['attainment']:+.1%}"),
        ("", "p95 of the first token, from sending, s", *first, ""),
        ("", "p95 per further token, ms", *further, ""),
        ("", "most replicas", *(_to(one["peak_replicas"]) for one in both), ""),
        ("", "requests cut", "0", str(measured["not_served"]["cut"]), ""),
        ("", "sent late, p50 and p95, s", "0", f"{late[0]:.1f}, {late[1]:.1f}", ""),
    ]


TABLES = {"faults": faults, "ramp": ramp, "reaction": reaction}


def _spread(spread: Figures | None) -> str:
    return _NEVER if spread is None else f"{spread['min']:.1f} / {spread['median']:.1f} / {spread['max']:.1f}"


def _fewest(lowest: Sequence[int]) -> str:
    return str(REPLICAS) if min(lowest) >= REPLICAS else _to(lowest)


def _to(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


def _when(fall: Figures | None) -> str:
    if fall is None:
        return _NEVER
    first, last = round(fall["min"]), round(fall["max"])
    return str(first) if first == last else f"{first} to {last}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
