"""The history reader against a real Prometheus with days on its disk."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from stoker.api.v1alpha1 import Season
from stoker.clients.prometheus import Prometheus
from stoker.controller.history import REFRESH_SECONDS, Historian
from stoker.core.history import PROMPT_WEIGHT
from tests.backtest.made_up import (
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    Past,
    Replica,
    prometheus_with,
    token_seconds,
    wave,
)
from tests.factories import KEY, deployment

DAY = 86_400.0
MIDNIGHT = 20_833 * DAY
NOW = MIDNIGHT + 3 * DAY
TOKENS = (OUTPUT_TOKENS + PROMPT_WEIGHT * PROMPT_TOKENS) / OUTPUT_TOKENS
"""Weighted ones for each that is generated."""

pytestmark = pytest.mark.built


async def test_the_shape_of_the_days_is_found_whatever_the_pods_were_called(tmp_path: Path):
    shape = wave(MIDNIGHT, DAY, 10.0, 50.0)
    pods = [
        Replica("llama-5d8f2c1a-0", MIDNIGHT, MIDNIGHT + DAY),
        Replica("llama-5d8f2c1a-3", MIDNIGHT, MIDNIGHT + DAY),
        Replica("llama-0a1b2c3d-0", MIDNIGHT + DAY, NOW),
        Replica("llama-0a1b2c3d-1", MIDNIGHT + DAY, NOW),
    ]

    def demand(at: float) -> float:
        batch = shape(at) / sum(pod.start <= at < pod.end for pod in pods)
        return TOKENS * shape(at) / token_seconds(batch)

    scaled = deployment(scaling={"maxReplicas": 4})
    server = prometheus_with(Past(pods, shape, interval=60.0), tmp_path)
    try:
        async with Prometheus(server.url, timeout=60.0) as client:
            historian = Historian(SimpleNamespace(deployments={KEY: scaled}), client, lambda: NOW)
            assert await historian.refresh() == REFRESH_SECONDS
    finally:
        server.kill()

    history = historian.histories[KEY]
    for hours in (3, 12, 30, 47, 60, 71):
        at = MIDNIGHT + hours * 3600.0
        assert history.at(at) == pytest.approx(demand(at), rel=0.03)
    assert math.isnan(history.at(MIDNIGHT - 3600.0))
    expected = demand(NOW - DAY + 7 * 3600.0) / demand(NOW - DAY + 6 * 3600.0) - 1
    assert history.growth(Season.DAILY, NOW + 6 * 3600.0, 3600.0) == pytest.approx(expected, rel=0.05)
    assert history.record[Season.DAILY].believed() > 0.5
