"""The objects that should exist for a ModelDeployment, one function per kind.

Rules of this module:

* Equal input gives equal output, byte for byte: what differs is applied again, or replaces replicas.
* A pod is a template (the same for all replicas; its hash is the revision) and an identity (name, ordinal,
  attempt).
* `template` of the spec is merged last. What Stoker recognises its objects by cannot be overridden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from stoker.api import meta
from stoker.api.v1alpha1 import Accelerator, ModelDeploymentSpec, Toleration
from stoker.core.engines import GRACE_SECONDS, PORT_NAME, engine_for
from stoker.core.engines.engine import CACHE_PATH
from stoker.core.engines.source import VOLUME as MODEL_VOLUME
from stoker.core.engines.source import source
from stoker.core.observed import ModelDeployment
from stoker.core.overlay import merge
from stoker.core.plan import Manifest

SERVICE_PORT: Final = 80
"""Port of the Service, whatever the engine's: clients say `http://<name>/v1`."""
_REVISION_LENGTH: Final = 8
"""32 bits; a collision between two successive templates has odds of 1 to 4 billion."""


def revision(deployment_name: str, spec: ModelDeploymentSpec) -> str:
    """Hash of the pod template: it changes when, and only when, replicas have to be replaced.

    Returns:
        Eight hexadecimal characters, fit for a label and for a part of a pod's name.
    """
    return _hash(_template(deployment_name, spec))[:_REVISION_LENGTH]


def template(deployment: ModelDeployment) -> Manifest:
    """What all pods of a ModelDeployment's spec have in common; their manifests share it.

    Raises:
        ValueError: when the deployment has no spec.
    """
    return _template(deployment.key.name, _spec(deployment))


def pod(
    deployment: ModelDeployment, revision: str, ordinal: int, attempt: int, common: Manifest | None = None
) -> dict[str, Any]:
    """The v1/Pod of one replica.

    Args:
        deployment: owner of the pod, whose spec could be parsed.
        revision: what `revision()` said of that spec.
        ordinal: number of the replica within the ModelDeployment, from 0.
        attempt: how often in a row this replica was replaced because it failed.
        common: what `template()` said, when several pods are made at once.

    Raises:
        ValueError: when the deployment has no spec.
    """
    name = deployment.key.name
    common = template(deployment) if common is None else common
    metadata = common["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": meta.pod_name(name, revision, ordinal),
            "namespace": deployment.key.namespace,
            "labels": _sorted(
                metadata["labels"] | {meta.LABEL_REVISION: revision, meta.LABEL_ORDINAL: str(ordinal)}
            ),
            "annotations": _sorted(metadata["annotations"] | {meta.ANNOTATION_ATTEMPT: str(attempt)}),
            "ownerReferences": [meta.owner_reference(name, deployment.uid)],
        },
        "spec": common["spec"],
    }


