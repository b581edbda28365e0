"""What Prometheus has recorded, read in chunks: the operator's own queries, at every instant of a period.

Rules of this module:

* The PromQL is `stoker.core.promql.queries`, word for word but for its selectors: they are narrowed to the
  namespace (and, where the pattern allows it, to the names) of the fleet, so that other fleets cost nothing.
  At each of its instants a range query answers what an instant query there would have.
* Memory is bounded: a chunk of answers is held, and the next one is read while decisions are made.
* A chunk that is too much for the server is asked for again in halves. Any other failure ends the backtest:
  an answer that is missing now is not one that was missing then.
"""

from __future__ import annotations

import asyncio
import math
import re
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

from stoker.backtest.errors import BacktestError
from stoker.backtest.period import shown
from stoker.backtest.recorded import Days, Recorded, interval_of, recorded
from stoker.clients.answers import Course, Matrix, Span
from stoker.core import gateway, promql
from stoker.core.history import CHUNK_STEPS, KEPT_STEPS, QUERY, STEP_SECONDS, steps_until, whose
from stoker.core.history import query as demand_query
from stoker.core.promql import Freshness, LatencyScope
from stoker.core.readings import Key, MetricNames, Series, Signal
from stoker.core.signals import Answer, Failed, Sample, Samples

POINTS: Final = 100_000
"""Points of one query's answer that a chunk aims at: some megabytes of JSON."""

FEWEST: Final = 10
MOST: Final = 1_000
"""Instants of a chunk."""

DENSITY_SECONDS: Final = 300.0
"""Window in which samples are counted to learn the scrape interval, and the step between two looks."""

PLAIN: Final = re.compile(r"(?:(?!\(\?)[a-z0-9.()|*+?\[\]{},^-])+")
"""Patterns that mean the same to RE2 and to Python, and to Prometheus within a string of a query."""


_CREDENTIALS: Final = (
    "; credentials are set as for the operator: STOKER_PROMETHEUS_BEARER_TOKEN_FILE, or …_USERNAME and "
    "…_PASSWORD_FILE"
)

OWN_QUERY: Final = "signal: "
"""How the names of the user's own queries begin; the PromQL follows."""

_Chunk: TypeAlias = tuple[Span, Mapping[str, Matrix]]


class Ranges(Protocol):
    """The part of the Prometheus client that is needed."""

    async def query_range_all(self, queries: Mapping[str, str], span: Span) -> Mapping[str, Matrix | Failed]:
        """Ask all queries at once; never raises."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose series to read."""

    fleet: Key
    """The ModelDeployment."""
    pods: str
    """Pattern that a pod's whole name has to match."""

    @property
    def plain(self) -> bool:
        """Whether Prometheus can be given the pattern, and so sends nothing else."""
        return PLAIN.fullmatch(self.pods) is not None

    def holds(self, query: str, labels: Mapping[str, str]) -> bool:
        """Whether a series in the answer to one of the queries is of the fleet."""
        if query.startswith(OWN_QUERY):
            return True
        mine = labels.get("namespace") == self.fleet.namespace
        if query == gateway.NAME:
            return mine
        if query == QUERY:  # a sum over pods: it is of the fleet where nothing else was asked for
            return self.plain or whose(labels) == self.fleet
        return mine and re.fullmatch(self.pods, labels.get("pod", "")) is not None

    def narrowed(self, metrics: MetricNames) -> MetricNames:
        """The same names with selectors for this fleet alone."""
        pods = self.pods if self.plain else ""
        series = {
            signal: tuple(
                _OfPods(s.name, {**s.labels, "namespace": self.fleet.namespace}, pods) for s in found
            )
            for signal, found in metrics.series.items()
        }
        return replace(metrics, series=series)


@dataclass(frozen=True, slots=True)
class _OfPods(Series):
    """Series of the pods whose names match."""

    pods: str = ""

    def __str__(self) -> str:
        """The series as a PromQL selector."""
        selector = Series.__str__(self)
        return f'{selector[:-1]},pod=~"{self.pods}"}}' if self.pods else selector


