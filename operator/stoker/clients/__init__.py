"""I/O: one module per outside system. They do not import each other and know nothing of decisions."""

from __future__ import annotations

from importlib import metadata


def user_agent() -> str:
    """What Stoker calls itself in requests: ``stoker/<version>``."""
    try:
        return f"stoker/{metadata.version('stoker')}"
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "stoker/unknown"
