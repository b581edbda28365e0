"""Names that Stoker writes on objects: group, labels, annotations, pod names and owner references.

Everything that must survive a restart is on the objects themselves, under the names of this module.
Changing one of them orphans what an earlier release made, so they are fixed for the life of an API version.
"""

from __future__ import annotations

from typing import Any, Final

GROUP: Final = "stoker.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelDeployment"
LIST_KIND: Final = f"{KIND}List"
PLURAL: Final = "modeldeployments"
SINGULAR: Final = "modeldeployment"
SHORT_NAME: Final = "mdep"
CATEGORY: Final = "stoker"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

LABEL_MODEL_DEPLOYMENT: Final = "stoker.dev/model-deployment"
LABEL_SERVING: Final = "stoker.dev/serving"
LABEL_REVISION: Final = "stoker.dev/revision"
LABEL_ORDINAL: Final = "stoker.dev/ordinal"
LABEL_ACCELERATOR: Final = "stoker.dev/accelerator"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
MANAGED_BY: Final = "stoker"
RESERVED_PREFIX: Final = f"{GROUP}/"

ANNOTATION_DRAIN_STARTED: Final = "stoker.dev/drain-started-at"
ANNOTATION_DRAIN_REASON: Final = "stoker.dev/drain-reason"
ANNOTATION_ATTEMPT: Final = "stoker.dev/attempt"
ANNOTATION_APPLIED_HASH: Final = "stoker.dev/applied-hash"

FIELD_MANAGER: Final = "stoker"
FIELD_MANAGER_STATUS: Final = "stoker-status"

MAX_NAME_LENGTH: Final = 48
"""Longest `metadata.name`, in characters.

A pod's host name is its name cut at 63 characters, so `<name>-<revision>-<ordinal>` must fit: 48 for the name
leave 15 for two dashes, a revision of 8 and an ordinal of 5 digits.
"""


def selector(name: str) -> str:
    """Return the label selector, as text, of every pod of the ModelDeployment `name`."""
    return f"{LABEL_MODEL_DEPLOYMENT}={name}"


def serving_selector(name: str) -> dict[str, str]:
    """Return the labels that the Service of `name` selects: replicas in routing, no others."""
    return {LABEL_MODEL_DEPLOYMENT: name, LABEL_SERVING: "true"}


def pod_name(name: str, revision: str, ordinal: int) -> str:
    """Return the one name that this replica can have: a repeated create is refused, not a second GPU.

    Args:
        name: `metadata.name` of the ModelDeployment, at most `MAX_NAME_LENGTH` characters.
        revision: hash of the pod template, at most 8 characters.
        ordinal: number of the replica within the ModelDeployment, from 0.
    """
    return f"{name}-{revision}-{ordinal}"


def owner_reference(name: str, uid: str) -> dict[str, Any]:
    """Return the `ownerReferences` entry that makes an object of this ModelDeployment go when it goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


# --- Reference -----------------------------------------------------------------------------------

_LABELS: Final = {
    LABEL_NAME: ("pods, Service", "The engine in lower case, such as `vllm`."),
    LABEL_MANAGED_BY: ("pods, Service", f"`{MANAGED_BY}`: who made the object."),
    LABEL_MODEL_DEPLOYMENT: ("pods, Service", "Name of the ModelDeployment that the object belongs to."),
    LABEL_SERVING: (
        "pods",
        "`true` while the replica is in routing: the Service selects it; `false` when it drains.",
    ),
    LABEL_REVISION: ("pods", "Hash of the pod template: it changes when replicas have to be replaced."),
    LABEL_ORDINAL: ("pods", "Number of the replica within its ModelDeployment and revision, from 0."),
    LABEL_ACCELERATOR: ("pods", "`accelerators[].name` of the type that the replica runs on."),
}

_ANNOTATIONS: Final = {
    ANNOTATION_ATTEMPT: ("pods", "How often in a row this replica was replaced because it had failed."),
    ANNOTATION_DRAIN_STARTED: (
        "pods",
        "When the replica was taken out of routing, from which `drain.timeout` counts. Absent before.",
    ),
    ANNOTATION_DRAIN_REASON: ("pods", "Why: `scale-in` or `rollout`."),
    ANNOTATION_APPLIED_HASH: (
        "Service",
        "Hash of what Stoker applied last, to tell when it has to do so again.",
    ),
    "prometheus.io/scrape": ("pods", "`true`."),
    "prometheus.io/port": ("pods", "`engine.port`: where the engine's metrics are."),
    "prometheus.io/path": ("pods", "Path of the engine's metrics, such as `/metrics`."),
}

_MANAGERS: Final = {
    FIELD_MANAGER: "pods and Services",
    FIELD_MANAGER_STATUS: "`status` of ModelDeployments, through the `/status` subresource alone",
}


def reference_markdown() -> str:
    """Return `docs/reference/labels-and-annotations.md`."""
    return "\n".join(
        [
            "# Labels, annotations and field managers",
            "",
            "What Stoker writes on the objects that it makes: beside `status`, all the state there is.",
            f"Names below `{GROUP}/` are Stoker's: in `spec.template.metadata` they are ignored.",
            "They do not change within an API version.",
            "",
            "## Labels",
            "",
            *_names_table("Label", _LABELS),
            "",
            "## Annotations",
            "",
            *_names_table("Annotation", _ANNOTATIONS),
            "",
            "The annotations `prometheus.io/…` can be overridden in `spec.template.metadata.annotations`.",
            "",
            "## Field managers",
            "",
            "| Field manager | Owns fields of |",
            "|---|---|",
            *(f"| `{name}` | {what} |" for name, what in _MANAGERS.items()),
            "",
        ]
    )


def _names_table(kind: str, names: dict[str, tuple[str, str]]) -> list[str]:
    rows = [f"| `{name}` | {where} | {meaning} |" for name, (where, meaning) in names.items()]
    return [f"| {kind} | On | Meaning |", "|---|---|---|", *rows]
