"""Prometheus text exposition from tables: what an engine exports is data, not code.

Rules of this module:

- A dialect (`testbed.vllm_families`) is a sequence of `Family` records. Each series names the `source` of its
  value, or carries a constant; another engine's names are another table over the same sources.
- Rendering happens for hundreds of pods every few seconds in one Python process: everything but the values is
  put into one format string when the engine starts, so a scrape is one ``%``.
- As prometheus_client does without OpenMetrics: labels sorted, ``_total`` on counters, a ``_created`` gauge
  beside each counter, histogram and summary; ``_count`` before ``_sum``.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

__all__ = [
    "CONTENT_TYPE",
    "Family",
    "Histogram",
    "Series",
    "Template",
    "counter",
    "gauge",
    "header",
    "histogram",
    "sample",
]

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"  # what vLLM 0.33 answers

Kind = Literal["counter", "gauge", "histogram", "summary"]
Source = str | float


@dataclass(frozen=True, slots=True)
class Series:
    """One line (or one histogram) of a family: its own labels, and where its value comes from."""

    source: Source
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family as scraped.

    Attributes:
        name: with the ``_total`` of counters.
        kind: the TYPE line.
        help: the HELP line.
        series: in order of exposition.
        buckets: upper bounds without +Inf; histograms only.
        common: names of the engine-wide labels that it carries.
    """

    name: str
    kind: Kind
    help: str
    series: tuple[Series, ...]
    buckets: tuple[float, ...] = ()
    common: tuple[str, ...] = ("engine", "model_name")

    def carrying(self, *common: str) -> Self:
        """The same family with only these of the engine-wide labels."""
        return replace(self, common=common)


CREATED = "created"  # the source of every `_created` gauge


def _series(source: Source | Mapping[str, Source], label: str) -> tuple[Series, ...]:
    if isinstance(source, Mapping):
        return tuple(Series(value, {label: key}) for key, value in source.items())
    return (Series(source, {}),)


def gauge(name: str, text: str, source: Source | Mapping[str, Source], label: str = "") -> tuple[Family, ...]:
    """A gauge; `source` maps values of `label` to sources when there is more than one series."""
    return (Family(name, "gauge", text, _series(source, label)),)


def counter(
    name: str, text: str, source: Source | Mapping[str, Source], label: str = "", *, created: bool = True
) -> tuple[Family, ...]:
    """A counter ``name_total`` and, unless it is a process collector's, ``name_created``."""
    series = _series(source, label)
    total = Family(f"{name}_total", "counter", text, series)
    return (total, _created(name, text, series)) if created else (total,)


def histogram(name: str, text: str, source: str, buckets: Iterable[float]) -> tuple[Family, ...]:
    """A histogram and its ``name_created``."""
    series = (Series(source, {}),)
    return (Family(name, "histogram", text, series, tuple(buckets)), _created(name, text, series))


def _created(name: str, text: str, series: tuple[Series, ...]) -> Family:
    return Family(f"{name}_created", "gauge", text, tuple(Series(CREATED, one.labels) for one in series))


class Histogram:
    """Counts per bucket and a sum; observing many values at once costs the same as one."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add `value`, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_series(self, first: float, increment: float, steps: int, times: int) -> None:
        """Add ``first + k·increment`` for k below `steps`, each `times` times, bucket by bucket."""
        done = 0
        while done < steps:
            index = bisect_left(self.bounds, first + increment * done)
            upto = steps
            if increment > 0 and index < len(self.bounds):
                upto = min(steps, max(done + 1, math.floor((self.bounds[index] - first) / increment) + 1))
            self.counts[index] += (upto - done) * times
            done = upto
        self.sum += (steps * first + increment * (steps * (steps - 1) / 2)) * times

    def cumulative(self) -> Iterator[float]:
        """The values of the ``_bucket`` lines, +Inf last."""
        total = 0
        for count in self.counts:
            total += count
            yield float(total)

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)


def header(name: str, kind: Kind, text: str) -> str:
    """The HELP and TYPE lines."""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def sample(name: str, labels: Mapping[str, str], value: str) -> str:
    """One line; labels sorted by name."""
    inside = ",".join(f'{key}="{_escape(labels[key])}"' for key in sorted(labels))
    return f"{name}{{{inside}}} {value}\n" if inside else f"{name} {value}\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Template:
    """The exposition of one engine, with holes for the values.

    Args:
        families: the dialect.
        common: engine-wide labels.
        constants: values fixed when the engine starts; the other sources are asked for on every scrape.
    """

    def __init__(
        self, families: Iterable[Family], common: Mapping[str, str], constants: Mapping[str, float]
    ) -> None:
        self._sources: list[str] = []
        self._is_histogram: list[bool] = []
        self._holes = 0
        self._constants = constants
        self._text = "".join(self._family(family, common) for family in families)

    def _family(self, family: Family, common: Mapping[str, str]) -> str:
        lines = [header(family.name, family.kind, family.help).replace("%", "%%")]
        shared = {name: common[name] for name in family.common}
        for series in family.series:
            labels = {**shared, **series.labels}
            if family.kind == "histogram":
                lines.append(self._histogram(family, labels, str(series.source)))
            else:
                lines.append(_line(family.name, labels, self._value(series.source)))
        return "".join(lines)

    def _histogram(self, family: Family, labels: Mapping[str, str], source: str) -> str:
        self._sources.append(source)
        self._is_histogram.append(True)
        bounds = [repr(float(bound)) for bound in family.buckets] + ["+Inf"]
        self._holes += len(bounds) + 2
        lines = [_line(f"{family.name}_bucket", {**labels, "le": bound}, "%r") for bound in bounds]
        lines += [_line(family.name + suffix, labels, "%r") for suffix in ("_count", "_sum")]
        return "".join(lines)

    def _value(self, source: Source) -> str:
        if isinstance(source, str):
            if source not in self._constants:
                self._sources.append(source)
                self._is_histogram.append(False)
                self._holes += 1
                return "%r"
            source = self._constants[source]
        return repr(float(source))

    def render(self, values: Mapping[str, float], histograms: Mapping[str, Histogram]) -> str:
        """The text of a scrape.

        Raises:
            KeyError: a source of the dialect is in neither mapping.
        """
        filled: list[float] = []
        for source, is_histogram in zip(self._sources, self._is_histogram, strict=True):
            if not is_histogram:
                filled.append(float(values[source]))
                continue
            one = histograms[source]
            filled.extend(one.cumulative())
            filled += (filled[-1], one.sum)
        return self._text % tuple(filled)

    def render_nan(self) -> str:
        """A scrape in which every value that an engine measures is NaN."""
        return (self._text.replace("%r", "%s")) % (("NaN",) * self._holes)


def _line(name: str, labels: Mapping[str, str], value: str) -> str:
    line = sample(name, labels, "\0")
    return line.replace("%", "%%").replace("\0", value)
