"""Runs one program and sees to it that the program never outlives whoever asked for it.

Started as a script by `testbed.processes`, standard library only, so that it is small and quick to start:

    python -I -S supervisor.py PROGRAM [ARGUMENT...]

- Standard input is a pipe that the asker holds open and never writes to. However the asker ends (`kill -9`
  included) the kernel closes the pipe; the supervisor then kills the program.
- Standard output receives one line, the program's process id. The program itself writes to standard error.
- Should the supervisor be killed, the kernel kills the program (PR_SET_PDEATHSIG). That signal is bound to
  the *thread* that forked, which is why the asker, who may have threads, cannot simply rely on it; the
  supervisor has a single thread.

Exits with the program's code, or 128 + signal.
"""

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _become(program: list[str], supervisor: int) -> None:
    """Turn this forked child into the program."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # died between fork and prctl
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        os.execv(program[0], program)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        os.write(2, f"{program[0]}: {error.strerror}\n".encode())
        os._exit(127)


def supervise(program: list[str]) -> int:
    """Run `program` until it ends or standard input closes; return its exit code."""
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        _become(program, supervisor)
    os.write(1, f"{child}\n".encode())
    os.close(1)
    events = select.poll()
    events.register(0, select.POLLIN)
    events.register(os.pidfd_open(child), select.POLLIN)
    events.poll()
    os.kill(child, signal.SIGKILL)  # not reaped yet, so the id is still the program's
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
