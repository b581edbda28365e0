"""What the replay predicts for the ramp, beside what was measured: two cells of its table, end to end.

The prediction gets what the measurement gets: arrivals, bounds, targets, start-up, scrape interval. It is
made by `bench.replay`, whose policies are the operator's own code and the port of the HPA.
"""

from collections.abc import Sequence

from bench.controller.results import Figures
from bench.peers import fleets, ramp
from bench.peers.fleets import GPUS_PER_REPLICA, Contender, Side
from bench.peers.ramp import Ramp, Run
from bench.replay.fleet import StartUp
from bench.replay.policies import signals
from bench.replay.policies.hpa import HorizontalPodAutoscaler
from bench.replay.policies.stoker import Stoker, deployment
from bench.replay.scores import Ledger
from bench.replay.simulation import Setting, simulate
from bench.replay.view import Policy
from testbed.replica_models import model_named

IMAGE_SECONDS = 0.5
"""From a pod's creation to the start of its container, in the testbed."""
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
    targets = {"concurrentRequests": plan.target} if contender.targeted else None
    return Stoker(deployment(ramp.LEAST, ramp.MOST, targets=targets))


def predict(plan: Ramp, contender: Contender) -> Figures:
    """Replay the ramp in virtual time."""
    setting = Setting(
        model=model_named(ramp.MODEL),
        arrivals=plan.arrivals,
        duration=plan.duration,
        start_up=StartUp(ramp.LOAD_SECONDS + IMAGE_SECONDS),
        initial=ramp.LEAST,
        minimum=ramp.LEAST,
        maximum=ramp.MOST,
        warm_up=plan.warm_up,
        seed=plan.seed,
    )
    return _predicted(simulate(setting, policy(plan, contender)))


def _predicted(ledger: Ledger) -> Figures:
    score = ledger.score()
    return {
        "gpu_seconds": round(score.replica_hours * 3600 * GPUS_PER_REPLICA),
        "attainment": round(score.attainment, 5),
        "requests": score.requests,
        "ttft_seconds": [round(value, 4) for value in score.ttft],
        "tpot_seconds": [round(value, 4) for value in score.tpot],
        "peak_replicas": score.peak,
        "replicas": [(round(at), count) for at, count in ledger.targets],
    }


def compare(predicted: Figures, measured: Figures) -> Figures:
    """How far the measurement is from the prediction: shares of the latter."""
    shares = {
        name: round(measured[name] / predicted[name] - 1, 4) if predicted[name] else None
        for name in ("gpu_seconds", "attainment")
    }
    beyond = [name for name, share in shares.items() if share is None or abs(share) > EXPLAINED_ABOVE]
    return {"measured_over_predicted": shares, "to_be_explained": beyond}


def report(plan: Ramp, runs: Sequence[Run], predictions: Sequence[Figures], machine: Figures) -> Figures:
    """The section of the results."""
    cells = {}
    for run, predicted in zip(runs, predictions, strict=True):
        measured = ramp.figures(plan, run)
        cells[run.contender.name] = {
            "settings": fleets.settings(plan.fleet(run.contender)),
            "predicted": predicted,
            "measured": measured,
            **compare(predicted, measured),
        }
    return {
        "traffic": "Azure 2023 conversation, superposed copies",
        "copies_from_second": [list(part) for part in plan.stages],
        "seed": plan.seed,
        "scored_seconds": [plan.warm_up, plan.duration],
        "model": ramp.MODEL,
        "load_seconds": ramp.LOAD_SECONDS,
        "scrape_interval": ramp.SCRAPE_INTERVAL,
        "target_requests_in_flight": plan.target,
        "gpus_per_replica": GPUS_PER_REPLICA,
        "machine": machine,
        "cells": cells,
    }
