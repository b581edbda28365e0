"""What a process has used so far, as the kernel counts it; asking costs the process nothing."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MIB_PER_KIB = 1 / 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """A process at one moment.

    Attributes:
        at: seconds of the monotonic clock.
        cpu_seconds: user and system time of all its threads, since its start.
        resident_mib: memory that it holds now.
        peak_mib: the most that it ever held.
    """

    at: float
    cpu_seconds: float
    resident_mib: float
    peak_mib: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Read a running process.

        Raises:
            FileNotFoundError: there is no such process.
        """
        process = Path("/proc", str(pid))
        # The command in parentheses may hold spaces; utime and stime are fields 14 and 15 (man 5 proc).
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(time.monotonic(), cpu, _mib(status["VmRSS"]), _mib(status["VmHWM"]))


def load_average() -> float:
    """Return the machine's load over the last minute; above the number of cores, wall times mean little."""
    return os.getloadavg()[0]


def _mib(text: str) -> float:
    return int(text.split(maxsplit=1)[0]) * _MIB_PER_KIB
