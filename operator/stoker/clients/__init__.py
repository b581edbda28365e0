"""I/O: one module per outside system. They do not import each other and know nothing of decisions."""

from __future__ import annotations

from stoker import __version__


def user_agent() -> str:
    """What Stoker calls itself in requests: ``stoker/<version>``."""
    return f"stoker/{__version__}"
