"""What can go wrong with the metrics of a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SCRAPE_SECONDS = 15.0


class FaultKind(StrEnum):
    """What is broken."""

    SCRAPES = "scrapes"
    """No pod can be scraped; Prometheus is up and answers that there is nothing."""
    HALF = "half"
    """Every other pod cannot be scraped: sums are partial."""
    PROMETHEUS = "prometheus"
    """Prometheus itself is down: queries fail, and afterwards the samples of that time are missing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A time in which metrics are missing, seconds of the simulation."""

    name: str
    kind: FaultKind
    start: float
    end: float

    def hides(self, ordinal: int) -> bool:
        """Whether the scrape of this pod fails."""
        return self.kind is FaultKind.SCRAPES or (self.kind is FaultKind.HALF and ordinal % 2 == 1)


def faults_at(start: float) -> tuple[Fault, ...]:
    """Each of the benchmark's faults, to be tried one at a time, beginning at ``start`` (s)."""
    return (
        Fault("lost-scrape", FaultKind.SCRAPES, start, start + SCRAPE_SECONDS),
        Fault("scrapes-60s", FaultKind.SCRAPES, start, start + 60.0),
        Fault("scrapes-300s", FaultKind.SCRAPES, start, start + 300.0),
        Fault("half-300s", FaultKind.HALF, start, start + 300.0),
        Fault("prometheus-60s", FaultKind.PROMETHEUS, start, start + 60.0),
        Fault("prometheus-330s", FaultKind.PROMETHEUS, start, start + 330.0),
    )