@dataclass(slots=True)
class History:
    """The recorded series of one fleet.

    Args:
        prometheus: whom to ask.
        scope: whose series.
        metrics: the names that its engine uses, narrowed to the scope.
        latency: whether a target needs the histograms of the time to first token.
    """

    prometheus: Ranges
    scope: Scope
    metrics: MetricNames
    latency: bool
    own: tuple[str, ...] = ()
    """The user's own queries: PromQL of ``spec.scaling.signals``."""
    patience: float = 100.0
    """Seconds after which a chunk that failed has only taken too long: it is asked for in halves."""
    warnings: set[str] = field(default_factory=set)
    """What Prometheus remarked, e.g. that a store gave only part of its data."""

    @property
    def queries(self) -> dict[str, str]:
        """PromQL by query name, as the operator asks it."""
        scopes = [LatencyScope(self.scope.fleet.namespace, self.metrics)] if self.latency else []
        own = {f"{OWN_QUERY}{query}": query for query in self.own}
        return {**promql.queries([self.metrics], scopes), gateway.NAME: gateway.QUERY, **own}

    @property
    def running(self) -> str:
        """Selector of the series that every replica has; the plainest alternative of it."""
        return str(self.metrics.series[Signal.RUNNING][-1])

    async def survey(self, span: Span) -> Recorded:
        """Which replicas there were.

        Raises:
            BacktestError: Prometheus does not answer, or has nothing.
        """
        name = Freshness.LAST_SAMPLE.value
        seen: dict[Key, array[float]] = {}
        async for _, matrices in self._chunks({name: self.queries[name]}, span, MOST):
            for course in matrices[name].courses:
                _collect(seen, course)
        interval = await self._scrape_interval(span)
        if not seen or interval is None:
            raise BacktestError(await self._why_nothing(span))
        return recorded(seen, span, interval)

    async def days(self, span: Span) -> Days:
        """The demand of the weeks before and during the period, for forecasts; gaps are NaN."""
        first = steps_until(span.start) - KEPT_STEPS + 1
        last = steps_until(span.end)
        steps = Span(first * STEP_SECONDS, last * STEP_SECONDS, STEP_SECONDS)
        values = array("d", [math.nan]) * steps.count
        query = {QUERY: demand_query([self.metrics])}
        begun = 0
        async for chunk, matrices in self._chunks(query, steps, CHUNK_STEPS):
            for course in matrices[QUERY].courses:
                for number, value in course.values.items():
                    before = values[begun + number]
                    values[begun + number] = value if math.isnan(before) else before + value
            begun += chunk.count
        return Days(first, values)

    async def instants(self, span: Span, replicas: int) -> AsyncGenerator[dict[str, Answer], None]:
        """The answers to all queries at each instant, in order.

        Args:
            span: the instants.
            replicas: about how many series each query finds at a time.

        Raises:
            BacktestError: Prometheus does not answer.
        """
        size = max(FEWEST, min(MOST, POINTS // max(1, replicas)))
        async for chunk, matrices in self._chunks(self.queries, span, size):
            for number in range(chunk.count):
                yield {name: _at(matrix, number, chunk.at(number)) for name, matrix in matrices.items()}

    async def _chunks(self, queries: Mapping[str, str], span: Span, size: int) -> AsyncIterator[_Chunk]:
        """Chunk after chunk; while the caller works on one, the next is asked for."""
        reading: asyncio.Task[list[_Chunk]] | None = None
        try:
            for chunk in (*_cut(span, size), None):
                ready = await reading if reading is not None else []
                reading = asyncio.create_task(self._read(queries, chunk)) if chunk is not None else None
                for part in ready:
                    yield part
        finally:
            if reading is not None:
                reading.cancel()

    async def _read(self, queries: Mapping[str, str], span: Span) -> list[_Chunk]:
        """One chunk, in as many pieces as the server needs."""
        clock = asyncio.get_running_loop().time
        started = clock()
        answers = await self.prometheus.query_range_all(queries, span)
        late = clock() - started > self.patience
        failed = {name: a for name, a in answers.items() if isinstance(a, Failed)}
        if not failed:
            matrices = {name: self._own(name, a) for name, a in answers.items() if isinstance(a, Matrix)}
            return [(span, matrices)]
        name, why = next(iter(failed.items()))
        hopeless = (why.unreachable and not late) or "bad_data" in why.why
        if hopeless or span.count <= FEWEST:
            when = f"{shown(span.start)} to {shown(span.end)}"
            hint = _CREDENTIALS if "HTTP 401" in why.why or "HTTP 403" in why.why else ""
            raise BacktestError(f"Prometheus did not answer query {name!r} for {when}: {why.why}{hint}")
        halves = [await self._read(queries, half) for half in _cut(span, (span.count + 1) // 2)]
        return [part for half in halves for part in half]

    def _own(self, query: str, matrix: Matrix) -> Matrix:
        self.warnings.update(matrix.warnings)
        mine = (course for course in matrix.courses if self.scope.holds(query, course.labels))
        return replace(matrix, courses=tuple(mine))

    async def _scrape_interval(self, span: Span) -> float | None:
        counts = f"count_over_time({self.running}[{DENSITY_SECONDS:.0f}s])"
        query = f"max by (namespace, pod) ({counts})"
        found = [
            value
            for _, matrices in await self._read({"scrapes": query}, _coarse(span))
            for course in matrices["scrapes"].courses
            for value in course.values.values()
        ]
        return interval_of(found, DENSITY_SECONDS)

    async def _why_nothing(self, span: Span) -> str:
        """Which query gave nothing, and what there is instead."""
        name = self.metrics.series[Signal.RUNNING][-1].name
        query = f"count by (namespace, pod) ({name})"
        matrix = (await self.prometheus.query_range_all({"pods": query}, _coarse(span)))["pods"]
        found = [course.labels for course in matrix.courses] if isinstance(matrix, Matrix) else []
        return (
            f"Prometheus has no series {self.running} with a pod name that matches {self.scope.pods!r} "
            f"between {shown(span.start)} and {shown(span.end)}. {self._instead(name, found)}"
        )

    def _instead(self, name: str, found: list[Mapping[str, str]]) -> str:
        if not found:
            return f"It has no {name} at all then: check --prometheus, --from and --to, and what is scraped"
        if not any(labels.get("namespace") and labels.get("pod") for labels in found):
            return f"Its {name} has no labels 'namespace' and 'pod': have the scrape configuration set them"
        here = sorted({x.get("pod", "") for x in found if x.get("namespace") == self.scope.fleet.namespace})
        if here:
            return f"In that namespace it has {_some(here)}: say with --pods which of them are the fleet"
        return f"It has {name} in {_some(sorted({x.get('namespace', '') for x in found}))}: set --namespace"


def _coarse(span: Span) -> Span:
    return replace(span, step=max(DENSITY_SECONDS, (span.end - span.start) / MOST))


def _some(names: list[str]) -> str:
    shown_names = ", ".join(names[:3])
    return f"{shown_names} and {len(names) - 3} more" if len(names) > 3 else shown_names


def _cut(span: Span, size: int) -> Iterator[Span]:
    for first in range(0, span.count, size):
        last = min(first + size, span.count) - 1
        yield Span(span.at(first), span.at(last), span.step)


def _collect(seen: dict[Key, array[float]], course: Course) -> None:
    """The times at which a pod was scraped: of a sample that several instants saw, once."""
    pod = Key(course.labels["namespace"], course.labels["pod"])
    times = seen.setdefault(pod, array("d"))
    for number in sorted(course.values):
        at = course.values[number]
        if not times or at > times[-1]:
            times.append(at)


def _at(matrix: Matrix, number: int, at: float) -> Samples:
    return Samples(
        tuple(
            Sample(course.labels, value, at)
            for course in matrix.courses
            if (value := course.values.get(number)) is not None
        ),
        matrix.warnings,
    )
