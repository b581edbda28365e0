"""Fixtures that any test may use, and how thorough properties are.

`make test` tries every property with `whole`, `make test-fast` with `fast`: fewer examples, the first ones of
the same sequence. Either way the examples are those of the run before, and no example is too slow: how long
one takes is the machine's affair. A property whose examples take long, or very little, states a number of
its own.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
