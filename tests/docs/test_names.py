"""Names in the documentation are those of the code: settings, reasons, fields, metrics."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker import settings
from stoker.api.conditions import ConditionType, Reason
from stoker.api.schema import crd_yaml
from stoker.telemetry.metrics import reference_markdown
from tests.docs.markdown import ROOT, pages

PAGES = [page for page in pages() if not page.is_relative_to(ROOT / "tests")]
GUIDE = ROOT / "docs" / "how-to" / "debug-a-fleet.md"
FAILURES = ROOT / "docs" / "explanation" / "failure-modes.md"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist(page: Path):
    known = {settings.variable(field) for field in dataclasses.fields(settings.Settings)}
    passed_to_engines = {"STOKER_MODEL_URI"}
    testbeds = {"STOKER_LOG"}
    named = set(re.findall(r"\bSTOKER_[A-Z_]+\b", page.read_text()))
    assert named - known - passed_to_engines - testbeds == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_metrics_of_the_operator_exist(page: Path):
    named = set(re.findall(r"`(stoker_[a-z_]*[a-z])`", page.read_text()))
    assert {metric for metric in named if f"`{metric}`" not in reference_markdown()} == set()


@pytest.mark.parametrize("page", [GUIDE, FAILURES], ids=name)
def test_conditions_and_reasons_exist(page: Path):
    known = {str(one) for one in (*ConditionType, *Reason)} | {"True", "False", "Unknown"}
    cells = [line for line in page.read_text().splitlines() if line.startswith("|")]
    named = {
        part
        for line in cells
        for word in re.findall(r"`([A-Z][a-z]\w*(?:=\w+)?)`", line)
        for part in word.split("=")
    }
    assert named
    assert named - known == set()


@functools.cache
def schema() -> dict[str, Any]:
    (version,) = yaml.safe_load(crd_yaml())["spec"]["versions"]
    root: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return root


OF_PODS = {"status.podIP"}


def exists(path: str) -> bool:
    node = schema()
    for part in re.split(r"[.\[]", path):
        node = node.get("items", node)
        if part == "]" or part.rstrip("]").isdigit() or "x-kubernetes-preserve-unknown-fields" in node:
            continue
        if part not in node.get("properties", {}):
            return "additionalProperties" in node
        node = node["properties"][part]
    return True


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fields_exist(page: Path):
    text = page.read_text()
    named = set(re.findall(r"`((?:spec|status)\.[\w.\[\]]*\w)`", text))
    assert [path for path in sorted(named - OF_PODS) if not exists(path)] == []


def test_fields_that_do_not_exist_are_noticed():
    assert exists("spec.accelerators[0].tokensPerSecond")
    assert exists("spec.template.metadata.annotations")
    assert exists("spec.template.spec.containers")
    assert not exists("spec.scaling.windows.sideways")
    assert not exists("status.nothing")
