"""Where in a manifest a refusal of the API server points, when it does not say so itself.

A quantity that cannot be read is refused while the object is decoded, before any field is validated, and the
message then names neither the field nor the value (k8s.io/apimachinery pkg/api/resource, ErrFormatWrong).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from stoker.core.plan import Manifest

_QUANTITY: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)
_AMOUNTS: Final = frozenset({"limits", "requests"})
"""Fields of a pod that map resources to quantities; `sizeLimit` is one quantity."""


def explain(message: str, manifest: Manifest | None) -> str:
    """The API server's words, and the fields that they are about where those can be found.

    Args:
        message: what the API server said.
        manifest: the pod that it refused; None when it was something else.
    """
    if manifest is None or "quantities must match" not in message:
        return message
    wrong = [
        f"{path} is {value!r}"
        for path, value in _quantities(manifest["spec"], "spec")
        if not _QUANTITY.fullmatch(str(value))
    ]
    return f"{', '.join(wrong)}: correct template.spec. {message}" if wrong else message


def _quantities(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each field below `path` that has to be a quantity, with its value."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _quantities(item, f"{path}[{number}]")
    if not isinstance(value, Mapping):
        return
    for name, item in value.items():
        if name in _AMOUNTS and isinstance(item, Mapping):
            yield from ((f"{path}.{name}[{resource}]", amount) for resource, amount in item.items())
        elif name == "sizeLimit":
            yield f"{path}.{name}", item
        else:
            yield from _quantities(item, f"{path}.{name}")
