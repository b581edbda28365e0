"""From the question to the answer: read the records, replay them, sum up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stoker.api.status import StartupStatus
from stoker.backtest.errors import BacktestError
from stoker.backtest.history import History, Scope
from stoker.backtest.recorded import LOOKBACK, Recorded
from stoker.backtest.replay import Outcome, Replay
from stoker.backtest.report import Report, Terms, check_ends, check_tallies, report
from stoker.clients.answers import Span
from stoker.clients.prometheus import Prometheus, access_from
from stoker.core import startup
from stoker.core.observed import ModelDeployment
from stoker.settings import Settings

TIMEOUT = 120.0
"""Seconds for one chunk of all queries: Prometheus' own default, ``--query.timeout``."""

MAX_BYTES = 512 * 1024 * 1024
"""Longest answer; a chunk that is longer is asked for in halves."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to know."""

    deployment: ModelDeployment
    url: str
    pods: str
    span: Span
    start_up: float | None
    cost_per_gpu_hour: float | None


async def run(asked: Asked, settings: Settings) -> Report:
    """Read the records and replay them.

    Raises:
        BacktestError: there is no answer; says why.
    """
    deployment, names = asked.deployment, asked.deployment.metrics
    spec = deployment.spec
    assert spec is not None and spec.scaling is not None and names is not None  # noqa: S101, PT018 - `manifest`
    if not asked.url:
        raise BacktestError("where is Prometheus? Write --prometheus http://…, or set STOKER_PROMETHEUS_URL")
    scope = Scope(deployment.key, asked.pods)
    names = scope.narrowed(names)
    seconds, source = start_up_of(deployment, asked.start_up)
    deployment = _with_start_up(replace(deployment, metrics=names), seconds)
    terms = Terms(deployment, asked.span, seconds, source, asked.cost_per_gpu_hour)
    client = Prometheus(asked.url, access=access_from(settings), timeout=TIMEOUT, max_bytes=MAX_BYTES)
    async with client as prometheus:
        guarded = spec.scaling.targets.time_to_first_token is not None
        own = tuple(signal.query for signal in spec.scaling.signals)
        history = History(prometheus, scope, names, guarded, own)
        with _progress("looking for replicas", None):
            found = await history.survey(_with_lead(asked.span, names.rate_window_seconds))
            check_ends(found, asked.span)
            days = await history.days(asked.span)
        replay = Replay(deployment, names, seconds, settings.stale_after_seconds, days)
        outcome = await _replayed(history, found, replay, asked.span)
    check_tallies(outcome)
    return report(terms, found, outcome, sorted(history.warnings))


async def _replayed(history: History, found: Recorded, replay: Replay, span: Span) -> Outcome:
    present = found.present(span.at(number) for number in range(span.count))
    most = max((len(lives) for _, lives in found.present(span.at(n) for n in range(span.count))), default=1)
    with _progress("replaying", span.count) as advance:
        async with aclosing(history.instants(span, most)) as instants:
            async for answers in instants:
                at, lives = next(present)
                replay.step(at, lives, answers)
                advance()
                await asyncio.sleep(0)  # lets the next chunk come in meanwhile
    return replay.outcome


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal; call what it gives for each part that is done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _with_lead(span: Span, rate_window: float) -> Span:
    """The period and so much before it that replicas which had just started then are recognised."""
    steps = -(-(rate_window + 2 * LOOKBACK) // span.step)
    return replace(span, start=span.start - steps * span.step)


def start_up_of(deployment: ModelDeployment, asked: float | None) -> tuple[float, str]:
    """(seconds from creation to serving, where that is from); what the user asks for wins."""
    assert deployment.spec is not None  # noqa: S101 - `manifest` has made sure
    if asked is not None:
        return asked, "--start-up"
    name = deployment.spec.accelerators[0].name
    for measured in deployment.status.startup:
        if measured.accelerator == name:
            return measured.p90_seconds, "p90 of status.startup in the file"
    return startup.DEFAULT_SECONDS, "a guess: set --start-up"


def _with_start_up(deployment: ModelDeployment, seconds: float) -> ModelDeployment:
    """The deployment as if so much had been measured: what decisions look ahead by."""
    assert deployment.spec is not None  # noqa: S101 - `manifest` has made sure
    name = deployment.spec.accelerators[0].name
    known = StartupStatus(accelerator=name, p50_seconds=seconds, p90_seconds=seconds, samples=startup.KEEP)
    return replace(deployment, status=deployment.status.model_copy(update={"startup": (known,)}))
