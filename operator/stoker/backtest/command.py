"""``stoker backtest``: options in, the answer out; whatever is wrong is one clear line and exit code 2.

Rules of this module:

* The answer goes to stdout (or, as JSON, alone there), everything else to stderr.
* Prometheus' credentials and headers are those of the operator: the settings ``STOKER_PROMETHEUS_…``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoker import settings as settings_module
from stoker.api.fields import Duration
from stoker.backtest.errors import BacktestError

if TYPE_CHECKING:
    from stoker.core.observed import ModelDeployment


def backtest(  # noqa: PLR0913, PLR0917 - the options are the arguments
    file: Annotated[
        Path, typer.Option("--file", "-f", help="YAML with one ModelDeployment; - is standard input.")
    ],
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Address of Prometheus.", show_default="STOKER_PROMETHEUS_URL")
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--from", metavar="TIME", help="2027-01-31, 2027-01-31T08:00Z, or a time ago such as 7d."
        ),
    ] = "1d",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Likewise, or now.")] = "now",
    step: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Time between decisions.", show_default="5s to 60s, by the length"
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Namespace that the fleet ran in.", show_default="the file's"),
    ] = None,
    pods: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Names of the pods that ran.", show_default="those that Stoker gives"
        ),
    ] = None,
    start_up: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="From a replica's creation to serving.",
            show_default="status.startup of the file, or 4m",
        ),
    ] = None,
    cost_per_gpu_hour: Annotated[
        float | None, typer.Option("--cost-per-gpu-hour", metavar="PRICE", min=0.0, help="Shows costs.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the answer into this file.")] = None,
    decisions: Annotated[bool, typer.Option(help="List each decision.")] = True,
) -> None:
    """Tell what a spec would have done with the traffic that Prometheus has recorded.

    The operator's own decision code runs through the past: replicas over time, GPU-hours, minutes short of
    capacity and the reason for each change, beside the fleet that really ran. Nothing is changed anywhere.
    """
    # Imported here: the clients take a second, which `stoker run` and `--help` need not wait for.
    from rich.console import Console  # noqa: PLC0415

    from stoker.backtest import export, manifest, picture, runner, terminal  # noqa: PLC0415
    from stoker.backtest.period import period  # noqa: PLC0415

    try:
        if plot is not None:
            picture.available()
        settings = settings_module.load(os.environ)
        deployment = manifest.load(file, namespace)
        asked = runner.Asked(
            deployment=deployment,
            url=_url(prometheus) or settings.prometheus_url,
            pods=_pattern(pods, deployment),
            span=period(since, until, step, time.time()),
            start_up=_duration(start_up),
            cost_per_gpu_hour=cost_per_gpu_hour,
        )
        answer = asyncio.run(runner.run(asked, settings))
        if plot is not None:
            picture.draw(answer, plot)
    except (BacktestError, settings_module.SettingsError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error
    if json_:
        typer.echo(json.dumps(export.as_json(answer), indent=2, ensure_ascii=False))
    else:
        terminal.show(answer, Console(highlight=False), decisions=decisions)


def _url(text: str) -> str:
    """The address, held against the same rules as the operator's setting."""
    name = "STOKER_PROMETHEUS_URL"
    try:
        return settings_module.load({name: text}).prometheus_url
    except settings_module.SettingsError as error:
        why = str(error).partition("cannot be used: ")[2]
        raise BacktestError(f"--prometheus cannot be used: {why}") from error


def _pattern(pods: str | None, deployment: ModelDeployment) -> str:
    if pods is None:
        return f"{deployment.key.name}-[0-9a-z]+-[0-9]+"
    try:
        re.compile(pods)
    except re.error as error:
        raise BacktestError(f"--pods {pods!r} is no pattern: {error}") from error
    return pods


def _duration(text: str | None) -> float | None:
    try:
        return None if text is None else Duration(text).seconds
    except ValueError as error:
        raise BacktestError(f"--start-up: {error}") from error
