"""What the tests of the documentation need of Markdown: fenced blocks, links, headings.

A `console` block holds commands, each on a line that begins with `$ `, with what they print below. There `…`
stands for any text, or any number of lines; a number of several digits for any number, and likewise for ages,
addresses and the revision in a pod's name. Lines that the page leaves out do not matter.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(
    r"(?P<revision>(?<=-)[0-9a-f]{8}(?=-))|(?P<age>\b(?:\d+[dhms])+\b)|(?P<number>\d[\d.]+)|(?P<space>\s+)|(?P<any>…)"
)
_PATTERNS = {
    "revision": "[0-9a-f]{8}",
    "age": r"(?:\d+[dhms])+",
    "number": r"[\d.]+",
    "space": r"\s+",
    "any": ".*",
}


FOLDERS = ("bench", "charts", "docs", "hack", "manifests", "operator", "testbed", "tests")


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    found = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
    return sorted(found)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [textwrap.dedent(body) for _, name, body in _FENCE.findall(text) if name == language]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", prose(text), re.MULTILINE)
    return {_anchor(heading) for heading in headings}


def _anchor(heading: str) -> str:
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))


def model_deployments(text: str) -> list[dict[str, Any]]:
    """Every ModelDeployment in the YAML blocks of a page."""
    found = [obj for block in blocks(text, "yaml") for obj in yaml.safe_load_all(block)]
    return [obj for obj in found if isinstance(obj, dict) and obj.get("kind") == "ModelDeployment"]


@dataclass
class Command:
    """One command of a console block."""

    text: str
    shown: list[str] = field(default_factory=list)
    """What the page says that it prints."""

    @property
    def fails(self) -> bool:
        """Whether the page shows an error."""
        return bool(self.shown) and re.match(r"The .* is invalid|[Ee]rror", self.shown[0]) is not None

    def missing(self, printed: str) -> str | None:
        """The first shown line that was not printed (after those above it); None when all were."""
        lines = iter(printed.splitlines())
        for wanted in filter(str.strip, self.shown):
            pattern = re.compile(_pattern(wanted))
            if wanted != "…" and not any(pattern.fullmatch(line.strip()) for line in lines):
                return wanted
        return None


def _pattern(line: str) -> str:
    parts: list[str] = []
    at = 0
    for match in _VARIABLE.finditer(line.strip()):
        parts += [re.escape(line.strip()[at : match.start()]), _PATTERNS[str(match.lastgroup)]]
        at = match.end()
    return "".join(parts) + re.escape(line.strip()[at:])


def commands(text: str) -> Iterator[Command]:
    """The commands of every console block, in order."""
    for block in blocks(text, "console"):
        command: Command | None = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if command is not None:
                    yield command
                command = Command(line[2:])
            elif command is not None and command.text.endswith("\\"):
                command.text += f"\n{line}"
            elif command is not None:
                command.shown.append(line)
        if command is not None:
            yield command
