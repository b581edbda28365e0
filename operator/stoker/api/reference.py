"""The reference page of the API, made of the schema, so that it says what the API server does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoker.api import meta
from stoker.api.fields import RULES, JSONSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOUNDS = (
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("maxProperties", "at most {} entries"),
)


def render(root: JSONSchema) -> str:
    """Return `docs/reference/api.md` for the schema of the whole object."""
    properties = root["properties"]
    lines = [
        f"# {meta.KIND} (`{meta.API_VERSION}`)",
        "",
        root["description"],
        "",
        f"Short name `{meta.SHORT_NAME}`, category `{meta.CATEGORY}`.",
        f"`kubectl explain {meta.SINGULAR}.spec` shows the same texts.",
        "Durations are written as in Go: `90s`, `10m`, `1h30m`.",
        "",
        "Rules:",
        "",
        *_rules(root),
    ]
    for name in ("spec", "status"):
        for path, node in _objects(name, properties[name]):
            lines += ["", *_section(path, node)]
    return "\n".join(lines) + "\n"


def _objects(path: str, node: JSONSchema) -> Iterator[tuple[str, JSONSchema]]:
    """Yield every object with fields, depth first."""
    if "properties" in node and "x-kubernetes-preserve-unknown-fields" not in node:
        yield path, node
        for name, child in node["properties"].items():
            yield from _objects(f"{path}.{name}", child)
    elif "items" in node:
        yield from _objects(f"{path}[]", node["items"])


def _section(path: str, node: JSONSchema) -> list[str]:
    required = node.get("required", [])
    lines = [f"## {path}", "", node.get("description", ""), "", "| Field | Type | Meaning |", "|---|---|---|"]
    lines += [_row(name, child, required=name in required) for name, child in node["properties"].items()]
    rules = _rules(node)
    return [*lines, "", "Rules:", "", *rules] if rules else lines


def _rules(node: JSONSchema) -> list[str]:
    rules = node.get(RULES, [])
    return [f"- `{rule.get('fieldPath', '.')[1:] or 'all'}`: {rule['message']}" for rule in rules]


def _row(name: str, node: JSONSchema, *, required: bool) -> str:
    cells = (f"`{name}`", _type(node) + (", required" if required else ""), _meaning(node))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(node: JSONSchema) -> str:
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "items" in node:
        return f"list of {node['items']['type']}s"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {node['additionalProperties']['type']}s"
    return str(node["type"])


def _meaning(node: JSONSchema) -> str:
    bounds = [text.format(node[keyword]) for keyword, text in _BOUNDS if keyword in node]
    # The text itself ends with the bounds of durations and quantities.
    hints = [] if "properties" in node else [rule["message"] for rule in node.get(RULES, [])]
    hints = [hint for hint in hints if not hint.startswith(("write a duration", "write a quantity"))]
    extra = "; ".join([*bounds, *hints])
    return f"{node['description']} *{extra[:1].upper()}{extra[1:]}.*" if extra else str(node["description"])
