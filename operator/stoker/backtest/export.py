"""The answer as plain values for JSON: names as in the API, times RFC 3339, lengths of time in minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stoker.backtest.period import rfc3339
from stoker.backtest.replay import Moment, Tally
from stoker.backtest.report import Report, Totals


def as_json(answer: Report) -> dict[str, Any]:
    """The answer as plain values; field names are camelCase as in the API, times RFC 3339."""
    terms = answer.terms
    return {
        "namespace": terms.deployment.key.namespace,
        "name": terms.deployment.key.name,
        "from": rfc3339(terms.span.start),
        "to": rfc3339(terms.span.end),
        "stepSeconds": terms.span.step,
        "scrapeIntervalSeconds": round(answer.scrape_interval, 1),
        "startUpSeconds": terms.start_up,
        "gpusPerReplica": terms.gpus,
        "costPerGpuHour": terms.cost_per_gpu_hour,
        "simulated": _totals_json(answer.simulated),
        "recorded": _totals_json(answer.recorded),
        "shortAtMaxReplicasMinutes": round(answer.bounded_minutes, 2),
        "unknownMinutes": round(answer.unknown_minutes, 2),
        "gaps": [{"from": rfc3339(a), "to": rfc3339(b)} for a, b in answer.gaps],
        "targets": {
            name: _tally_json(tally, terms.span.step / 60) for name, tally in answer.outcome.tallies.items()
        },
        "capacity": None
        if answer.capacity is None
        else answer.capacity.model_dump(mode="json", by_alias=True),
        "notes": list(answer.notes),
        "assumptions": list(answer.assumptions),
        "decisions": [
            {
                "time": rfc3339(c.at),
                "from": c.before,
                "to": c.after,
                "limitedBy": c.limited_by,
                "message": c.message,
            }
            for c in answer.outcome.changes
        ],
        "replicas": list(_timeline(answer.outcome.moments)),
    }


def _tally_json(tally: Tally, minutes: float) -> dict[str, Any]:
    return {
        "knownMinutes": round(tally.known * minutes, 2),
        "partlyKnownMinutes": round(tally.partly * minutes, 2),
        "unknownMinutes": round(tally.unknown * minutes, 2),
        "lastReason": tally.why,
    }


def _totals_json(totals: Totals) -> dict[str, Any]:
    short = totals.short
    return {
        "replicasMean": round(totals.mean, 3),
        "replicasMin": totals.fewest,
        "replicasMax": totals.most,
        "replicaHours": round(totals.replica_hours, 3),
        "gpuHours": round(totals.gpu_hours, 3),
        "cost": None if totals.cost is None else round(totals.cost, 2),
        "shortMinutes": round(short.minutes, 2),
        "longestShortMinutes": round(short.longest_minutes, 2),
        "longestShortSince": None if short.longest_since is None else rfc3339(short.longest_since),
        "worstLoadPerReplica": round(short.worst_load, 3),
        "worstLoadAt": None if short.worst_at is None else rfc3339(short.worst_at),
        "changes": totals.changes,
        "reversals": totals.reversals,
    }


def _timeline(moments: Sequence[Moment]) -> Iterator[dict[str, Any]]:
    """One entry for each instant at which something is another number than before."""
    before: tuple[object, ...] | None = None
    for m in moments:
        state = (m.wanted, m.serving, m.recorded, m.needed, m.known)
        if state != before:
            names = ("wanted", "serving", "recorded", "needed", "known")
            yield {"time": rfc3339(m.at), **dict(zip(names, state, strict=True))}
        before = state
