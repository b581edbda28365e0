"""What was measured, as JSON that is checked in: each section with where, when, and by which command.

A section that is measured again replaces itself alone: sections may come from different runs.
"""

import json
from pathlib import Path

from bench.controller.results import Figures, provenance
from testbed.binaries import PROGRAMS, module_version

FILE = Path(__file__).parents[1] / "results" / "peers.json"
_VERSIONED = ("keda-operator", "kube-controller-manager", "prometheus", "kwok")
_SOURCES = ("operator", "testbed", "bench/peers", "bench/replay")


def save(name: str, section: Figures, path: Path = FILE) -> None:
    """Put one section into the file, in place of an earlier one."""
    known: Figures = json.loads(path.read_text()) if path.exists() else {}
    sections = {**known.get("sections", {}), name: {"measured": origin(), **section}}
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": "peers", "sections": dict(sorted(sections.items()))}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def origin() -> Figures:
    """Date, commit, command, machine, and the versions of what is real."""
    found = provenance("bench.peers", _SOURCES)
    modules = {name: module_version(PROGRAMS[name].family) for name in _VERSIONED}
    return {**found, "versions": {**found["versions"], **modules}}
