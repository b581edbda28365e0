"""The reference pages are what the code makes of them, and say everything that there is."""

import re

import pytest

from stoker.__main__ import GENERATED
from stoker.api import meta
from stoker.telemetry.metrics import FleetRow, Metrics
from tests.docs.markdown import ROOT


@pytest.mark.parametrize("file", sorted(GENERATED))
def test_generated_pages_are_checked_in_as_they_are_made(file: str):
    assert (ROOT / file).read_text() == GENERATED[file](), f"{file} drifted: run `make generate`"


def test_every_reference_page_is_generated():
    pages = {f"docs/reference/{page.name}" for page in (ROOT / "docs" / "reference").glob("*.md")}
    assert pages == {file for file in GENERATED if file.startswith("docs/reference/")}


def test_every_metric_is_in_the_reference():
    metrics = Metrics()
    metrics.fleet(list[FleetRow])
    served = {
        family.name if family.type != "counter" else f"{family.name}_total"
        for family in metrics.registry.collect()
        if family.name.startswith("stoker_") and family.type != "info"
    }
    described = set(re.findall(r"^\| `(stoker_\w+)`", GENERATED["docs/reference/metrics.md"](), re.MULTILINE))
    assert described == served
    assert len(served) > 15


def test_every_label_and_annotation_is_in_the_reference():
    names = {
        value
        for constant, value in vars(meta).items()
        if constant.startswith(("LABEL_", "ANNOTATION_", "FIELD_MANAGER"))
    }
    page = meta.reference_markdown()
    assert {one for one in names if f"| `{one}` |" not in page} == set()
    assert len(names) > 10
