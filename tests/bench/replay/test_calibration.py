"""What one replica carries: the measurement behind every policy's targets."""

from __future__ import annotations

import pytest

from bench.replay.calibration import attainable, calibrate
from testbed.replica_models import model_named
from testbed.trace import TraceRequest

MODEL = model_named("qwen3-32b-2xh100")
ORDINARY = [TraceRequest(0.0, 1024, 256)]
HOPELESS = [TraceRequest(0.0, 50_000, 256)]
"""Its prompt alone takes two and a half seconds."""


def test_ordinary_requests_are_all_within_the_objective_when_alone():
    assert attainable(MODEL, ORDINARY) == {(1024, 256)}


def test_requests_that_miss_it_even_alone_are_no_reason_to_leave_replicas_empty():
    few_hopeless = [*ORDINARY * 97, *HOPELESS * 3]

    assert attainable(MODEL, few_hopeless) == {(1024, 256)}
    assert calibrate(MODEL, few_hopeless).requests > 0.3


def test_a_longer_mix_is_carried_at_a_lower_rate():
    longer = [TraceRequest(0.0, 4096, 256)]

    assert calibrate(MODEL, longer).requests < calibrate(MODEL, ORDINARY).requests


def test_a_mix_without_one_request_that_can_be_within_it_is_refused():
    with pytest.raises(ValueError, match="misses the objective"):
        calibrate(MODEL, HOPELESS)
