"""One bad object for every bound and every rule of the CRD, made from the CRD itself.

A walk over the schema yields each constraint with the path where it stands. A bound tells by itself what
breaks it; for a rule, which is a CEL expression, `BROKEN` has values that break it, by the rule's message.
`SAMPLES` are good objects that between them set every field: a case takes the first one that has its path and
spoils that one place. A field without a sample, and a rule without a breaking value, fail
`tests/api/test_crd_cases.py`.
"""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from stoker.api.fields import LIST_MAP_KEYS, RULES
from stoker.api.schema import crd

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
Json = dict[str, Any]

REMOVED: Final = object()
"""As a value: the field is taken away."""
PRESERVED: Final = "x-kubernetes-preserve-unknown-fields"

SAMPLES: Final[dict[str, Json]] = {
    sample["metadata"]["name"]: sample
    for sample in yaml.safe_load_all(pathlib.Path(__file__).with_name("crd_samples.yaml").read_text())
}

_DOTS: Final = ["pvc://claim/../other", "file:///models/..", "pvc://claim/./x"]
_NODE: Final = {"fieldPath": "spec.nodeName"}
_DAY: Final = {"name": "day", "start": "0 8 * * *", "end": "0 18 * * *"}
BROKEN: Final[dict[str, list[Any]]] = {
    # Texts
    "write hf://org/name": ["s3://a/b", "hf://llama", "pvc://claim", "oci://UPPER", "file://a", "", *_DOTS],
    "write the name that clients": ["a name", "-x", ""],
    "write an object's name": ["Upper", "under_score", "-x", ""],
    "write a key of the object": ["a/b", ""],
    "write a field of the pod": ["podIP", "status."],
    "write the name of an environment variable": ["1A", "A-B", "A=B", ""],
    "write an image reference": ["UPPER/image", "a b", ""],
    "write the path of the page": ["metrics", "/a b", ""],
    "write a Prometheus metric name": ["1x", "a-b", 'up{job="x"}', ""],
    "write a short name": ["H100", "a.b", "-a", ""],
    "write an extended resource": ["gpu", "nvidia.com/", "/gpu", "Nvidia.com/gpu"],
    "write the key of a taint": ["-a", "a/b/c", ""],
    "write the value of a taint": ["a b", "-"],
    "write five fields": [
        *("0 8 * *", "0 0 8 * * *", "60 8 * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8"),
        *("0 0 * * MO", "0 0 L * *", "0 8 * * ?", "*/0 * * * *", "@daily", "0 8 * * 1-", ""),
    ],
    "write a time zone of the IANA": ["Mars/Olympus", "Local", "+02:00", "europe/berlin", "Europe/", ""],
    "write a PromQL query": ["", " ", "\n"],
    "write the unit of": ["", " ", "jobs "],
    "write a duration such as": ["10", "1 h", "-5m", "1d", "", "1.5"],
    "write a duration from 1ms to 10s": ["0s", "11s"],
    "write a duration from 10ms to 10m": ["9ms", "11m"],
    "write a duration from 0s to 1h": ["1h1s"],
    "write a duration from 0s to 24h": ["24h1ms"],
    "write a duration from 1m to 168h": ["59s", "169h"],
    "write a quantity of bytes from 1Gi to 100Ti": ["1023Mi", "101Ti", "lots", "-1Gi", "1e9", ""],
    "write a quantity of bytes from 64Mi to 1Ti": ["63Mi", "1025Gi", "8 Gi", "8gb"],
    # Maps
    "the prefix stoker.dev/": [{"stoker.dev/serving": "true"}],
    # Objects, as a whole
    "it names a Service": ["1abc", "a.b", "x" * 49],
    "replicas and scaling exclude each other": [
        {"model": {"uri": "hf://a/b"}, "replicas": 1, "scaling": {"maxReplicas": 2}}
    ],
    "minReplicas is greater than maxReplicas": [{"minReplicas": 3, "maxReplicas": 2}],
    "minReplicas of a schedule is greater": [{"maxReplicas": 2, "schedules": [{**_DAY, "minReplicas": 3}]}],
    "maxReplicas of a schedule is less": [
        {"minReplicas": 2, "maxReplicas": 3, "schedules": [{**_DAY, "maxReplicas": 1}]}
    ],
    "a schedule changes a bound": [_DAY],
    "minReplicas of the schedule is greater": [{**_DAY, "minReplicas": 3, "maxReplicas": 2}],
    "start and end are the same": [{**_DAY, "end": "0 8 * * *", "minReplicas": 2}],
    "set value or valueFrom": [{"name": "A", "value": "", "valueFrom": {"fieldRef": _NODE}}],
    "set exactly one of": [{}, {"fieldRef": _NODE, "secretKeyRef": {"name": "s", "key": "k"}}],
    "type Custom has no default image": [{"type": "Custom", "metrics": {"running": "r"}}],
    "the metrics of type Custom": [{"type": "Custom", "image": "a"}],
    "command is for type Custom": [{"command": ["serve"]}],
    "metrics is for type Custom": [{"type": "vLLM", "metrics": {"running": "r"}}],
    "operator Exists takes no value": [{"key": "a", "operator": "Exists", "value": "x"}],
    "set key, or set operator": [{"value": "x"}, {"operator": "Equal"}],
    "tolerationSeconds is for NoExecute": [
        {"key": "a", "tolerationSeconds": 1},
        {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1},
    ],
    "sizeLimit is for the empty directory": [{"claimName": "c", "sizeLimit": "1Gi"}],
    "a node's name would bypass": [{"nodeName": "node-1"}],
    "remove hostNetwork": [{"hostNetwork": True}],
    "remove hostPID": [{"hostPID": True}],
    "remove hostIPC": [{"hostIPC": True}],
}


