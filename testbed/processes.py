"""Programs in the background that end with the process that started them, whatever happens to it.

Each program runs under a supervisor of its own (`testbed/supervisor.py`), which holds one end of a pipe whose
other end is here. Output is appended to a log, so that a restart keeps what was said before.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.binaries import tail

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
POLL_SECONDS = 0.05


class ProcessError(Exception):
    """A program ended or did not become ready in time; the message ends with the tail of its log."""


class Process:
    """One running program.

    `keep` are file descriptors that stay open for as long as the program lives: a claim on an address range,
    for example.
    """

    def __init__(self, name: str, command: Sequence[str | Path], log: Path, keep: Sequence[int] = ()) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                pass_fds=keep,
                start_new_session=True,  # Ctrl-C in the terminal is for the asker, who then stops us in order
            )
        self.pid = self._read_pid()

    def _read_pid(self) -> int:
        pipe = self._supervisor.stdout
        line = pipe.readline() if pipe else b""
        if not line.strip():
            raise ProcessError(f"{self.name} could not be started:\n{tail(self.log)}")
        return int(line)

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        return self._supervisor.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program; nothing happens when it has ended already."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the program at once (SIGKILL) and wait until it is gone."""
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe is not None:
                pipe.close()
        self._supervisor.wait()

    def terminate(self, seconds: float = 10.0) -> None:
        """Ask the program to end (SIGTERM); kill it when it has not done so after `seconds`."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(seconds)
        self.kill()

    def wait_until(self, ready: Callable[[], bool], deadline: float) -> None:
        """Wait until `ready()` is true, asking again and again.

        Args:
            ready: the question; whatever it needs to catch it catches itself.
            deadline: on the clock of `time.monotonic`.

        Raises:
            ProcessError: the program ended first, or the deadline passed.
        """
        start = time.monotonic()
        while not ready():
            if not self.running:
                code = self._supervisor.returncode
                raise ProcessError(f"{self.name} ended with code {code}; its log says:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                waited = round(time.monotonic() - start)
                raise ProcessError(
                    f"{self.name} was not ready after {waited} s; its log says:\n{tail(self.log)}"
                )
            time.sleep(POLL_SECONDS)
