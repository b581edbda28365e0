"""`hack/render.py`: what is checked in is what the chart and the CRD make."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml


@pytest.fixture
def tree(renderer: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is rendered and of what it is rendered from; the module works there."""
    for folder in ("charts", "crds", "manifests"):
        shutil.copytree(repository / folder, tmp_path / folder)
    monkeypatch.setattr(renderer, "ROOT", tmp_path)
    monkeypatch.setattr(renderer, "CHART", tmp_path / "charts" / "stoker")
    monkeypatch.setattr(renderer, "CRD", tmp_path / "crds" / "stoker.dev_modeldeployments.yaml")
    return tmp_path


def run(renderer: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.argv", ["render.py", *options])
    return renderer.main()


def test_nothing_has_drifted(renderer):
    drifted = [path.name for path in renderer.drifted()]
    assert not drifted, "run `make generate`"


@pytest.mark.parametrize(
    ("changed", "old", "new"),
    [
        ("crds/stoker.dev_modeldeployments.yaml", "shortNames:", "shortNames: # few"),
        ("charts/stoker/values.yaml", "memory: 1Gi", "memory: 2Gi"),
        ("charts/stoker/templates/monitors.yaml", "port: http\n", "port: web\n"),
        ("manifests/install.yaml", "kind: Namespace", "kind: Nothing"),
    ],
)
def test_any_change_is_seen_and_one_run_puts_it_right(renderer, tree, monkeypatch, capsys, changed, old, new):
    file = tree / changed
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert run(renderer, monkeypatch, "--check") == 1
    assert "differs: run `make generate`" in capsys.readouterr().err
    assert run(renderer, monkeypatch) == 0
    assert run(renderer, monkeypatch, "--check") == 0


def test_install_yaml_begins_with_its_namespace_and_belongs_to_no_release(repository):
    text = (repository / "manifests" / "install.yaml").read_text()
    objects = list(yaml.safe_load_all(text))
    assert [obj["kind"] for obj in objects] == [
        "Namespace",
        "ServiceAccount",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "Service",
        "Deployment",
    ]
    assert "helm" not in text.lower()


def test_no_rendered_line_ends_in_a_space(repository):
    for file in (repository / "manifests").glob("*.yaml"):
        assert not [line for line in file.read_text().splitlines() if line != line.rstrip()], file.name
