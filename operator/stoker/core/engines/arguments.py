"""Command lines that users write, read the way the engine's own parser reads them.

vLLM parses with ``argparse`` (vLLM 0.33 ``vllm/utils/argparse_utils.py``), so one flag has many spellings:
``--port 1``, ``--port=1``, underscores for dashes, any unambiguous abbreviation (``--por 1``), a short alias,
and, by the habit of YAML writers, flag and value in one element (``"--port 1"``). All of them are recognised
here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec

_END_OF_NAME = re.compile(r"[=\s]")


def flag(word: str, aliases: Mapping[str, str]) -> str | None:
    """The long name of the flag that a word of a command line is or begins with; None when it is no flag."""
    if not word.startswith("-") or not word.strip("-"):
        return None
    name = _END_OF_NAME.split(word, maxsplit=1)[0]
    if name.startswith("--"):
        return name.replace("_", "-")
    return aliases.get(name, name)


def refused(
    spec: ModelDeploymentSpec, reserved: Mapping[str, str], aliases: Mapping[str, str]
) -> tuple[FieldError, ...]:
    """An error for each argument in the spec that is one of the reserved flags, in any spelling.

    Args:
        spec: its `engine.args` and the `args` of every accelerator are read.
        reserved: long flag to what to do instead, as an instruction.
        aliases: short flag to long flag.
    """
    return tuple(
        FieldError(path=path, message=f"{word!r} sets {name}, which belongs to Stoker: {reserved[name]}")
        for path, word in _words(spec)
        if (name := _match(flag(word, aliases), reserved)) is not None
    )


def value(words: Sequence[str], name: str, aliases: Mapping[str, str]) -> str | None:
    """The value of a flag on a command line, None when it is not there; the last one wins, as in argparse."""
    found = None
    for index, word in enumerate(words):
        if _match(flag(word, aliases), (name,)) is not None:
            inside = _END_OF_NAME.split(word, maxsplit=1)[1:]
            found = (inside or words[index + 1 : index + 2] or [""])[0]
    return found


def _words(spec: ModelDeploymentSpec) -> Iterator[tuple[str, str]]:
    for index, word in enumerate(spec.engine.args):
        yield f"spec.engine.args[{index}]", word
    for number, accelerator in enumerate(spec.accelerators):
        for index, word in enumerate(accelerator.args):
            yield f"spec.accelerators[{number}].args[{index}]", word


def _match(name: str | None, known: Iterable[str]) -> str | None:
    """Which of the known long flags argparse would take `name` for: itself or an abbreviation of it."""
    if name is None or not name.startswith("--"):
        return None
    # The shortest one that fits is the exact one when there is an exact one.
    return min((long for long in known if long.startswith(name)), key=len, default=None)
