"""The chart, rendered by the helm that the testbed builds; no control plane."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from testbed.binaries import ensure

Json = dict[str, Any]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs helm as `built`."""
    for item in items:
        if "helm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.built)


@pytest.fixture(scope="session")
def chart(repository: Path) -> Path:
    """The folder of the chart."""
    return repository / "charts" / "stoker"


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run helm, whatever it answers."""
    program = str(ensure("helm"))

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [program, *(str(argument) for argument in arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(chart: Path, helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Json]]:
    """Render the chart: `render({"crds": {"install": False}}, release="stoker", namespace="ml")`."""
    folder = tmp_path_factory.mktemp("values")

    @cache
    def text(values: str, release: str, namespace: str) -> str:
        file = folder / "values.yaml"
        file.write_text(values)
        result = helm("template", release, chart, f"--namespace={namespace}", f"--values={file}")
        assert result.returncode == 0, result.stderr
        return result.stdout

    def objects(
        values: Json | None = None, *, release: str = "stoker", namespace: str = "stoker-system"
    ) -> list[Json]:
        rendered = text(yaml.safe_dump(values or {}), release, namespace)
        return [obj for obj in yaml.load_all(rendered, yaml.CSafeLoader) if obj]

    return objects


@pytest.fixture(scope="session")
def renderer(repository: Path) -> ModuleType:
    """The module `hack/render.py`."""
    spec = importlib.util.spec_from_file_location("hack_render", repository / "hack" / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
