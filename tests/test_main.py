"""The command line: versions, what is generated, and settings that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stoker import __main__, __version__, runtime
from stoker.settings import Settings

ROOT = Path(__file__).parents[1]


def stoker(*arguments: str, **environ: str | None):
    """Run the command; no STOKER_* of this machine reaches it."""
    hidden = {name: None for name in os.environ if name.startswith("STOKER_")}
    return CliRunner().invoke(__main__.app, list(arguments), env=hidden | environ)


def test_the_version_is_the_packages():
    result = stoker("--version")

    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_without_a_command_the_help_names_them():
    result = stoker()

    assert "generate" in result.output
    assert "run" in result.output


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    directory = tmp_path_factory.mktemp("root")
    result = stoker("generate", "--directory", str(directory))
    assert result.exit_code == 0, result.output
    return directory


@pytest.mark.parametrize("name", sorted(__main__.GENERATED))
def test_what_is_checked_in_is_what_is_generated(generated, name):
    assert (generated / name).read_text() == (ROOT / name).read_text()


def test_nothing_else_is_written(generated):
    written = {str(p.relative_to(generated)) for p in generated.rglob("*") if p.is_file()}

    assert written == set(__main__.GENERATED)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("STOKER_WORKERS", "none"), ("STOKER_PROMETHEUS_URL", "prometheus:9090"), ("STOKER_LOG_LEVEL", "loud")],
)
def test_a_bad_setting_is_named_and_ends_with_two(variable, value):
    result = stoker("run", **{variable: value})

    assert result.exit_code == 2
    assert variable in result.stderr


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_that_of_the_operator(monkeypatch, code):
    asked = []

    async def run(settings: Settings, unknown):
        asked.append((settings, unknown))
        return code

    monkeypatch.setattr(runtime, "run", run)
    result = stoker("run", STOKER_WORKERS="3", STOKER_WORKER="3", KUBECONFIG=None)

    assert result.exit_code == code
    assert asked == [(Settings(workers=3), {"STOKER_WORKER": "STOKER_WORKERS"})]
