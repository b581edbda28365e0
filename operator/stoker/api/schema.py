"""The CustomResourceDefinition, made of the models.

Pydantic's JSON schema is not what the API server takes: it wants a *structural* schema, with every reference
written out, one type per node and no keyword beyond its own. The rules of the conversion:

- `$ref` is replaced by what it points to; a field's own text and default win over those of the type;
- `anyOf: [T, null]` is T: an optional field is absent, never null;
- the text of a field ends with its default and its bounds, for `kubectl explain` shows neither;
- `title` goes, and so do defaults that say nothing (null, an empty text, list or map);
- the default of an object is written out: the API server holds it against the rules before it fills it in;
- a keyword that the API server would refuse is an error here, not a surprise on a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from stoker.api import conditions, meta, reference
from stoker.api.fields import LIST_MAP_KEYS, LIST_TYPE, RANGE, RULES, ApiModel, JSONSchema, Rule
from stoker.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus

if TYPE_CHECKING:
    from pathlib import Path

_KEYWORDS: Final = (
    # In the order in which they are written.
    *("description", "type", "format", "enum", "default", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "maxProperties", LIST_TYPE, LIST_MAP_KEYS),
    *("x-kubernetes-preserve-unknown-fields", "required"),
    *("properties", "additionalProperties", "items", RULES),
)
_RULE_PARTS: Final = ("rule", "message", "fieldPath")
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})
_INT32_MAX: Final = 2**31 - 1

_NAME_RULE: Final = Rule(
    "self.metadata.name.matches(r'^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    f" && self.metadata.name.size() <= {meta.MAX_NAME_LENGTH}",
    "it names a Service and begins pod names, behind which a revision and a number have to fit: write a"
    f" lower-case letter, then lower-case letters, digits and '-', at most {meta.MAX_NAME_LENGTH} characters",
    ".metadata.name",
)
_COLUMNS: Final = (
    ("Model", "string", ".spec.model.uri", "Where the weights come from", 0),
    ("Engine", "string", ".spec.engine.type", "The inference engine", 0),
    ("Ready", "string", ".status.ready", "Serving and wanted replicas", 0),
    ("Desired", "integer", ".status.desiredReplicas", "Replicas that the traffic asks for", 0),
    ("Tokens/s", "integer", ".status.tokensPerSecond", "Tokens that the fleet generates per second", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready, or not", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Time since it was created", 0),
    ("Accelerator", "string", ".status.accelerator", "The type of GPU in use", 1),
    ("Min", "integer", ".spec.scaling.minReplicas", "Never fewer replicas", 1),
    ("Max", "integer", ".spec.scaling.maxReplicas", "Never more replicas", 1),
    ("Capacity", "integer", ".status.capacity[0].tokensPerSecond", "Tokens per second of one replica", 1),
)


def structural(model: type[ApiModel]) -> JSONSchema:
    """Return the structural schema of a model.

    Raises:
        ValueError: the model uses what the API server does not take; the message has path and keyword.
    """
    source = model.model_json_schema()
    return _convert(source, source.get("$defs", {}), model.__name__)


def _convert(node: JSONSchema, defs: dict[str, JSONSchema], path: str) -> JSONSchema:
    node = _flat(node, defs, path)
    limits = _limits(node)
    if unknown := sorted(node.keys() - set(_KEYWORDS)):
        raise ValueError(f"{path}: {', '.join(unknown)}: not part of a structural schema; use another type")
    if "description" in node:
        node["description"] = " ".join([*node["description"].split(), *limits])
    if node["type"] in {"integer", "number"}:
        node["format"] = _number_format(node)
    if "properties" in node:
        fields = node["properties"].items()
        node["properties"] = {name: _convert(field, defs, f"{path}.{name}") for name, field in fields}
    for inner in {"items", "additionalProperties"} & node.keys():
        node[inner] = _convert(node[inner], defs, f"{path}[]")
    if RULES in node:
        node[RULES] = [{part: rule[part] for part in _RULE_PARTS if part in rule} for rule in node[RULES]]
    return {keyword: node[keyword] for keyword in _KEYWORDS if keyword in node}


def _flat(node: JSONSchema, defs: dict[str, JSONSchema], path: str) -> JSONSchema:
    """Return one node with references and optional types written out, and without what says nothing."""
    node = {keyword: value for keyword, value in node.items() if keyword not in {"title", "$defs"}}
    if "anyOf" in node:
        kinds = [kind for kind in node.pop("anyOf") if kind != {"type": "null"}]
        if len(kinds) != 1:
            raise ValueError(f"{path}: more than one type: a structural schema has one per field")
        node = _flat(kinds[0], defs, path) | node
    if "$ref" in node:
        node = _flat(defs[node.pop("$ref").removeprefix("#/$defs/")], defs, path) | node
    if node.get("additionalProperties") is True:
        del node["additionalProperties"]
    default = _default(node)
    return {keyword: value for keyword, value in node.items() if keyword != "default"} | default


def _default(node: JSONSchema) -> JSONSchema:
    """Return the default as an entry of the schema, or nothing where it says nothing."""
    default = _without_empty(node.get("default"))
    is_object = "properties" in node and default == {}
    return {"default": default} if is_object or default not in _EMPTY else {}


def _without_empty(value: Any) -> Any:
    """Return the value without the entries of objects, at any depth, that say nothing."""
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _without_empty(item) for name, item in value.items()}
    return {name: item for name, item in kept.items() if item not in _EMPTY}


def _limits(node: JSONSchema) -> list[str]:
    """Return the sentences that end the text of a field, and take the `RANGE` off the node."""
    default = node.get("default")
    limits = []
    if isinstance(default, bool):
        limits.append(f"Default: {str(default).lower()}.")
    elif isinstance(default, str | int | float):
        limits.append(f"Default: {default}.")
    low, high = node.pop(RANGE, (node.get("minimum"), node.get("maximum")))
    return [*limits, f"From {low} to {high}."] if None not in (low, high) else limits


def _number_format(node: JSONSchema) -> str:
    if node["type"] == "number":
        return "double"
    return "int32" if node.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"


def _root() -> JSONSchema:
    return {
        "description": "A fleet of engines that serve one model, kept at the size that its traffic needs.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"Version of this schema: {meta.API_VERSION}.", "type": "string"},
            "kind": {"description": f"Always {meta.KIND}.", "type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural(ModelDeploymentSpec),
            "status": structural(ModelDeploymentStatus),
        },
        RULES: [_NAME_RULE.schema()],
    }


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, "description": description, "priority": priority}


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition."""
    version = {
        "name": meta.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "schema": {"openAPIV3Schema": _root()},
    }
    names = {
        "kind": meta.KIND,
        "listKind": meta.LIST_KIND,
        "plural": meta.PLURAL,
        "singular": meta.SINGULAR,
        "shortNames": [meta.SHORT_NAME],
        "categories": [meta.CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": meta.CRD_NAME},
        "spec": {"group": meta.GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _Dumper(yaml.SafeDumper):
    """Repeats what stands in several places, where YAML would put anchors that few tools follow."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is yaml's
        return True


def crd_yaml() -> str:
    """Return the CRD as it is checked in."""
    text = yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# Made by `stoker generate` from operator/stoker/api; do not edit.\n{text}"


def reference_markdown() -> str:
    """Return `docs/reference/api.md`."""
    return reference.render(_root())


def write(directory: Path) -> None:
    """Write the CRD and the reference pages below the project's `directory`."""
    files = {
        f"crds/{meta.GROUP}_{meta.PLURAL}.yaml": crd_yaml(),
        "docs/reference/api.md": reference_markdown(),
        "docs/reference/conditions.md": conditions.reference_markdown(),
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
