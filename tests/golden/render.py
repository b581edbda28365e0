"""From a ModelDeployment in `objects/` to the manifests that Stoker makes of it, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core import resources
from stoker.core.observed import ModelDeployment
from stoker.core.readings import Key

HERE = Path(__file__).parent
OBJECTS = HERE / "objects"
MANIFESTS = HERE / "manifests"


def names() -> list[str]:
    """The golden cases: every object, by file name without suffix."""
    return sorted(path.stem for path in OBJECTS.glob("*.yaml"))


def deployment(name: str) -> ModelDeployment:
    """The ModelDeployment of a case, as the operator would hold it."""
    obj = yaml.safe_load((OBJECTS / f"{name}.yaml").read_text())
    return ModelDeployment(
        key=Key(obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]),
        uid="00000000-0000-0000-0000-000000000000",
        generation=1,
        created_at=0.0,
        deleting=False,
        spec=ModelDeploymentSpec.model_validate(obj["spec"]),
    )


def render(name: str) -> str:
    """The first replica's pod and the Service of a case."""
    owner = deployment(name)
    assert owner.spec is not None
    revision = resources.revision(owner.key.name, owner.spec)
    manifests = [resources.pod(owner, revision, 0, 0), resources.service(owner)]
    return yaml.dump_all(manifests, Dumper=_Plain, sort_keys=False, width=110)


class _Plain(yaml.SafeDumper):
    """Without anchors: equal parts of a manifest are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
