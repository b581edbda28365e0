"""Results as they are checked in: JSON that says what was run, by which code, where, and what came out.

Rules of this module:

* Everything on the page and in the pictures is read from these files; nothing is put together by hand.
* Five digits after the point: more is noise, and results are compared line by line.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from bench.replay import store
from bench.replay.candidate import BUDGET, Choice
from bench.replay.curves import Ratio, Seeds, cost_at, mean_curve, ratio
from bench.replay.experiments import MODEL, Case, capacity_for, prepare
from bench.replay.method import Scored, mean_score, standard
from bench.replay.simulation import Queueing, Routing

RESULTS = Path(__file__).parents[1] / "results"
COMPARED_AT = (0.95, 0.98, 0.99, 0.995)
CLAIRVOYANT = "clairvoyant heuristic"


def gpus_of(model: str) -> int:
    """GPUs of a replica, from its model's name: ``…-2xh100``.

    Raises:
        ValueError: the name does not say.
    """
    found = re.search(r"-(\d+)x[a-z]\w+$", model)
    if found is None:
        raise ValueError(f"replica model {model!r} does not end in the GPUs of a replica, as -2xh100 does")
    return int(found[1])


def name_of(case: Case) -> str:
    """File name of a case's results, without its ending."""
    parts = ["replay", case.workload, f"{case.start_up}s"]
    parts += [] if case.routing is Routing.LEAST_LOADED else [case.routing.value]
    parts += [] if case.queueing is Queueing.ENGINE else [f"{case.queueing.value}-queue"]
    parts += [] if case.model == MODEL else [case.model]
    parts += [] if case.calibrated_on == case.model else [f"calibrated-on-{case.calibrated_on}"]
    return "-".join(parts)


def document(cases: Sequence[Case], outcome: Sequence[Scored], command: str) -> dict[str, Any]:
    """All of an experiment, as plain values."""
    case, tuning = cases[0], standard(cases[0])
    prepared = prepare(case)
    found: dict[str, Any] = rounded(
        {
            "workload": case.workload,
            "description": prepared.workload.description,
            "start_up_seconds": case.start_up,
            "routing": case.routing.value,
            "queueing": case.queueing.value,
            "model": case.model,
            "calibrated_on": case.calibrated_on,
            "gpus_per_replica": gpus_of(case.model),
            "capacity_of_a_replica": capacity_for(case).as_json(),
            "tuning": {"workload": tuning.workload, "seed": tuning.seed, "budget": BUDGET},
            "seeds": [one.seed for one in cases],
            "max_replicas": prepared.setting.maximum,
            "policies": {one.candidate.name: _policy(one) for one in outcome},
            "cost_ratios": _ratios(outcome),
            "provenance": provenance(command, (one.candidate.name for one in outcome)),
        }
    )
    return found


def _policy(one: Scored) -> dict[str, Any]:
    default = one.candidate.default
    curve = [(sum(p[0] for p in seeds.values()), choice) for choice, seeds in one.curve.items()]
    seeds = sorted(next(iter(one.curve.values())))
    points = mean_curve(list(one.curve.values()), seeds)
    return {
        "parameter": one.candidate.parameter,
        "reference": one.candidate.reference,
        "tried": [{**_setting(c), "gpu_hours": h, "attainment": a} for c, (h, a) in one.tried.items()],
        "gpu_hours_at_attainment": {f"{level}": cost_at(points, level) for level in COMPARED_AT},
        "curve": [_scored(one, choice) for _, choice in sorted(curve)],
        "tuned": _scored(one, one.tuned),
        "default": None if default is None else _scored(one, default),
    }


def _setting(choice: Choice) -> dict[str, Any]:
    return {"parameter": choice.parameter, "variant": choice.variant}


def _scored(one: Scored, choice: Choice) -> dict[str, Any]:
    """One setting: the mean of its scores, and its point for each seed."""
    runs = one.runs[choice]
    points = [[r.job.case.seed, r.score["replica_hours"], r.score["attainment"]] for r in runs]
    gpus = gpus_of(runs[0].job.case.model)
    mean = mean_score(runs)
    return {
        **_setting(choice),
        "gpu_hours": mean["replica_hours"] * gpus,
        **mean,
        "by_seed": [{"seed": s, "gpu_hours": h * gpus, "attainment": a} for s, h, a in points],
    }


def _ratios(outcome: Sequence[Scored]) -> list[dict[str, Any]]:
    """Each of Stoker's ways against everybody else, at each attainment."""
    ours = [one for one in outcome if one.candidate.name.startswith("stoker")]
    theirs = [one for one in outcome if not one.candidate.name.startswith("stoker")]
    found = []
    for one, other in product(ours, theirs):
        for level in COMPARED_AT:
            compared = ratio(_curve(one), _curve(other), level)
            if compared.value is not None:
                found.append(_compared(one, other, level, compared))
    return found + _defaults(ours)


def _compared(one: Scored, other: Scored, level: float, found: Ratio) -> dict[str, Any]:
    names = {"policy": one.candidate.name, "against": other.candidate.name}
    return {**names, "attainment": level, **found.as_json()}


def _defaults(ours: Sequence[Scored]) -> list[dict[str, Any]]:
    """What a user has who states nothing, beside Stoker's tuned curves at the attainment that it reaches."""
    found = []
    for plain in (one for one in ours if len(one.candidate.choices) == 1):
        [point] = mean_curve(_curve(plain), sorted(_curve(plain)[0]))
        for tuned in (one for one in ours if one is not plain):
            cost = cost_at(mean_curve(_curve(tuned), sorted(_curve(tuned)[0])), point[1])
            if cost is not None:
                found.append(_compared(plain, tuned, point[1], Ratio(point[0] / cost)))
    return found


def _curve(one: Scored) -> list[Seeds]:
    return list(one.curve.values())


# --- Where it comes from -------------------------------------------------------------------------


def provenance(command: str, policies: Iterable[str]) -> dict[str, Any]:
    """Command, machine, commit and code behind a result."""
    versions = {("stoker" if p.startswith("stoker") else "rivals"): store.code_of(p)[:16] for p in policies}
    return {
        "command": command,
        "machine": f"{_processor()}, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(
            _git("status", "--porcelain", "--", "bench/replay", "operator", "testbed")
        ),
        "code": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    """The CPU's name; the machine's kind where nobody says."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown processor"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else "unknown processor"


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=store.ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def rounded(value: Any) -> Any:
    """Floats with five digits after the point."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def write(path: Path, value: dict[str, Any]) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A JSON file, back."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
