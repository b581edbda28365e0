"""What the replay predicts for the ramp, beside what was measured: two cells of its table, end to end.

The prediction gets what the measurement gets: arrivals, time at rest before them, start-up, scrape interval,
and the ModelDeployment's own spec. It is made by `bench.replay`, whose policies are the operator's own code
and the port of the HPA. Nobody knows the phases of the real clocks (scrapes, ticks, syncs, windows of what
is learned), so it is made with `PHASES` different ones: their mean, and what they have in common.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bench.controller.results import Figures
from bench.peers import fleets, ramp
from bench.peers.fleets import GPUS_PER_REPLICA, Contender, Side
from bench.peers.ramp import Ramp, Run
from bench.replay.fleet import StartUp
from bench.replay.policies import signals
from bench.replay.policies.hpa import HorizontalPodAutoscaler
from bench.replay.policies.stoker import Stoker, deployment_of
from bench.replay.scores import Ledger
from bench.replay.simulation import Setting, simulate
from bench.replay.view import Policy
from testbed.replica_models import model_named

IMAGE_SECONDS = 0.5
"""From a pod's creation to the start of its container, in the testbed."""
PHASES = 21
"""Replays of a prediction."""
PHASE_SECONDS = 60.0
"""The longest period that something happens at: Stoker's rate window."""
EXPLAINED_ABOVE = 0.05
"""A difference beyond this share is to be explained."""


def policy(plan: Ramp, contender: Contender) -> Policy:
    """The replay's policy with the contender's settings.

    Raises:
        ValueError: the contender has settings that the replay's policy does not know.
    """
    if contender.settings:
        raise ValueError(f"{contender.name}: only defaults can be predicted")
    if contender.side is Side.KEDA:
        return HorizontalPodAutoscaler(signals.in_flight(), plan.target, ramp.LEAST, ramp.MOST)
    (manifest,) = fleets.manifests(plan.fleet(contender), "")
    return Stoker(deployment_of(manifest["spec"]))


def predict(plan: Ramp, contender: Contender) -> Figures:
    """Replay the ramp in virtual time at every phase; return the means, and the steps of the middle one."""
    replays = [replay(plan, contender, phase) for phase in range(PHASES)]
    replays.sort(key=lambda one: one["gpu_seconds"])
    used = [one["gpu_seconds"] for one in replays]
    return {
        "gpu_seconds": round(statistics.mean(used)),
        "gpu_seconds_of_each": used,
        "attainment": round(statistics.mean(one["attainment"] for one in replays), 5),
        "requests": replays[0]["requests"],
        "ttft_seconds": _means(one["ttft_seconds"] for one in replays),
        "tpot_seconds": _means(one["tpot_seconds"] for one in replays),
        "peak_replicas": sorted(one["peak_replicas"] for one in replays),
        "replicas_of_middle": replays[PHASES // 2]["replicas"],
    }


def _means(rows: Iterable[Sequence[float]]) -> list[float]:
    return [round(statistics.mean(column), 4) for column in zip(*rows, strict=True)]


def replay(plan: Ramp, contender: Contender, phase: int) -> Figures:
    """Replay the ramp once: its arrivals begin at another moment of every period, and so do the scrapes."""
    idle = plan.idle + phase * PHASE_SECONDS / PHASES
    setting = Setting(
        model=model_named(ramp.MODEL),
        arrivals=[replace(one, arrival=one.arrival + idle) for one in plan.arrivals],
        duration=plan.duration + idle,
        start_up=StartUp(ramp.LOAD_SECONDS + IMAGE_SECONDS),
        initial=ramp.LEAST,
        minimum=ramp.LEAST,
        maximum=ramp.MOST,
        warm_up=plan.warm_up + idle,
        seed=phase,
    )
    return _predicted(simulate(setting, policy(plan, contender)), idle)


def _predicted(ledger: Ledger, idle: float) -> Figures:
    score = ledger.score()
    return {
        "gpu_seconds": round(score.replica_hours * 3600 * GPUS_PER_REPLICA),
        "attainment": round(score.attainment, 5),
        "requests": score.requests,
        "ttft_seconds": [round(value, 4) for value in score.ttft],
        "tpot_seconds": [round(value, 4) for value in score.tpot],
        "peak_replicas": score.peak,
        "replicas": [(max(0, round(at - idle)), count) for at, count in ledger.targets],
    }


def compare(predicted: Figures, measured: Figures) -> Figures:
    """How far the measurement is from the prediction: shares of the latter."""
    shares = {
        name: round(measured[name] / predicted[name] - 1, 4) if predicted[name] else None
        for name in ("gpu_seconds", "attainment")
    }
    beyond = [name for name, share in shares.items() if share is None or abs(share) > EXPLAINED_ABOVE]
    return {"measured_over_predicted": shares, "to_be_explained": beyond}


def report(
    plan: Ramp, runs: Sequence[Run], predictions: Mapping[Contender, Figures], machine: Figures
) -> Figures:
    """The section of the results."""
    cells = {}
    for contender, predicted in predictions.items():
        measured = ramp.figures(plan, [run for run in runs if run.contender == contender])
        cells[contender.name] = {
            "settings": fleets.settings(plan.fleet(contender)),
            "predicted": predicted,
            "measured": measured,
            **compare(predicted, measured),
        }
    return {
        "traffic": "Azure 2023 conversation, superposed copies",
        "copies_from_second": [list(part) for part in plan.stages],
        "seed": plan.seed,
        "scored_seconds": [plan.warm_up, plan.duration],
        "idle_seconds_before": plan.idle,
        "fleets_of_each": ramp.REPEATS,
        "replays_per_prediction": PHASES,
        "model": ramp.MODEL,
        "load_seconds": ramp.LOAD_SECONDS,
        "scrape_interval": ramp.SCRAPE_INTERVAL,
        "target_requests_in_flight": plan.target,
        "gpus_per_replica": GPUS_PER_REPLICA,
        "machine": machine,
        "cells": cells,
    }
