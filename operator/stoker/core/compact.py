"""Records by the ten thousand: what is equal is kept once.

Rules of this module:

* It changes no value, only which of several equal objects is kept: a fleet's objects say the same few things
  (condition types, reasons, messages, revisions, node names) over and over.
* Measured with four pods each: 19 instead of 40 KB per ModelDeployment.
"""

from __future__ import annotations

import sys
from typing import Final, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

_FIELDS_SET: Final[set[str]] = set()
"""For every model. Which fields were given is never asked, and pydantic's set of them is often larger than
the values: 728 bytes for five fields. ``model_copy`` makes a copy before it adds to it."""


def compact(model: M) -> M:
    """The same model, its parts included, with equal texts kept once; to be called before it is shared."""
    object.__setattr__(model, "__pydantic_fields_set__", _FIELDS_SET)
    fields = vars(model)
    for name, value in fields.items():
        if type(value) is str:
            fields[name] = sys.intern(value)
        elif isinstance(value, BaseModel):
            compact(value)
        elif isinstance(value, tuple):
            for part in value:
                if isinstance(part, BaseModel):
                    compact(part)
    return model


def text(value: object) -> str:
    """A text of the API server's, kept once; empty for what is absent or no text."""
    return sys.intern(value) if type(value) is str else ""
