"""The documentation's tables are those of the results, word by word."""

import json
from pathlib import Path

import pytest

from bench.peers import results, tables

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "peers.md"
SECTIONS = json.loads(results.FILE.read_text())["sections"] if results.FILE.exists() else {}


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_the_page_shows_what_was_measured(name):
    assert tables.TABLES[name](SECTIONS[name]) in PAGE.read_text()


def test_a_fleet_that_kept_its_replicas_is_shown_without_a_fall():
    row = {
        "fault": "NaN",
        "autoscaler": "Stoker",
        "fleets": 2,
        "fleets_that_lost_replicas": 0,
        "replicas_lowest": [8, 9],
        "first_fall_seconds": None,
    }
    assert tables.faults({"rows": [row]}).splitlines()[-1] == "| NaN | Stoker | 0 of 2 | 8 | – |"


def test_a_fleet_that_fell_is_shown_with_how_far_and_when():
    row = {
        "fault": "NaN",
        "autoscaler": "KEDA",
        "fleets": 3,
        "fleets_that_lost_replicas": 2,
        "replicas_lowest": [8, 1, 2],
        "first_fall_seconds": {"min": 288.4, "max": 290.1},
    }
    shown = tables.faults({"rows": [row]}).splitlines()[-1]
    assert shown == "| NaN | KEDA | 2 of 3 | 1 to 8 | 288 to 290 |"


def test_a_side_without_a_reaction_has_no_spread():
    side = {"samples": 1, "visible_to_first_pod_seconds": None, "visible_to_all_pods_seconds": None}
    spread = {"min": 0.5, "median": 2.0, "max": 4.0, "n": 1}
    other = {"samples": 1, "visible_to_first_pod_seconds": spread, "visible_to_all_pods_seconds": spread}
    lines = tables.reaction({"steps": {"2 to 20": {"keda": side, "stoker": other}}}).splitlines()
    assert lines[2:] == [
        "| 2 to 20 | KEDA with the HPA | – | – | 1 |",
        "| 2 to 20 | Stoker | 0.5 / 2.0 / 4.0 | 0.5 / 2.0 / 4.0 | 1 |",
    ]


def test_prediction_and_measurement_stand_side_by_side():
    figures = {
        "gpu_seconds": 12000,
        "attainment": 0.99,
        "ttft_seconds": [0.1, 0.3, 0.5],
        "tpot_seconds": [0.02, 0.04, 0.05],
        "peak_replicas": [7, 7],
    }
    measured = {
        **figures,
        "gpu_seconds": 12600,
        "gpu_seconds_of_each": [12100, 12600, 13100],
        "peak_replicas": [8, 7, 9],
        "not_served": {"cut": 3},
        "sent_late_seconds": [0.01, 0.2, 1.0],
    }
    ratio = {"gpu_seconds": 0.05, "attainment": 0.0}
    predicted = {**figures, "gpu_seconds_of_each": [11500, 12400]}
    cell = {"predicted": predicted, "measured": measured, "measured_over_predicted": ratio}
    lines = tables.ramp({"cells": {"KEDA": cell}}).splitlines()
    assert (
        lines[2] == "| KEDA | GPU-seconds | 12,000 (11,500 to 12,400) | 12,600 (12,100 to 13,100) | +5.0% |"
    )
    assert "|  | most replicas | 7 | 7 to 9 |  |" in lines
    assert lines[-2:] == [
        "|  | requests cut | 0 | 3 |  |",
        "|  | sent late, p50 and p95, s | 0 | 0.0, 0.2 |  |",
    ]
