"""The tables of ``docs/explanation/autoscalers.md``, written from the results' JSON.

Rules of this module:

* A table stands between ``<!-- replay: KIND NAME -->`` and ``<!-- end -->``; NAME is a result's file name.
  What is between is replaced, what is around is not touched. A test compares page and results.
* What was not run is said so where its source would stand; its tables and its picture are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.replay.candidates import CANDIDATES
from bench.replay.results import CLAIRVOYANT, COMPARED_AT, RESULTS, read

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "autoscalers.md"
_BLOCK = re.compile(r"(<!-- replay: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_DASH = "–"
_APART = "Stoker's settings and those of the others reach no attainment in common: no ratio can be read."


def rewritten(page: str, results: Path = RESULTS) -> str:
    """The page with every table as the results have it.

    Raises:
        ValueError: a marker asks for a table of a kind that there is not.
    """

    def table(found: re.Match[str]) -> str:
        head, kind, name, end = found.groups()
        return f"{head}{_table(kind, name, results)}\n{end}"

    return _BLOCK.sub(table, page)


def _table(kind: str, name: str, results: Path) -> str:
    if kind == "runs":
        return _runs(results)
    if kind == "picture":
        return _picture(name, results)
    if kind not in _TABLES:
        raise ValueError(f"no table of kind {kind!r}; there are runs, picture, {', '.join(_TABLES)}")
    file = results / f"{name}.json"
    if file.exists():
        return _TABLES[kind](read(file))
    return f"*Not run: {name}.*" if kind == "source" else ""


def _picture(name: str, results: Path) -> str:
    """The link, beside the results."""
    exists = (results / f"{name}.svg").exists()
    return f"![GPU-hours against attainment](../../bench/results/{name}.svg)" if exists else ""


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None, digits: int = 1) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"


def _share(value: float) -> str:
    return f"{value:.2%}".replace("%", " %")


# --- One workload --------------------------------------------------------------------------------


def _costs(document: dict[str, Any]) -> str:
    """GPU-hours at equal attainment, cheapest at the highest attainment first."""
    policies = document["policies"]
    levels = [f"{level}" for level in COMPARED_AT]
    order = sorted(policies, key=lambda name: _rank(policies[name]))
    rows = []
    for name in order:
        costs = policies[name]["gpu_hours_at_attainment"]
        best = max(policies[name]["curve"], key=lambda one: (one["attainment"], -one["gpu_hours"]))
        reached = f"{_share(best['attainment'])} at {best['gpu_hours']:.1f}"
        rows.append([_name(name, policies), *(_number(costs[level]) for level in levels), reached])
    return _markdown(["GPU-hours at", *(f"{level:.1%}" for level in COMPARED_AT), "best reached"], rows)


def _rank(policy: dict[str, Any]) -> tuple[float, ...]:
    costs = policy["gpu_hours_at_attainment"]
    missing = [float("inf") if costs[f"{level}"] is None else costs[f"{level}"] for level in COMPARED_AT]
    return (*reversed(missing), -max(one["attainment"] for one in policy["curve"]))


def _name(name: str, policies: Mapping[str, Any]) -> str:
    if name.startswith("stoker"):
        return f"**{name}**"
    return f"*{name}*" if policies[name]["reference"] else name


def _settings(document: dict[str, Any]) -> str:
    """What each policy's one tuned setting, and its default, did on the scored traffic."""
    head = [
        "",
        "setting",
        "GPU-hours",
        "attained",
        "by length",
        "TTFT p95",
        "queue min",
        "reversals/day",
        "cut at 60 s",
        "capped min",
    ]
    rows = []
    for name, policy in document["policies"].items():
        for kind in ("tuned", "default"):
            one = policy[kind]
            if one is not None and not (kind == "default" and len(policy["tried"]) == 1):
                rows.append([_name(name, document["policies"]), _described(kind, one), *_conduct(one)])
    return _markdown(head, rows)


def _described(kind: str, one: dict[str, Any]) -> str:
    variant = f", {one['variant']}" if one["variant"] else ""
    return f"{kind}: {one['parameter']:g}{variant}"


def _conduct(one: dict[str, Any]) -> list[str]:
    return [
        _number(one["gpu_hours"]),
        _share(one["attainment"]),
        _share(one["attainment_by_length"]),
        f"{one['ttft'][1]:.2f} s",
        _number(one["queue_minutes"], 0),
        _number(one["reversals_per_day"], 0),
        _number(one["cut"]["60"], 0),
        _number(one["capped_minutes"], 0),
    ]


