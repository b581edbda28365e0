"""One reading of the operator's own metrics, and what changed between two of them."""

from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

READS = frozenset({"get", "list", "watch"})
"""Verbs of `stoker_kube_requests_total` that change nothing."""

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The values of all counters and gauges, by name and labels."""

    values: dict[Sample, float]

    @classmethod
    def parse(cls, text: str) -> "Scrape":
        """Read the Prometheus text format."""
        families: Any = text_string_to_metric_families(text)
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): float(sample.value)
                for family in families
                for sample in family.samples
            }
        )

    def since(self, before: "Scrape") -> "Scrape":
        """Return the differences; what was not there before counts from zero."""
        return Scrape({key: value - before.values.get(key, 0.0) for key, value in self.values.items()})

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric over the series that have these labels; 0 when there is none."""
        wanted = labels.items()
        return sum((v for (n, have), v in self.values.items() if n == name and wanted <= have), 0.0)

    def by(self, label: str, name: str) -> dict[str, float]:
        """Sums of a metric by the value of one label, those that are zero left out."""
        sums: dict[str, float] = {}
        for (found, labels), value in self.values.items():
            key = dict(labels).get(label)
            if found == name and key is not None:
                sums[key] = sums.get(key, 0.0) + value
        return {key: value for key, value in sorted(sums.items()) if value}

    @property
    def writes(self) -> dict[str, float]:
        """Requests to the API server that may have changed something, by verb."""
        requests = self.by("verb", "stoker_kube_requests_total")
        return {verb: count for verb, count in requests.items() if verb not in READS}

    def mean(self, name: str, **labels: str) -> float:
        """Mean of a histogram's observations; 0 when there was none."""
        count = self.total(f"{name}_count", **labels)
        return self.total(f"{name}_sum", **labels) / count if count else 0.0