def service(deployment: ModelDeployment) -> dict[str, Any]:
    """The v1/Service that routes to the replicas in service, and to no others.

    Raises:
        ValueError: when the deployment has no spec.
    """
    name = deployment.key.name
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": deployment.key.namespace,
            "labels": _sorted(_labels(name, _spec(deployment))),
            "ownerReferences": [meta.owner_reference(name, deployment.uid)],
        },
        "spec": {
            "type": "ClusterIP",
            "selector": meta.serving_selector(name),
            "ports": [
                {
                    "name": PORT_NAME,
                    "port": SERVICE_PORT,
                    "targetPort": PORT_NAME,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
    manifest["metadata"]["annotations"] = {meta.ANNOTATION_APPLIED_HASH: applied_hash(manifest)}
    return manifest


def applied_hash(manifest: Manifest) -> str:
    """Hash of what is applied, without the annotation that carries it: 16 hexadecimal characters."""
    metadata = manifest["metadata"]
    annotations = {
        k: v for k, v in metadata.get("annotations", {}).items() if k != meta.ANNOTATION_APPLIED_HASH
    }
    bare = {k: v for k, v in metadata.items() if k != "annotations"} | (
        {"annotations": annotations} if annotations else {}
    )
    return _hash({**manifest, "metadata": bare})[:16]


# --- The pod template ----------------------------------------------------------------------------


def _template(name: str, spec: ModelDeploymentSpec) -> dict[str, Any]:
    """What all pods of one revision have in common, with the user's template merged in."""
    given = spec.template.metadata
    own = _labels(name, spec) | {
        meta.LABEL_ACCELERATOR: spec.accelerators[0].name,
        meta.LABEL_SERVING: "true",
    }
    return {
        "metadata": {
            "labels": _foreign(given.labels) | own,
            "annotations": _scraping(spec) | _foreign(given.annotations),
        },
        "spec": merge(_pod_spec(name, spec), spec.template.spec),
    }


def _labels(name: str, spec: ModelDeploymentSpec) -> dict[str, str]:
    return {
        meta.LABEL_NAME: spec.engine.type.value.lower(),
        meta.LABEL_MANAGED_BY: meta.MANAGED_BY,
        meta.LABEL_MODEL_DEPLOYMENT: name,
    }


def _foreign(given: Mapping[str, str]) -> dict[str, str]:
    """The user's labels or annotations without those by which Stoker keeps its own state."""
    return {k: v for k, v in given.items() if not k.startswith(meta.RESERVED_PREFIX)}


def _scraping(spec: ModelDeploymentSpec) -> dict[str, str]:
    """The annotations by which most Prometheus installations find a pod."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(spec.engine.port),
        "prometheus.io/path": engine_for(spec).metrics.path,
    }


def _pod_spec(name: str, spec: ModelDeploymentSpec) -> dict[str, Any]:
    accelerator = spec.accelerators[0]
    volumes = tuple(_volumes(spec))
    return {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # A Service called "vllm" would inject VLLM_PORT=tcp://…, which vLLM refuses to start with.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        **({"nodeSelector": _sorted(accelerator.node_selector)} if accelerator.node_selector else {}),
        "tolerations": _tolerations(accelerator),
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            engine_for(spec).container(name)
            | {
                "resources": _resources(accelerator),
                "securityContext": _security(),
                "volumeMounts": [mount for _, mount in volumes],
            }
        ],
        "volumes": [volume for volume, _ in volumes],
    }


def _security() -> dict[str, Any]:
    """The restricted profile as far as engines allow it.

    The images of vLLM and of most other engines run as root (vLLM PR 38552), so runAsNonRoot would keep them
    from starting, and a read-only root file system was not tried with their GPU kernels' compilers. HOME, the
    caches and /tmp are writable mounts, so whoever has such an image can set both in `template.spec`.
    """
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _resources(accelerator: Accelerator) -> dict[str, Any]:
    """Extended resources cannot be overcommitted: requests equal limits."""
    amount = {accelerator.resource: str(accelerator.count)}
    return {"requests": dict(amount), "limits": amount}


def _tolerations(accelerator: Accelerator) -> list[dict[str, Any]]:
    """The user's tolerations, and the one for the taint that GPU nodes carry against everyone else.

    The taint is called like the resource (Kubernetes' ExtendedResourceToleration plug-in assumes so too); for
    the slices and shares of an NVIDIA card it is that of the card.
    """
    vendor, _, _ = accelerator.resource.partition("/")
    taint = "nvidia.com/gpu" if vendor == "nvidia.com" else accelerator.resource
    own = {"key": taint, "operator": "Exists", "effect": "NoSchedule"}
    given = [_toleration(t) for t in accelerator.tolerations]
    return given if own in given else [own, *given]


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return toleration.model_dump(mode="json", by_alias=True, exclude_none=True)


def _volumes(spec: ModelDeploymentSpec) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each volume of the pod with the engine's mount of it."""
    yield _volume("cache", CACHE_PATH, _cache(spec))
    shared = {"medium": "Memory", "sizeLimit": spec.storage.shared_memory}
    yield _volume("shared-memory", "/dev/shm", {"emptyDir": shared})  # noqa: S108  # a mount, not a temporary file
    yield _volume("tmp", "/tmp", {"emptyDir": {}})  # noqa: S108  # likewise
    model = source(spec.model)
    if model.volume is not None:
        yield _volume(MODEL_VOLUME, model.mount_path, model.volume, readOnly=True)


def _volume(
    name: str, path: str, what: Mapping[str, Any], **options: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"name": name, **what}, {"name": name, "mountPath": path, **options}


def _cache(spec: ModelDeploymentSpec) -> dict[str, Any]:
    cache = spec.storage.cache
    if cache.claim_name:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    return {"emptyDir": {"sizeLimit": cache.size_limit} if cache.size_limit else {}}


# --- Small things --------------------------------------------------------------------------------


def _spec(deployment: ModelDeployment) -> ModelDeploymentSpec:
    if deployment.spec is None:
        raise ValueError(f"{deployment.key}: its spec could not be parsed, so there is nothing to make of it")
    return deployment.spec


def _sorted(names: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(names.items()))


def _hash(value: Any) -> str:
    """SHA-256 of canonical JSON, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
