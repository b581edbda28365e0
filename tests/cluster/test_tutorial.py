"""The tutorial, word for word: every command of its console blocks is run where `make shell` puts its reader.

What a command prints is compared with what the page shows, in which numbers, ages and names may differ
(`tests.docs.markdown`).
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import Command, commands

PAGE = Path("docs/tutorial/first-fleet.md")
ARRIVAL = ["git clone <URL of this repository> stoker", "cd stoker", "make shell"]
"""How the reader gets to where the test begins."""
DEPARTURE = "exit"
END = "end of command"


class Shell:
    """The shell that `make shell` opens, with commands coming through a pipe."""

    def __init__(self, directory: Path, repository: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed", "shell"],
            cwd=directory,
            env={**os.environ, "SHELL": "/bin/bash", "PYTHONPATH": str(repository)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.banner, _ = self.run("true")

    def run(self, text: str) -> tuple[str, int]:
        """What a command prints, errors included, and its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A pipe to bash carries commands and nothing else: what a command reads is empty.
        self._process.stdin.write(f"{{ {text}\n}} 2>&1 </dev/null; printf '\\n{END} %d\\n' $?\n")
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.startswith(END):
                return "".join(printed), int(line.removeprefix(END))
            printed.append(line)
        raise AssertionError(f"the shell ended in {text!r}:\n{''.join(printed)}")

    def leave(self) -> int:
        """`exit`: the exit code of `python -m testbed shell`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{DEPARTURE}\n")
        self._process.stdin.close()
        return self._process.wait(timeout=60)

    def kill(self) -> None:
        """End it whatever it does; the plane ends with it."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def shell(tmp_path: Path, repository: Path) -> Iterator[Shell]:
    """A shell in a folder that looks like a clone, so that nothing is written into the source tree."""
    for name in ("manifests", "docs"):
        (tmp_path / name).symlink_to(repository / name)
    opened = Shell(tmp_path, repository)
    yield opened
    opened.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)  # windows, a rollout that is stuck for a minute, and a machine that is shared
def test_the_tutorial(shell: Shell, repository: Path):
    steps = list(commands((repository / PAGE).read_text()))
    assert [step.text for step in steps[:3]] == ARRIVAL
    assert steps[-1].text == DEPARTURE
    assert "kubectl" in shell.banner
    assert len(steps) > 30
    for step in steps[3:-1]:
        check(step, *shell.run(step.text))
    kubeconfig = Path(shell.run("echo $KUBECONFIG")[0].strip())
    assert kubeconfig.exists()
    assert shell.leave() == 0
    assert not kubeconfig.exists()


def check(step: Command, printed: str, code: int) -> None:
    """A step did what the page says."""
    said = f"$ {step.text}\n{printed}"
    assert (code != 0) == step.fails, f"exit code {code}:\n{said}"
    assert (missing := step.missing(printed)) is None, f"not printed: {missing}\n{said}"


def test_up_says_how_to_use_the_plane(repository: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "up", "--nodes", "1"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        exports = dict(shlex.split(process.stdout.readline())[1].split("=", 1) for _ in range(4))
        environment = {**os.environ, **exports}
        found = subprocess.run(
            ["kubectl", "get", "nodes,crd", "-o", "name"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.split() == [
            "node/gpu-0000",
            "customresourcedefinition.apiextensions.k8s.io/modeldeployments.stoker.dev",
        ]
        assert Path(exports["STOKER_LOG"]).exists()
        process.send_signal(2)
        assert process.wait(timeout=60) == 0
        assert not Path(exports["KUBECONFIG"]).exists()
    finally:
        process.kill()
        process.wait()