@dataclass(frozen=True)
class Case:
    """A good object with one bad place.

    Attributes:
        path: the place.
        value: what stands there, or `REMOVED`.
        field: the field that the API server must name.
        text: what its message must contain.
        sample: the object to spoil.
    """

    path: Path
    value: Any
    field: str
    text: str
    sample: str

    def __str__(self) -> str:
        shown = "removed" if self.value is REMOVED else repr(self.value)
        return f"{written(self.path)}={shown[:24]}-{self.text[:30]}"

    @property
    def manifest(self) -> Json:
        """The bad object."""
        manifest = json.loads(json.dumps(SAMPLES[self.sample]))
        parent: Any = manifest
        for part in self.path[:-1]:
            parent = parent[part]
        if self.value is REMOVED:
            del parent[self.path[-1]]
        else:
            parent[self.path[-1]] = self.value
        return manifest


@functools.cache
def cases() -> list[Case]:
    """Return one case or more for each constraint of the schema."""
    return list(itertools.chain.from_iterable(_cases(path, node) for path, node in nodes()))


@functools.cache
def nodes() -> tuple[tuple[Path, Json], ...]:
    """Return every node of the schema below spec and status, and the root for its rules."""
    root = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = (_walk((part,), root["properties"][part]) for part in ("spec", "status"))
    return ((), {"type": "object", RULES: root[RULES]}), *itertools.chain.from_iterable(parts)


@functools.cache
def rules() -> frozenset[str]:
    """Return the messages of all CEL rules of the schema."""
    return frozenset(rule["message"] for _, node in nodes() for rule in node.get(RULES, []))


def broken(message: str) -> list[Any]:
    """Return the values that break the rule with this message."""
    return next((values for start, values in BROKEN.items() if start in message), [])


def sample_with(path: Path) -> str | None:
    """Return the name of the first good object that sets `path`."""
    return next((name for name, sample in SAMPLES.items() if _has(sample, path)), None)


def written(path: Path) -> str:
    """Return a path as the API server writes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _walk(path: Path, node: Json) -> Iterator[tuple[Path, Json]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _walk((*path, name), child)
    if "items" in node:
        yield from _items(path, node["items"])
    if "additionalProperties" in node:
        key = next(iter(_get(SAMPLES["vllm"], path)))
        yield from _walk((*path, key), node["additionalProperties"])


def _items(path: Path, items: Json) -> Iterator[tuple[Path, Json]]:
    """Walk the entries of a list; where an entry is one of several kinds, walk the first of each kind."""
    yield (*path, 0), items
    for name, child in items.get("properties", {}).items():
        for inner, node in _walk((*path, 0, name), child):
            place = next((p for p in range(9) if sample_with((*path, p, *inner[len(path) + 1 :]))), 0)
            yield (*path, place, *inner[len(path) + 1 :]), node


def _cases(path: Path, node: Json) -> Iterator[Case]:
    sample = sample_with(path) or sample_with(path[:-1])
    assert sample, f"no sample has {written(path)}"
    for value, text in _bounds(path, node, sample):
        yield Case(path, value, written(path), text, sample)
    if LIST_MAP_KEYS in node:
        entries = [*_get(SAMPLES[sample], path)[:1] * 2]
        yield Case(path, entries, written((*path, 1)), "Duplicate value", sample)
    for field in node.get("required", []):
        yield Case((*path, field), REMOVED, written((*path, field)), "Required value", sample)
    for rule in node.get(RULES, []):
        child = tuple(rule.get("fieldPath", "").split(".")[1:])
        place = path or child
        for value in broken(rule["message"]):
            yield Case(place, value, written((*path, *child)), rule["message"], sample)


def _bounds(path: Path, node: Json, sample: str) -> Iterator[tuple[Any, str]]:
    """Yield a value that breaks each bound of one node, with what the API server must say about it."""
    if path:
        kind = "date-time" if node.get("format") == "date-time" else node["type"]
        yield (7 if node["type"] == "string" else "text"), f"must be of type {kind}"
    if "enum" in node:
        yield "Nonsense", 'supported values: "' + '", "'.join(node["enum"]) + '"'
    if "minimum" in node:
        yield node["minimum"] - 1, f"should be greater than or equal to {node['minimum']}"
    if "maximum" in node:
        yield node["maximum"] + 1, f"should be less than or equal to {node['maximum']}"
    if "minLength" in node:
        yield "x" * (node["minLength"] - 1), f"should be at least {node['minLength']} chars long"
    if "maxLength" in node:
        yield "x" * (node["maxLength"] + 1), f"may not be more than {node['maxLength']} bytes"
    if "maxProperties" in node:
        count = node["maxProperties"] + 1
        yield {f"k{i}": "v" for i in range(count)}, f"must have at most {count - 1} items"
    if node.get("format") == "date-time":
        yield "yesterday", "must be of type date-time"
    if "items" in node:
        yield from _list_bounds(node, _get(SAMPLES[sample], path)[0])


def _list_bounds(node: Json, entry: Any) -> Iterator[tuple[Any, str]]:
    if "minItems" in node:
        yield [], f"should have at least {node['minItems']} items"
    count, (key,) = node["maxItems"] + 1, node.get(LIST_MAP_KEYS, [None])
    entries = [entry | {key: f"k{i}"} if key else entry for i in range(count)]
    yield entries, f"must have at most {count - 1} items"


def _has(sample: Json, path: Path) -> bool:
    try:
        _get(sample, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _get(sample: Any, path: Path) -> Any:
    for part in path:
        sample = sample[part]
    return sample
