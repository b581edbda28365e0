"""Take out one guard at a time, and see the tests fail that are about it.

`python hack/guards.py` reads `tests/guards.toml`. Each entry there names a guard in the code, what the code
would be without it, and the tests that must fail then. All tests named have to pass with every guard in
place; after that each guard is taken out of a copy of the source tree (the tree itself is never touched),
and each of its tests has to fail, by an assertion: an error or a time-out would prove nothing. It exits with
1 when a guard's removal goes unnoticed, or when an entry does not fit the code any more.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "guards.toml"
LOGS = ROOT / "out" / "guards"


class GuardError(Exception):
    """An entry of the list, or the copy of the code, is not what it has to be."""


# --- The list ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """One text in the code, and what stands there without the guard."""

    file: str
    text: str
    without: str

    def made(self, root: Path) -> str:
        """The file without the guard.

        Raises:
            GuardError: the text is not there exactly once, or what is left is no Python.
        """
        whole = (root / self.file).read_text() if (root / self.file).is_file() else ""
        if whole.count(self.text) != 1:
            raise GuardError(f"{self.file} has this {whole.count(self.text)} times, not once:\n{self.text}")
        left = whole.replace(self.text, self.without)
        if left == whole:
            raise GuardError(f"{self.file}: text and without are the same")
        if self.file.endswith(".py"):
            _parse(left, self.file)
        return left


def _parse(code: str, file: str) -> None:
    try:
        ast.parse(code)
    except SyntaxError as error:
        raise GuardError(f"{file} is no Python without it: {error}") from error


@dataclass(frozen=True)
class Guard:
    """What protects a fleet, and the tests that must fail without it."""

    name: str
    why: str
    cuts: tuple[Cut, ...]
    """More than one where one layer hides that another is gone."""
    tests: tuple[str, ...]
    """pytest's ids; one without brackets stands for all cases of the test."""

    def narrowed(self, pattern: str) -> Guard | None:
        """The guard, if a pattern as in a shell means it or a file of it; else with the tests it means."""
        if any(_means(pattern, name) for name in (self.name, *(cut.file for cut in self.cuts))):
            return self
        return self.with_tests(test for test in self.tests if _means(pattern, test))

    def with_tests(self, tests: Iterable[str]) -> Guard | None:
        """The guard with some of its tests; None when there are none."""
        found = tuple(tests)
        return replace(self, tests=found) if found else None


def _means(pattern: str, name: str) -> bool:
    return pattern in name or fnmatchcase(name, pattern)


def load(file: Path = LIST) -> list[Guard]:
    """The guards of a list.

    Raises:
        GuardError: an entry lacks a field, has an unknown one, or the name of another.
    """
    entries = tomllib.loads(file.read_text()).get("guard", [])
    guards = [_guard(entry) for entry in entries]
    names = [guard.name for guard in guards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GuardError(f"more than one guard is called {', '.join(twice)}")
    return guards


def _guard(entry: Mapping[str, Any]) -> Guard:
    known = {"name", "why", "file", "text", "without", "also", "tests"}
    needed = known - {"also"}
    if not needed <= entry.keys() <= known:
        raise GuardError(
            f"{entry.get('name')}: {sorted(needed ^ entry.keys() - {'also'})} missing or unknown"
        )
    first = Cut(entry["file"], entry["text"], entry["without"])
    also = (Cut(**cut) for cut in entry.get("also", ()))
    return Guard(entry["name"], entry["why"], (first, *also), tuple(entry["tests"]))


# --- The copy ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a test ended."""

    outcome: str
    """``passed``, ``caught`` or ``otherwise``."""
    why: str


class Copy:
    """A copy of the source tree whose code is run instead of the tree's own.

    Args:
        root: where it is.
        workers: tests at once.
    """

    def __init__(self, root: Path, workers: int = 0) -> None:
        self.root = root
        self._workers = workers

    def run(self, tests: Sequence[str], log: Path) -> dict[str, Ended]:
        """Run tests; how each case of them ended, by its id.

        Raises:
            GuardError: something else than the copy was tested.
        """
        report = self.root.parent / "report.jsonl"
        report.unlink(missing_ok=True)
        options = ["--quiet", "-p", "no:cacheprovider", "-p", "hack.guards_plugin"]
        options += [f"--basetemp={self.root.parent / 'run'}", "--numprocesses", str(self._workers)]
        command = [sys.executable, "-m", "pytest", *options, "--dist", "loadscope", *tests]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            environment = self._environment(report)
            subprocess.run(command, cwd=self.root, env=environment, stdout=output, stderr=output, check=False)
        facts = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        for where in (place for fact in facts for place in fact.get("imported", {}).values()):
            if not Path(where).is_relative_to(self.root):
                raise GuardError(f"tests import from {where}, not from the copy in {self.root}")
        return _ended(facts)

    def _environment(self, report: Path) -> dict[str, str]:
        """The caller's, with the copy before an editable install and without a trace of an outer pytest."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        paths = os.pathsep.join([str(self.root), str(self.root / "operator")])
        return {**kept, "PYTHONPATH": paths, "GUARDS_REPORT": str(report)}

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        """Take a guard out, and put it back.

        Raises:
            GuardError: the code has changed, and the entry does not fit it any more.
        """
        before = {cut.file: (self.root / cut.file).read_bytes() for cut in guard.cuts}
        try:
            for cut in guard.cuts:
                self._write(cut.file, cut.made(self.root).encode())
            yield
        finally:
            for file, content in before.items():
                self._write(file, content)

    def _write(self, file: str, content: bytes) -> None:
        """Write a module, and forget its bytecode: that is told apart by size and second alone."""
        path = self.root / file
        path.write_bytes(content)
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            stale.unlink()


def _ended(facts: Sequence[Mapping[str, Any]]) -> dict[str, Ended]:
    """The last word on each test; an assertion that failed is not undone by trouble in the teardown."""
    found: dict[str, Ended] = {}
    for fact in facts:
        if "test" in fact and found.get(fact["test"], Ended("", "")).outcome != "caught":
            found[fact["test"]] = Ended(fact["outcome"], fact["why"])
    return found


@contextmanager
def copied(source: Path, commit: str | None, workers: int) -> Iterator[Copy]:
    """A copy of the source tree as it is, or as a commit has it; it goes when it is not needed any more."""
    with tempfile.TemporaryDirectory(prefix="stoker-guards-") as folder:
        root = Path(folder).resolve() / "tree"
        root.mkdir()
        if commit is not None:
            archive = subprocess.run(
                ["git", "archive", commit], cwd=source, capture_output=True, check=True
            ).stdout
            with tarfile.open(fileobj=BytesIO(archive)) as tar:
                tar.extractall(root, filter="data")
        else:
            for file in _files(source):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / file, root / file)
        yield Copy(root, workers)


def _files(source: Path) -> list[str]:
    """What git knows, or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=source, capture_output=True, check=True, text=True).stdout
    return [file for file in sorted(set(listed.split("\0")) - {""}) if (source / file).is_file()]


