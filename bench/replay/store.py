"""Results that are known already: an interrupted night goes on where it stopped.

Rules of this module:

* A result is found again by what was run and by the code that ran it. A change to the simulation voids
  everything; one to the operator's decisions voids Stoker's results alone.
* Code is compared without comments and docstrings: words change nothing.
* The files lie in the user's cache (``$STOKER_REPLAY_STORE`` names another folder), never in the repository.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

_SIMULATION: Final = (
    "bench/replay/calibration.py",
    "bench/replay/experiments.py",
    "bench/replay/faults.py",
    "bench/replay/fleet.py",
    "bench/replay/prometheus.py",
    "bench/replay/scores.py",
    "bench/replay/simulation.py",
    "bench/replay/traces.py",
    "bench/replay/view.py",
    "bench/replay/workloads.py",
    "bench/replay/policies/signals.py",
    "testbed/replica.py",
    "testbed/replica_models.py",
    "testbed/replica_records.py",
    "testbed/trace.py",
)
_RIVALS: Final = (
    "bench/replay/candidate.py",
    "bench/replay/rivals.py",
    *(
        f"bench/replay/policies/{name}.py"
        for name in ("aibrix", "dynamo", "hpa", "knative", "llmd", "reference")
    ),
)
_OURS: Final = ("bench/replay/candidate.py", "bench/replay/candidates.py", "bench/replay/policies/stoker.py")
_OPERATOR: Final = (
    "operator/stoker/api",
    "operator/stoker/controller/rounds.py",
    "operator/stoker/core",
)


class Store:
    """A folder of results.

    Args:
        policy: whose code counts besides the simulation's; empty for what no policy has part in.
    """

    def __init__(self, policy: str = "") -> None:
        self._code = code_of(policy)

    def load(self, key: str) -> Any:
        """What is known; None when nothing is."""
        try:
            return json.loads(self._path(key).read_text())
        except FileNotFoundError:
            return None

    def save(self, key: str, value: Any) -> None:
        """Keep a value; whoever reads meanwhile sees the old one or the new one."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(value, file)
        Path(file.name).replace(path)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{self._code}\n{key}".encode()).hexdigest()
        return folder() / name[:2] / f"{name}.json"


def folder() -> Path:
    """Where results are kept."""
    if named := os.environ.get("STOKER_REPLAY_STORE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stoker" / "replay"


@lru_cache(maxsize=4)
def _digest(sources: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for file in _files(sources):
        digest.update(f"{file.relative_to(ROOT)}\n{syntax(file.read_text())}\n".encode())
    return digest.hexdigest()


def code_of(policy: str) -> str:
    """The version of the code behind a policy's results."""
    if not policy:
        return _digest(_SIMULATION)
    if policy.startswith("stoker"):
        return _digest((*_SIMULATION, *_OURS, *_OPERATOR))
    return _digest((*_SIMULATION, *_RIVALS))


def pin() -> None:
    """Read the versions now: what is edited while a night runs is not the code that ran.

    Processes that are forked later know them too.
    """
    for policy in ("", "stoker", "rivals"):
        code_of(policy)


def _files(sources: Iterable[str]) -> Iterator[Path]:
    for source in sources:
        path = ROOT / source
        yield from sorted(path.rglob("*.py")) if path.is_dir() else (path,)


def syntax(source: str) -> str:
    """What a module does, without what it says about itself."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
    return ast.dump(tree)
