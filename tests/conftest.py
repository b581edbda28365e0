"""Fixtures that any test may use, how thorough properties are, and which tests share a worker.

`make test` tries every property with `whole`, `make test-fast` with `fast`: fewer examples, the first ones of
the same sequence. Either way the examples are those of the run before, and no example is too slow: how long
one takes is the machine's affair. A property whose examples take long, or very little, states a number of
its own.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile(
    "whole",
    max_examples=50,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("fast", settings.get_profile("whole"), max_examples=20)
settings.load_profile("whole")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).parent.parent


class Together(LoadScopeScheduling):
    """Gives each test to whichever worker is free, and those of some files to one worker, all of them."""

    FILES = frozenset(
        {
            "tests/backtest/test_real_prometheus.py",
            "tests/cluster/test_install.py",
            "tests/cluster/test_operator_apiserver.py",
            "tests/cluster/test_plane.py",
            "tests/cluster/test_tutorial.py",
        }
    )
    """They start a plane or a Prometheus for themselves: each worker that ran one would start another.

    A file is given out before single tests. That is why the tutorial is here: it takes minutes, and a worker
    holds a second test while it runs the first one, which must not be the tutorial behind the long outage.
    """

    def _split_scope(self, nodeid: str) -> str:
        """What is given to a worker as a whole: a file, or a test."""
        file = nodeid.partition("::")[0]
        return file if file in self.FILES else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    """Make `--dist loadscope` know what belongs together.

    xdist has marks for that, which are without effect since pytest 9.2 (pytest-xdist issue 1386).
    """
    return Together(config, log) if config.getvalue("dist") == "loadscope" else None
