"""A pytest plugin for `hack/guards.py`: it notes what was imported, and how each test ended.

It appends JSON lines to the file that `GUARDS_REPORT` names: one with the places of the packages, from every
process of the run, and one for each test with its outcome: ``passed``, ``caught`` (an assertion failed) or
``otherwise`` (an error, a time-out, a skip: it says nothing about a guard).
"""

import importlib.util
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

PACKAGES = ("stoker", "testbed", "tests")


def pytest_configure() -> None:
    """Let a property end with its first counterexample: to make it smaller takes minutes."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("guards", settings.default, phases=phases, report_multiple_bugs=False)
    settings.load_profile("guards")


def pytest_sessionstart() -> None:
    """Note where the code under test comes from."""
    _note(imported={name: _place(name) for name in PACKAGES})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how a test ended, and whether it was an assertion that failed."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if error is not None or report.when == "call":
        _note(test=item.nodeid, outcome=outcome(error, report.when), why=_first_line(error))
    return report


def outcome(error: BaseException | None, when: str | None) -> str:
    """What the end of a phase says about the guard that was taken out."""
    if error is None:
        return "passed"
    return "caught" if when == "call" and _asserted(error) else "otherwise"


def _asserted(error: BaseException) -> bool:
    """Whether an assertion failed: of several failures, as Hypothesis reports them, each."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_asserted, error.exceptions))
    timed_out = str(error).startswith("Timeout")  # pytest-timeout ends a test with pytest.fail() as well
    return isinstance(error, AssertionError) or (isinstance(error, pytest.fail.Exception) and not timed_out)


def _first_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0] if error is not None else ""


def _place(package: str) -> str:
    """The folder that a package is taken from; the first one, of a package without `__init__.py`."""
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return places[0] if places else ""


def _note(**facts: Any) -> None:
    with Path(os.environ["GUARDS_REPORT"]).open("a") as report:
        report.write(json.dumps(facts) + "\n")