# --- The verdicts --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of one guard."""

    guard: Guard
    noticed: bool
    words: str
    seconds: float = 0.0


def passing(copy: Copy, guards: Sequence[Guard]) -> dict[str, str]:
    """What is wrong with tests while every guard is in place: nothing may be."""
    tests = list(dict.fromkeys(test for guard in guards for test in guard.tests))
    ended = copy.run(tests, LOGS / "with-all-guards.log")
    return {test: why for test in tests if (why := _lacking(cases_of(test, ended), "passed"))}


def judged(copy: Copy, guard: Guard, failing: Mapping[str, str]) -> Verdict:
    """Take one guard out, and say whether all of its tests notice."""
    started = time.monotonic()
    before = [f"{test} fails with the guard: {failing[test]}" for test in guard.tests if test in failing]
    if before:
        return Verdict(guard, noticed=False, words="; ".join(before))
    try:
        with copy.without(guard):
            ended = copy.run(guard.tests, LOGS / f"{guard.name}.log")
    except GuardError as error:
        return Verdict(guard, noticed=False, words=str(error))
    wrong = [f"{t}: {why}" for t in guard.tests if (why := _lacking(cases_of(t, ended), "caught"))]
    caught = "; ".join(sorted({e.why for e in ended.values()}))
    return Verdict(guard, not wrong, "; ".join(wrong) or caught, time.monotonic() - started)


def cases_of(test: str, ended: Mapping[str, Ended]) -> dict[str, Ended]:
    """The cases that an id stands for."""
    return {case: end for case, end in ended.items() if case == test or case.startswith(f"{test}[")}


def _lacking(cases: Mapping[str, Ended], expected: str) -> str:
    """Why the cases of a test do not all end as they should; nothing when they do."""
    if not cases:
        return "was not run"
    wrong = [f"{end.outcome} {end.why}".strip() for end in cases.values() if end.outcome != expected]
    return f"{len(wrong)} of {len(cases)} {wrong[0]}" if wrong else ""


def _chosen(guards: Iterable[Guard], pattern: str, *, fast: bool) -> list[Guard]:
    """The guards that are meant; without the tests that need a control plane when it has to go fast."""
    meant = [found for guard in guards if (found := guard.narrowed(pattern))]
    if not fast:
        return meant
    without = (g.with_tests(t for t in g.tests if not t.startswith("tests/cluster/")) for g in meant)
    return [guard for guard in without if guard]


def _table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    width = max(len(v.guard.name) for v in verdicts)
    for v in verdicts:
        mark = "noticed" if v.noticed else "NOT NOTICED"
        cases = f"{len(v.guard.tests)} test" + "s" * (len(v.guard.tests) != 1)
        yield f"{v.guard.name:<{width}}  {mark:<11}  {cases:>8}  {v.seconds:4.0f} s  {v.guard.cuts[0].file}"


def main(arguments: Sequence[str] | None = None, source: Path = ROOT) -> int:
    """Run the tool; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="guards, files or tests, as in a shell")
    parser.add_argument("--fast", action="store_true", help="leave out the tests on a control plane")
    parser.add_argument("--commit", metavar="REF", help="what to copy; by default the source tree as it is")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="tests at once")
    parser.add_argument("--trust", action="store_true", help="skip the run with every guard in place")
    options = parser.parse_args(arguments)
    guards = _chosen(load(source / LIST.relative_to(ROOT)), options.only, fast=options.fast)
    if not guards:
        print(f"no guard matches {options.only!r}", file=sys.stderr)
        return 2
    verdicts = []
    with copied(source, options.commit, options.workers) as copy:
        failing = {} if options.trust else passing(copy, guards)
        for guard in guards:
            verdict = judged(copy, guard, failing)
            print(
                f"{'noticed' if verdict.noticed else 'NOT NOTICED'}: {guard.name}: {verdict.words}",
                flush=True,
            )
            verdicts.append(verdict)
    unnoticed = sum(not v.noticed for v in verdicts)
    print("", *_table(verdicts), sep="\n")
    print(f"{len(verdicts) - unnoticed} of {len(verdicts)} guards are noticed when they are gone")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
