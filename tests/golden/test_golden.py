"""Every manifest is what its golden file says, and no golden file is left over."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    """`render.py` beside this file: with importlib mode, test folders are not on the path."""
    spec = importlib.util.spec_from_file_location("golden_render", Path(__file__).with_name("render.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


render = _load()


@pytest.mark.parametrize("name", render.names())
def test_manifests_are_as_reviewed(name: str) -> None:
    golden = (render.MANIFESTS / f"{name}.yaml").read_text()
    assert render.render(name) == golden, (
        "wanted? then: python tests/golden/update.py && git diff tests/golden"
    )


def test_every_golden_file_has_its_object() -> None:
    assert sorted(path.stem for path in render.MANIFESTS.glob("*.yaml")) == render.names()
