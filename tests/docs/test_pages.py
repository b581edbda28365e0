"""The documentation holds together: links lead somewhere, commands exist, examples can be acted on."""

import re
from pathlib import Path

import pytest

from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core.engines import engine_for
from tests.docs.markdown import ROOT, anchors, blocks, links, model_deployments, pages

PAGES = pages()
DOCS = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for link in links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no {target}"
        assert not anchor or anchor in anchors(target.read_text()), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_paths_of_a_machine(page: Path):
    found = re.findall(r"(?:/work|/root|/home|/tmp|\.\./shared)/\S*", page.read_text())
    assert found == []


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in links(index.read_text()) if ":" not in link}
    assert set(DOCS) - linked - {index} == set()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path):
    text = page.read_text()
    code = [*re.findall(r"`([^`\n]+)`", text), *blocks(text, "console"), *blocks(text, "sh")]
    named = {target for part in code for target in re.findall(r"\bmake ([a-z][a-z-]+)", part)}
    assert named <= targets()


def test_every_target_that_a_contributor_needs_is_named():
    text = (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "README.md").read_text()
    assert {
        target for target in ("demo", "test", "test-fast", "lint", "verify", "shell") if target not in text
    } == set()


EXAMPLES = [
    pytest.param(obj, id=f"{name(page)}: {obj['metadata']['name']}")
    for page in PAGES
    for obj in model_deployments(page.read_text())
]


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("example", EXAMPLES)
def test_stoker_can_act_on_an_example(example):
    spec = ModelDeploymentSpec.model_validate(example["spec"])
    assert engine_for(spec).refused() == ()


def test_every_failure_mode_is_a_test():
    text = (ROOT / "docs" / "explanation" / "failure-modes.md").read_text()
    rows = re.findall(r"^\|.*\| ([\d, ]+) \|$", text, re.MULTILINE)
    tests = dict(re.findall(r"^(\d+)\. `(\w+\.py)`", text, re.MULTILINE))
    assert {number.strip() for row in rows for number in row.split(",")} == set(tests)
    assert len(rows) >= 20
    for line in re.findall(r"^\d+\. .*$", text, re.MULTILINE):
        file, *functions = re.findall(r"`([^`]+)`", line)
        source = (ROOT / "tests" / "cluster" / file).read_text()
        assert functions
        assert [one for one in functions if f"\ndef {one}(" not in source] == []


def test_the_six_lines_are_those_of_the_sample():
    sample = (ROOT / "manifests" / "samples" / "six-lines.yaml").read_text()
    lines = "".join(line for line in sample.splitlines(keepends=True) if not line.startswith("#"))
    assert len(lines.splitlines()) == 6
    for page in (ROOT / "README.md", ROOT / "docs" / "tutorial" / "first-fleet.md"):
        assert blocks(page.read_text(), "yaml")[0] == lines