def _ratios(document: dict[str, Any]) -> str:
    """Stoker's ways beside everybody at the highest attainment at which both curves can be read."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in document["cost_ratios"]:
        best[row["policy"], row["against"]] = row  # by rising attainment
    ours = sorted({policy for policy, _ in best})
    theirs = [name for name in document["policies"] if any(against == name for _, against in best)]
    rows = [
        [_name(other, document["policies"]), *(_ratio(best.get((one, other))) for one in ours)]
        for other in theirs
    ]
    return _markdown(["cost of … over …", *(f"**{one}**" for one in ours)], rows) if rows else _APART


def _ratio(row: dict[str, Any] | None, *, at: bool = True) -> str:
    if row is None:
        return _DASH
    interval = "" if row["low"] is None else f" ({row['low']:.2f}–{row['high']:.2f})"
    return f"{row['ratio']:.2f}{interval}" + (f" at {_share(row['attainment'])}" if at else "")


def _losses(document: dict[str, Any]) -> str:
    """Who is no reference and cheaper than one of Stoker's ways, at which attainment, by how much."""
    found: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
    for row in document["cost_ratios"]:
        rival = document["policies"].get(row["against"])
        if rival is not None and not rival["reference"] and row["attainment"] in COMPARED_AT:
            found.setdefault((row["policy"], row["against"]), {})[row["attainment"]] = row
    rows = [
        [f"**{ours}**", theirs, *(_lost(at.get(level)) for level in COMPARED_AT)]
        for (ours, theirs), at in found.items()
        if not theirs.startswith("stoker") and any(row["ratio"] > 1 for row in at.values())
    ]
    head = ["dearer", "than", *(f"{level:.1%}" for level in COMPARED_AT)]
    if not found:
        return ""
    return _markdown(head, rows) if rows else "Nobody's curve is above Stoker's where both can be read."


def _lost(row: dict[str, Any] | None) -> str:
    """Bold where the interval leaves no doubt."""
    text = _ratio(row, at=False)
    sure = row is not None and row["low"] is not None and row["low"] > 1
    return f"**{text}**" if sure else text


def _source(document: dict[str, Any]) -> str:
    """Where the figures come from."""
    made, seeds = document["provenance"], len(document["seeds"])
    state = "with uncommitted changes" if made["uncommitted_changes"] else "as committed"
    tuning = document["tuning"]
    return (
        f"*{document['description']}. {seeds} scored seeds, start-up {document['start_up_seconds']} s, "
        f"{document['routing']} routing, queues in the {document['queueing']}; "
        f"tuned on {tuning['workload']} with seed {tuning['seed']}. `{made['command']}` "
        f"on {made['machine']}, commit {made['commit']} ({state}), {made['date']}.{_absent(document)}*"
    )


def _absent(document: dict[str, Any]) -> str:
    """Who was not run on this workload."""
    absent = [one.name for one in CANDIDATES if one.name not in document["policies"]]
    return f" Not run on it: {'; '.join(absent)}." if absent else ""


def _clairvoyant(document: dict[str, Any]) -> str:
    """Only the comparison with the reference that knows the future, all attainments."""
    rows = [row for row in document["cost_ratios"] if row["against"] == CLAIRVOYANT]
    ours = sorted({row["policy"] for row in rows})
    table = []
    for one in ours:
        at = {row["attainment"]: row for row in rows if row["policy"] == one}
        table.append([f"**{one}**", *(_ratio(at.get(level), at=False) for level in COMPARED_AT)])
    head = ["cost over the clairvoyant's at", *(f"{level:.1%}" for level in COMPARED_AT)]
    return _markdown(head, table) if table else ""


# --- Faults, and what was run --------------------------------------------------------------------


def _faults(document: dict[str, Any]) -> str:
    rows = document["rows"]
    faults = list(dict.fromkeys(row["fault"] for row in rows))
    found = {(row["policy"], row["fault"]): row for row in rows}
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    table = [
        [f"**{p}**" if p.startswith("stoker") else p, *(_moves(found[p, fault]) for fault in faults)]
        for p in policies
    ]
    return _markdown(
        [f"wrong moves, of {rows[0]['runs']} seed{'s' if rows[0]['runs'] > 1 else ''}", *faults], table
    )


def _moves(row: dict[str, Any]) -> str:
    return "0" if not row["wrong_way_moves"] else f"{row['wrong_way_moves']} (−{row['replicas_lost']})"


def _runs(results: Path) -> str:
    """Every result that is checked in."""
    rows = []
    for file in sorted(results.glob("replay-*.json")):
        document = read(file)
        seeds, policies = _size(document)
        link = f"[{file.stem}](../../bench/results/{file.name})"
        rows.append([link, f"{seeds}", f"{policies}", document["provenance"]["commit"]])
    return _markdown(["result", "seeds", "policies", "commit"], rows)


def _size(document: dict[str, Any]) -> tuple[int, int]:
    """(seeds, policies)."""
    if "policies" in document:
        return len(document["seeds"]), len(document["policies"])
    return document["rows"][0]["runs"], len({row["policy"] for row in document["rows"]})


_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "costs": _costs,
    "settings": _settings,
    "ratios": _ratios,
    "clairvoyant": _clairvoyant,
    "losses": _losses,
    "source": _source,
    "faults": _faults,
}
