import os
import time

import pytest

from bench.controller.usage import Usage


def test_cpu_time_and_memory_of_a_process():
    before = Usage.of(os.getpid())
    block = bytearray(os.urandom(32 * 2**20))
    while time.process_time() < before.cpu_seconds + 0.1:
        pass
    after = Usage.of(os.getpid())
    assert after.cpu_seconds >= before.cpu_seconds + 0.05
    assert after.at > before.at
    assert after.peak_mib >= before.resident_mib + len(block) / 2**20 / 2
    # As the process itself counts; the kernel counts in hundredths of a second.
    assert after.cpu_seconds == pytest.approx(time.process_time(), abs=0.5)


def test_a_process_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        Usage.of(2**22 + 1)
