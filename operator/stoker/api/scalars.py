"""Named types of the fields: each is a shape, a bound, and a sentence that says what to write instead."""

from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from stoker.api.fields import LIST_MAP_KEYS, LIST_TYPE, RULES, Pattern, QuantityBetween, Rule
from stoker.api.meta import RESERVED_PREFIX

MAX_REPLICAS: Final = 10_000

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_QUALIFIED = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
# A segment of a path is anything but `.` and `..`, which would lead out of the volume.
_SEGMENT = r"(?:[A-Za-z0-9_-]|\.[A-Za-z0-9_-]|\.\.[A-Za-z0-9._-])[A-Za-z0-9._-]*"
_PATH = rf"{_SEGMENT}(?:/{_SEGMENT})*"
_URIS = (
    r"hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(?:@[A-Za-z0-9][A-Za-z0-9._/-]*)?",
    rf"pvc://{_SUBDOMAIN}/{_PATH}",
    (
        r"oci://[a-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9][a-z0-9._-]*)+"
        r"(?::[A-Za-z0-9_][A-Za-z0-9._-]*)?(?:@sha256:[0-9a-f]{64})?"
    ),
    rf"file:///{_PATH}",
)

ModelUri = Annotated[
    str,
    Field(max_length=1024),
    Pattern(
        "|".join(_URIS),
        "write hf://org/name[@revision], pvc://claim/path, oci://registry/image[:tag] or file:///path,"
        " with no '.' or '..' in the path",
    ),
]
ServedName = Annotated[
    str,
    Field(max_length=253),
    Pattern(
        r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]*[A-Za-z0-9])?",
        "write the name that clients put into `model`: letters, digits and . _ : / - between them",
    ),
]
ObjectName = Annotated[
    str,
    Field(max_length=253),
    Pattern(_SUBDOMAIN, "write an object's name: lower-case letters, digits, '-' and '.', such as hf-token"),
]
ObjectKey = Annotated[
    str,
    Field(max_length=253),
    Pattern("[-._a-zA-Z0-9]+", "write a key of the object: letters, digits, '-', '_' and '.'"),
]
PodField = Annotated[
    str,
    Field(max_length=253),
    Pattern(
        r"(?:metadata|spec|status)\.[A-Za-z].*",
        "write a field of the pod such as metadata.name or status.podIP",
    ),
]
EnvName = Annotated[
    str,
    Field(max_length=253),
    Pattern("[A-Za-z_][A-Za-z0-9_]*", "write the name of an environment variable such as HF_HUB_OFFLINE"),
]
EnvValue = Annotated[str, Field(max_length=32_768)]
ImageReference = Annotated[
    str,
    Field(max_length=1024),
    Pattern(r"[a-z0-9][A-Za-z0-9._:/@-]*", "write an image reference such as vllm/vllm-openai:v0.33.0"),
]
HttpPath = Annotated[
    str,
    Field(max_length=253),
    Pattern(r"/[A-Za-z0-9._~/-]*", "write the path of the page such as /metrics"),
]
MetricName = Annotated[
    str,
    Field(max_length=200),
    Pattern(
        "[a-zA-Z_:][a-zA-Z0-9_:]*", "write a Prometheus metric name, without labels, such as tokens_total"
    ),
]
Argument = Annotated[str, Field(max_length=4096)]
AcceleratorName = Annotated[
    str,
    Field(max_length=63),
    Pattern(_LABEL, "write a short name: lower-case letters, digits and '-', such as h100"),
]
ShortName = Annotated[
    str,
    Field(max_length=63),
    Pattern(_LABEL, "write a short name: lower-case letters, digits and '-', such as office-hours"),
]
ResourceName = Annotated[
    str,
    Field(max_length=253),
    Pattern(
        rf"{_SUBDOMAIN}/{_QUALIFIED}", "write an extended resource such as nvidia.com/gpu or amd.com/gpu"
    ),
]
TaintKey = Annotated[
    str,
    Field(max_length=317),
    Pattern(rf"(?:{_SUBDOMAIN}/)?{_QUALIFIED}", "write the key of a taint such as nvidia.com/gpu"),
]
TaintValue = Annotated[
    str,
    Field(max_length=63),
    Pattern(rf"(?:{_QUALIFIED})?", "write the value of a taint: letters, digits, '-', '_' and '.'"),
]
Rate = Annotated[int, Field(ge=1, le=100_000_000)]
CacheSize = Annotated[str, Field(max_length=32), QuantityBetween("1Gi", "100Ti")]
SharedMemory = Annotated[str, Field(max_length=32), QuantityBetween("64Mi", "1Ti")]

NodeLabels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
_NOT_RESERVED = Rule(
    f"self.all(key, !key.startsWith('{RESERVED_PREFIX}'))",
    f"the prefix {RESERVED_PREFIX} is Stoker's own: use a prefix of yours",
)
PodLabels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64), _NOT_RESERVED]
PodAnnotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64), _NOT_RESERVED
]

_HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")
_NODE_RULE = Rule(
    "!has(self.nodeName)",
    "a node's name would bypass the scheduler: remove nodeName, or set accelerators[].nodeSelector",
    ".nodeName",
)
_HOST_RULES = tuple(
    Rule(
        f"!has(self.{field}) || !self.{field}",
        f"replicas share nothing with the host: remove {field}",
        f".{field}",
    )
    for field in _HOST_FIELDS
)
_NODE_NAME = {"type": "string", "maxLength": 253, "description": "Refused: the scheduler chooses the node."}
_HOST_FLAG = {"type": "boolean", "description": "Refused when true: replicas share nothing with the host."}
# CEL sees declared fields only, so the refused ones are declared; every other field passes through unpruned.
_POD_SPEC = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {"nodeName": _NODE_NAME} | dict.fromkeys(_HOST_FIELDS, _HOST_FLAG),
    RULES: [rule.schema() for rule in (_NODE_RULE, *_HOST_RULES)],
}
PodSpecFields = Annotated[dict[str, Any], WithJsonSchema(_POD_SPEC)]

ATOMIC: Final[dict[str, Any]] = {LIST_TYPE: "atomic"}
"""A list that is replaced as a whole by whoever applies it."""


def map_by(key: str) -> dict[str, Any]:
    """Return the schema of a list whose entries are merged, and unique, by the field `key`."""
    return {LIST_TYPE: "map", LIST_MAP_KEYS: [key]}
