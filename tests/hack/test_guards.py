"""`hack/guards.py`: the list fits the code, and the tool notices what it has to notice."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hack import guards, guards_plugin

MODULE = "def limit(n):\n    return min(n, 9)\n\n\ndef half(n):\n    return n / 2\n"
TESTS = """
from stoker import limits


def test_limit():
    assert limits.limit(100) == 9


def test_half():
    assert limits.half(4) == 2


def test_error():
    limits.missing
"""
ENTRY = """
[[guard]]
name = "{name}"
why = "Nobody may have more."
file = "operator/stoker/limits.py"
text = "{text}"
without = "{without}"
tests = ["tests/test_limits.py::{test}"]
"""
PROVES_NOTHING = {
    # What is wrong: the text, what stands there without it, the test, and what is said of it.
    "harmless": ("min(n, 9)", "min(n, 9.0)", "test_limit", "1 of 1 passed"),
    "another-test": ("min(n, 9)", "n", "test_half", "1 of 1 passed"),
    "an-error": ("min(n, 9)", "n.nothing", "test_limit", "1 of 1 otherwise AttributeError"),
    "failing-anyway": ("min(n, 9)", "n", "test_error", "fails with the guard: 1 of 1 otherwise Attribute"),
    "no-python": ("min(n, 9)", "min(n, ", "test_limit", "is no Python without it"),
    "no-change": ("min(n, 9)", "min(n, 9)", "test_limit", "text and without are the same"),
    "no-such-text": ("min(9, n)", "n", "test_limit", "limits.py has this 0 times, not once"),
}


# --- The list ------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", guards.load(), ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_list_says(guard: guards.Guard, repository: Path):
    assert guard.why
    assert guard.tests
    for cut in guard.cuts:
        cut.made(repository)  # raises unless its text is there, once


NAMED = sorted({test for guard in guards.load() for test in guard.tests})


@pytest.mark.parametrize("file", sorted({test.partition("::")[0] for test in NAMED}))
def test_a_file_of_the_list_has_the_tests_that_are_named(file: str, repository: Path):
    code = ast.parse((repository / file).read_text())
    known = {node.name for node in ast.walk(code) if hasattr(node, "name")}
    names = {test.partition("[")[0] for test in NAMED if test.startswith(f"{file}::")}
    assert {part for name in names for part in name.split("::")[1:]} <= known


@pytest.mark.slow
def test_the_tests_of_the_list_exist(repository: Path):
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *NAMED]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    collected = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert collected.returncode == 0, collected.stdout[-2000:]


# --- The tool ------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small source tree with one guard."""
    monkeypatch.setattr(guards, "LOGS", tmp_path / "logs")
    root = tmp_path / "source"
    plugin = (repository / "hack" / "guards_plugin.py").read_text()
    files = {
        "operator/stoker/__init__.py": "",
        "operator/stoker/limits.py": MODULE,
        "testbed/__init__.py": "",
        "tests/test_limits.py": TESTS,
        "hack/guards_plugin.py": plugin,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


@pytest.mark.slow
def test_a_guard_whose_removal_fails_its_test_is_noticed(tree: Path, capsys: pytest.CaptureFixture[str]):
    entry = ENTRY.format(name="the-limit", text="min(n, 9)", without="n", test="test_limit")
    (tree / "tests" / "guards.toml").write_text(entry)
    assert guards.main([], source=tree) == 0
    said = capsys.readouterr().out
    assert "noticed: the-limit: AssertionError: assert 100 == 9" in said
    assert "1 of 1 guards are noticed when they are gone" in said
    assert (tree / "operator" / "stoker" / "limits.py").read_text() == MODULE, "the tree is never touched"


@pytest.mark.slow
def test_what_proves_nothing_is_told(tree: Path, capsys: pytest.CaptureFixture[str]):
    entries = [
        ENTRY.format(name=name, text=text, without=without, test=test)
        for name, (text, without, test, _) in PROVES_NOTHING.items()
    ]
    (tree / "tests" / "guards.toml").write_text("".join(entries))
    assert guards.main([], source=tree) == 1
    told = capsys.readouterr().out
    for name, (*_, says) in PROVES_NOTHING.items():
        words = told.partition(f"NOT NOTICED: {name}: ")[2].partition("NOT NOTICED: ")[0]
        assert says in words, name
    assert f"0 of {len(entries)} guards are noticed when they are gone" in told


@pytest.mark.slow
def test_a_test_that_is_gone_is_told(tree: Path, capsys: pytest.CaptureFixture[str]):
    entry = ENTRY.format(name="the-limit", text="min(n, 9)", without="n", test="test_gone")
    (tree / "tests" / "guards.toml").write_text(entry)
    assert guards.main([], source=tree) == 1
    assert "test_gone fails with the guard: was not run" in capsys.readouterr().out


def test_a_pattern_chooses_guards_files_or_tests(tree: Path):
    (guard,) = [g for g in guards.load() if g.name == "the-sweep-forgets-what-the-watches-lost"]
    assert guard.narrowed("sweep-forgets") == guard.narrowed("controller/sweep") == guard
    narrowed = guard.narrowed("test_operator_apiserver")
    assert narrowed is not None
    assert {test.partition("::")[0] for test in narrowed.tests} == {
        "tests/cluster/test_operator_apiserver.py"
    }
    assert guard.narrowed("nothing like it") is None


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('[[guard]]\nname = "x"\n', "missing or unknown"),
        (
            ENTRY.format(name="the-limit", text="9", without="n", test="t") * 2,
            "more than one guard is called the-limit",
        ),
    ],
    ids=["a field is missing", "one name twice"],
)
def test_a_list_that_cannot_be_read_is_told(tmp_path: Path, entry: str, says: str):
    (tmp_path / "guards.toml").write_text(entry)
    with pytest.raises(guards.GuardError, match=says):
        guards.load(tmp_path / "guards.toml")


@pytest.mark.parametrize(
    ("error", "when", "outcome"),
    [
        (None, "call", "passed"),
        (AssertionError("assert 1 == 2"), "call", "caught"),
        (AssertionError("a fixture's"), "setup", "otherwise"),
        (ExceptionGroup("two", [AssertionError(), AssertionError()]), "call", "caught"),
        (ExceptionGroup("two", [AssertionError(), ValueError()]), "call", "otherwise"),
        (pytest.fail.Exception("DID NOT RAISE"), "call", "caught"),
        (pytest.fail.Exception("Timeout (>300.0s) from pytest-timeout."), "call", "otherwise"),
        (ValueError("not enough values to unpack"), "call", "otherwise"),
    ],
)
def test_only_an_assertion_that_fails_is_a_catch(error: Exception | None, when: str, outcome: str):
    assert guards_plugin.outcome(error, when) == outcome
