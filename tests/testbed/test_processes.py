"""Background programs end when they should, and say why when they should not have."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed import processes
from testbed.processes import Process, ProcessError

ROOT = Path(processes.__file__).parent.parent


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; pytest's time limit ends a wait in vain."""
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Start shell scripts as background programs, and end them after the test."""
    started: list[Process] = []

    def start(script: str) -> Process:
        started.append(Process("script", ["/bin/sh", "-c", script], tmp_path / "logs" / "script.log"))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_output_of_both_kinds_goes_to_the_log(shell: Callable[[str], Process]):
    process = shell("echo out; echo err >&2")
    wait_for(lambda: not process.running)
    assert process.log.read_text() == "out\nerr\n"


def test_a_second_start_keeps_the_log_of_the_first(shell: Callable[[str], Process]):
    for word in ("one", "two"):
        process = shell(f"echo {word}")
        wait_for(lambda process=process: not process.running)
    assert process.log.read_text() == "one\ntwo\n"


def test_kill_ends_a_program_that_ignores_signals(shell: Callable[[str], Process]):
    process = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(lambda: "ready" in process.log.read_text())
    process.kill()
    assert not alive(process.pid)
    assert not process.running


def test_terminate_lets_a_program_end_in_order(shell: Callable[[str], Process]):
    process = shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(lambda: "ready" in process.log.read_text())
    process.terminate()
    assert process.log.read_text() == "ready\nbye\n"


def test_terminate_kills_what_does_not_end(shell: Callable[[str], Process]):
    process = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(lambda: "ready" in process.log.read_text())
    process.terminate(seconds=0.1)
    assert not alive(process.pid)


def test_a_frozen_program_can_be_killed(shell: Callable[[str], Process]):
    process = shell("sleep 600")
    process.signal(signal.SIGSTOP)
    process.kill()
    assert not alive(process.pid)


def test_a_signal_to_a_program_that_has_ended_does_nothing(shell: Callable[[str], Process]):
    process = shell("exit 0")
    wait_for(lambda: not process.running)
    process.signal(signal.SIGTERM)


def test_a_program_that_ends_early_is_reported_with_its_last_words(shell: Callable[[str], Process]):
    process = shell("for i in $(seq 100); do echo line $i; done; exit 3")
    with pytest.raises(ProcessError, match="script ended with code 3") as caught:
        process.wait_until(lambda: False, time.monotonic() + 60)
    assert str(caught.value).endswith("line 100")
    assert "line 70\n" not in str(caught.value)


def test_a_program_that_is_not_ready_in_time_is_reported_with_its_last_words(shell: Callable[[str], Process]):
    process = shell("echo still at it; sleep 600")
    wait_for(lambda: "still" in process.log.read_text())
    with pytest.raises(ProcessError, match="script was not ready after 0 s") as caught:
        process.wait_until(lambda: False, time.monotonic())
    assert str(caught.value).endswith("still at it")


def test_a_program_killed_by_a_signal_is_reported_as_shells_do(shell: Callable[[str], Process]):
    process = shell("kill -9 $$")
    with pytest.raises(ProcessError, match="code 137"):
        process.wait_until(lambda: False, time.monotonic() + 60)


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path):
    process = Process("ghost", [tmp_path / "ghost"], tmp_path / "ghost.log")
    with pytest.raises(ProcessError, match="ghost: No such file or directory"):
        process.wait_until(lambda: False, time.monotonic() + 60)
    process.kill()


PARENT = """
import pathlib, sys, threading, time
from testbed.processes import Process
made = []
def make():
    made.append(Process("sleeper", ["/bin/sleep", "600"], pathlib.Path(sys.argv[1]) / "log"))
# From a thread that ends: the program must not end with the thread.
thread = threading.Thread(target=make); thread.start(); thread.join()
time.sleep(0.2)
print(made[0].pid, made[0]._supervisor.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A parent that started `sleep` from a thread: the parent, the program's id, the supervisor's id."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        program, supervisor = map(int, parent.stdout.readline().split())
        yield parent, program, supervisor
        parent.kill()


def test_kill_9_of_the_parent_ends_program_and_supervisor(family: tuple[subprocess.Popen[str], int, int]):
    parent, program, supervisor = family
    assert alive(program)
    os.kill(parent.pid, signal.SIGKILL)
    wait_for(lambda: not alive(program) and not alive(supervisor))


def test_kill_9_of_the_supervisor_ends_the_program(family: tuple[subprocess.Popen[str], int, int]):
    _, program, supervisor = family
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not alive(program))


def test_a_frozen_program_ends_with_its_parent_too(family: tuple[subprocess.Popen[str], int, int]):
    parent, program, _ = family
    os.kill(program, signal.SIGSTOP)
    os.kill(parent.pid, signal.SIGKILL)
    wait_for(lambda: not alive(program))
