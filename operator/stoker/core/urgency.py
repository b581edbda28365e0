"""In what order fleets are decided: those whose demand has grown most first.

Deciding for a thousand takes the better part of a second. A fleet that needs a replica now is not to wait for
the others, whose traffic is what it was a moment ago.

Rules of this module:

* The order changes no decision, only how soon it is made.
* Demand is requests in flight here, for it moves first: in engines and held by a gateway, as far as known.
* Growth is relative, so that one small fleet among large ones is seen; a request more or less is no growth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stoker.core.readings import Key, Metrics, Missing, Reading, Signal

FEW = 5.0
"""Requests that are added to what is compared: going from one to two is not worth a place in front."""

MUCH = 1.2
"""Growth within a round that is more than a steady fleet's requests come and go."""


def in_flight(metrics: Metrics, deployment: Key, pods: Iterable[Key]) -> float:
    """Requests of a ModelDeployment that run or wait somewhere; what is not known adds nothing.

    Args:
        metrics: Of this round.
        deployment: Its key.
        pods: Its pods.
    """
    known = [metrics.pods[pod].readings for pod in pods if pod in metrics.pods]
    engines = [_known(readings.get(s)) for readings in known for s in (Signal.RUNNING, Signal.WAITING)]
    return sum(engines) + _known(metrics.held.get(deployment))


def _known(reading: Reading | None) -> float:
    return 0.0 if reading is None or isinstance(reading, Missing) else reading.value


def by_growth(before: Mapping[Key, float], now: Mapping[Key, float]) -> list[Key]:
    """The keys of ``now``, those first whose requests in flight grew most; else in their order.

    Args:
        before: Requests in flight in the last round; a ModelDeployment that was not there had none.
        now: In this one.
    """
    return sorted(now, key=lambda key: _growth(before, now, key), reverse=True)


def urgent(before: Mapping[Key, float], now: Mapping[Key, float]) -> list[Key]:
    """Those that are not to wait for what is left of the round before, in the order of ``by_growth``."""
    return by_growth(before, {key: n for key, n in now.items() if _growth(before, now, key) >= MUCH})


def _growth(before: Mapping[Key, float], now: Mapping[Key, float], key: Key) -> float:
    return (now[key] + FEW) / (before.get(key, 0.0) + FEW)
