"""Where the weights come from: one model URI, as the engine and as the pod see it.

========  =============================  =======================================================
Scheme    The engine is told             The pod mounts, read-only
========  =============================  =======================================================
``hf``    ``org/name`` and the revision  nothing: the engine downloads into the cache
``pvc``   ``/models/claim/path``         the claim at ``/models/claim``
``oci``   ``/models/image``              the image as a volume (Kubernetes 1.35, or ImageVolume on)
``file``  ``/path``                      nothing: the path is inside the engine's image
========  =============================  =======================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from stoker.api.v1alpha1 import ModelSource

VOLUME: Final = "model"
_ROOT: Final = "/models"


@dataclass(frozen=True, slots=True)
class Source:
    """A model, ready for a command line."""

    argument: str
    """A repository name on the Hub or a path in the container."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; None: the default branch."""
    volume: dict[str, Any] | None = field(default=None, hash=False)
    """The volume source to mount, None when there is nothing to mount."""
    mount_path: str = ""


def source(model: ModelSource) -> Source:
    """Read a model URI.

    Raises:
        ValueError: for a scheme that Stoker does not know; the API refuses those first.
    """
    match model.scheme:
        case "hf":
            repository, _, revision = model.location.partition("@")
            return Source(repository, revision or None)
        case "pvc":
            claim, _, path = model.location.partition("/")
            volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            return Source(f"{_ROOT}/{claim}/{path}".rstrip("/"), None, volume, f"{_ROOT}/{claim}")
        case "oci":
            volume = {"image": {"reference": model.location, "pullPolicy": "IfNotPresent"}}
            return Source(f"{_ROOT}/image", None, volume, f"{_ROOT}/image")
        case "file":
            return Source(model.location)
    raise ValueError(
        f"spec.model.uri: unknown scheme in {model.uri!r}; write hf://org/name[@revision], pvc://claim/path, "
        "oci://registry/image[:tag] or file:///path"
    )
