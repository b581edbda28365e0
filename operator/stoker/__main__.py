"""The command line: ``stoker run``, ``stoker backtest`` and ``stoker generate``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stoker import __version__
from stoker import settings as settings_module
from stoker.api import conditions, meta, schema
from stoker.backtest.command import backtest
from stoker.core.engines import reference_markdown as engines_markdown
from stoker.telemetry import metrics

app = typer.Typer(
    name="stoker",
    help="A Kubernetes operator for fleets of LLM inference engines.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """A Kubernetes operator for fleets of LLM inference engines."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run() -> None:
    """Run the operator until it is told to stop. It is configured by environment variables (STOKER_*)."""
    from stoker import runtime  # noqa: PLC0415 - kopf and the clients take a second to import

    try:
        settings = settings_module.load(os.environ)
    except settings_module.SettingsError as error:
        typer.echo(f"The settings cannot be used:\n{error}", err=True)
        for name, meant in settings_module.unknown(os.environ).items():
            typer.echo(f"{name} is no setting" + (f": did you mean {meant}?" if meant else ""), err=True)
        raise typer.Exit(2) from error
    sys.exit(asyncio.run(runtime.run(settings, settings_module.unknown(os.environ))))


app.command()(backtest)

GENERATED = {
    "crds/stoker.dev_modeldeployments.yaml": schema.crd_yaml,
    "docs/reference/api.md": schema.reference_markdown,
    "docs/reference/conditions.md": conditions.reference_markdown,
    "docs/reference/engines.md": engines_markdown,
    "docs/reference/labels-and-annotations.md": meta.reference_markdown,
    "docs/reference/metrics.md": metrics.reference_markdown,
    "docs/reference/settings.md": settings_module.reference_markdown,
}
"""File below the project's root → what it is made of."""


@app.command()
def generate(
    directory: Annotated[Path, typer.Option(help="The project's root.")] = Path(),
) -> None:
    """Write the CRD and the reference pages from the code that they describe."""
    for name, make in GENERATED.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
        typer.echo(f"wrote {path}")


def main() -> None:
    """Entry point of the ``stoker`` program."""
    app()


if __name__ == "__main__":
    main()
