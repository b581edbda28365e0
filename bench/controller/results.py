"""What was measured, as JSON that is checked in: each size with where, when, and by which command.

Rules of this module:

- A size that is measured again replaces itself alone: sizes may come from different days.
- A figure says its unit in its name. The spread is all repetitions, not their mean.
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

Figures = dict[str, Any]

FILE = Path(__file__).parents[1] / "results" / "controller.json"
_PACKAGES = ("kopf", "kubernetes", "aiohttp", "pydantic", "prometheus-api-client")
_SOURCES = ("operator", "bench/controller")
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit that one figure must stay below.

    Attributes:
        name: what is promised.
        phase: where the figure is.
        figure: its name.
        limit: in the figure's unit.
        models: the size that it is promised for; None for every size.
    """

    name: str
    phase: str
    figure: str
    limit: float
    models: int | None = None


GOALS = (
    Goal("10,000 objects in 30 s of CPU", "restart", "cpu_seconds", 30.0, 10_000),
    Goal("10,000 objects in 500 MB", "restart", "peak_mib", 500e6 / 2**20, 10_000),
    Goal("no API write while nothing happens", "quiet", "api_writes", 0.0),
    Goal("a tick of 1,000 models in 1 s", "tick", "tick_seconds", 1.0, 1_000),
    Goal("a pod within 2 s of the tick that sees the demand", "reaction", "tick_to_pod_max_seconds", 2.0),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal against a size's worst repetition."""

    goal: Goal
    measured: float

    @property
    def met(self) -> bool:
        """Whether the figure stays within the limit."""
        return self.measured <= self.goal.limit

    @property
    def share(self) -> float | None:
        """Measured ÷ limit; None where the limit is zero."""
        return self.measured / self.goal.limit if self.goal.limit else None


def verdicts(models: int, runs: Sequence[Mapping[str, Figures]]) -> list[Verdict]:
    """Judge a size by its worst repetition; goals whose phase was not measured are left out."""
    found = []
    for goal in GOALS:
        measured = [run[goal.phase][goal.figure] for run in runs if goal.phase in run]
        if measured and goal.models in {None, models}:
            found.append(Verdict(goal, max(measured)))
    return found


def spread(values: Sequence[float]) -> Figures:
    """Return minimum, median and maximum, and how many there were."""
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def summary(runs: Sequence[Mapping[str, Figures]]) -> dict[str, Figures]:
    """Return the spread of every number that each repetition has, by phase."""
    return {
        phase: {
            name: spread([run[phase][name] for run in runs])
            for name, value in runs[0][phase].items()
            if isinstance(value, int | float) and all(name in run.get(phase, ()) for run in runs)
        }
        for phase in runs[0]
    }


def entry(models: int, pods: int, runs: Sequence[Mapping[str, Figures]]) -> Figures:
    """Return everything about one size."""
    return {
        "model_deployments": models,
        "pods": pods,
        "measured": provenance(),
        "goals": [
            {
                "goal": verdict.goal.name,
                "figure": f"{verdict.goal.phase}.{verdict.goal.figure}",
                "limit": round(verdict.goal.limit, 3),
                "worst": round(verdict.measured, 3),
                "share_of_limit": None if verdict.share is None else round(verdict.share, 3),
                "met": verdict.met,
            }
            for verdict in verdicts(models, runs)
        ],
        "summary": summary(runs),
        "runs": list(runs),
    }


def save(size: Figures, path: Path = FILE) -> None:
    """Put one size into the file, in place of an earlier one."""
    known: Figures = json.loads(path.read_text()) if path.exists() else {}
    sizes = {**known.get("sizes", {}), str(size["model_deployments"]): size}
    ordered = dict(sorted(sizes.items(), key=lambda item: int(item[0])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": "controller", "sizes": ordered}, indent=2) + "\n")


# --- Where, when and how -------------------------------------------------------------------------


def provenance(program: str = "bench.controller", sources: Sequence[str] = _SOURCES) -> Figures:
    """Return date, commit, command, machine and versions.

    Args:
        program: the module that was run.
        sources: paths whose uncommitted changes the commit is marked for.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(sources),
        "command": shlex.join(["python", "-m", program, *_arguments(sys.argv[1:])]),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _arguments(given: Sequence[str]) -> list[str]:
    """The command line without the place of the results, which is this machine's own business."""
    kept = list(given)
    if "--output" in kept:
        place = kept.index("--output")
        del kept[place : place + 2]
    return kept


def _commit(sources: Sequence[str]) -> str:
    """The commit; with a plus when files of the operator or the benchmark differ from it."""
    root = Path(__file__).parents[2]
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", *sources)
    return f"{head}+" if changed else head


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
