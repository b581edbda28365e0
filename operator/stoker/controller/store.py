"""The operator's own view of the cluster: trimmed records, fed by watches and by its own writes.

Rules of this module:

* A record is replaced only by a newer one (resourceVersion), whoever brings it first: the watch or the
  answer to Stoker's own write. So Stoker reads its own writes, and a late event cannot undo them.
* What is gone stays gone: a deleted object never comes back through an answer that was under way.
* Every change returns the ModelDeployment that it concerns, and only if it changes something that a
  decision reads: heartbeats and echoes of Stoker's own status writes wake nobody.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from stoker.api import meta
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.core.observed import ModelDeployment, OwnedObject, Pod
from stoker.core.parse import deployment_from, owned_from, pod_from
from stoker.core.readings import Key

TOMBSTONE_SECONDS = 600.0
"""How long a deleted uid is remembered: far longer than any answer is under way."""

Object = Mapping[str, Any]


class Store:
    """Records by ModelDeployment.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.deployments: dict[Key, ModelDeployment] = {}
        self.services: dict[Key, OwnedObject] = {}
        self._pods: defaultdict[Key, dict[str, Pod]] = defaultdict(dict)
        self._draining: set[str] = set()
        self._versions: dict[str, int] = {}
        self._where: dict[str, tuple[str, Key]] = {}
        self._tombstones: dict[str, tuple[float, float]] = {}
        self._expected: dict[Key, ModelDeploymentStatus] = {}

    # --- Reading ---------------------------------------------------------------------------------

    def pods(self, deployment: Key) -> tuple[Pod, ...]:
        """The pods that carry this ModelDeployment's label."""
        return tuple(self._pods.get(deployment, {}).values())

    @property
    def pods_by_deployment(self) -> Mapping[Key, tuple[Pod, ...]]:
        """All pods; a live view that is cheap to take and to read key by key."""
        return _PodsByDeployment(self._pods)

    def all_pods(self) -> Iterable[tuple[Key, Pod]]:
        """(ModelDeployment, pod) of every known pod."""
        return ((owner, pod) for owner, pods in self._pods.items() for pod in pods.values())

    def draining(self) -> Iterable[tuple[Key, Pod]]:
        """(ModelDeployment, pod) of every pod that drains. Asked each second: no look at all the others."""
        owners = ((uid, self._where[uid][1]) for uid in sorted(self._draining))
        return ((owner, self._pods[owner][uid]) for uid, owner in owners)

    def objects(self, kind: str) -> dict[str, Key]:
        """Name by uid of all known objects of a kind."""
        if kind == meta.KIND:
            return {d.uid: d.key for d in self.deployments.values()}
        if kind == "Service":
            return {s.uid: s.key for s in self.services.values()}
        return {pod.uid: pod.key for _, pod in self.all_pods()}

    # --- Writing ---------------------------------------------------------------------------------

    def expect(self, deployment: Key, status: ModelDeploymentStatus) -> None:
        """Stoker is about to write this status: who brings it back, watch or answer, wakes nobody."""
        self._expected[deployment] = status

    def put(self, kind: str, obj: Object) -> Key | None:
        """Take in an object; the ModelDeployment to look at again, or None if nothing of interest changed."""
        metadata = obj["metadata"]
        uid = metadata["uid"]
        version = _version(metadata)
        if version < self._versions.get(uid, 0) or version <= self._buried_at(uid):
            return None
        if 0 < version == self._versions.get(uid):
            return None  # the very same: an event and the answer to a write bring it twice
        self._tombstones.pop(uid, None)
        changed = self._take_in(kind, obj)
        if changed is not None:
            self._versions[uid] = version
            self._where[uid] = (kind, changed[0])
        return changed[0] if changed is not None and changed[1] else None

    def mark_deleting(self, uid: str, at: float) -> None:
        """The API server has accepted a pod's deletion; the watch will say the same, later."""
        kind, key = self._where.get(uid, ("", None))
        if kind == "Pod" and key is not None and uid in self._pods.get(key, {}):
            self._pods[key][uid] = replace(self._pods[key][uid], deleting_at=at)

    def remove(self, uid: str, version: str | None = None) -> Key | None:
        """Forget a deleted object; the ModelDeployment to look at again.

        Args:
            uid: Of the object.
            version: The resourceVersion of its deletion, if known. A watch by label also calls an object
                deleted that merely lost the label: a newer version of it is alive.
        """
        self._bury(uid, math.inf if version is None else _number(version))
        self._versions.pop(uid, None)
        kind, key = self._where.pop(uid, ("", None))
        if key is None:
            return None
        if kind == "Pod":
            self._draining.discard(uid)
            self._pods[key].pop(uid, None)
            if not self._pods[key]:
                del self._pods[key]
        elif kind == "Service":
            if key in self.services and self.services[key].uid == uid:
                del self.services[key]
        elif self.deployments.get(key) is not None and self.deployments[key].uid == uid:
            del self.deployments[key]
            self._expected.pop(key, None)
        return key

    def _take_in(self, kind: str, obj: Object) -> tuple[Key, bool] | None:
        """(ModelDeployment, whether the record changed); None for an object that is not Stoker's."""
        if kind == "Pod":
            return self._take_in_pod(obj)
        if kind == "Service":
            return self._take_in_service(obj)
        metadata = obj["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        known = self.deployments.get(key)
        record = deployment_from(obj, known)
        self.deployments[key] = record
        if known is not None and self._expected.get(key) == record.status:
            del self._expected[key]
            known = replace(known, status=record.status)
        return key, record != known

    def _take_in_pod(self, obj: Object) -> tuple[Key, bool] | None:
        pod = pod_from(obj)
        if pod is None:
            return None
        owner = Key(pod.key.namespace, pod.owner)
        _, former = self._where.get(pod.uid, ("", owner))
        if former != owner:  # somebody changed its label: it is nobody's supply twice
            self._pods[former].pop(pod.uid, None)
        known = self._pods[owner].get(pod.uid)
        self._pods[owner][pod.uid] = pod
        (self._draining.add if pod.draining else self._draining.discard)(pod.uid)
        return owner, pod != known

    def _take_in_service(self, obj: Object) -> tuple[Key, bool] | None:
        found = owned_from(obj)
        if found is None:
            return None
        owner, record = Key(found[1].key.namespace, found[0]), found[1]
        known = self.services.get(owner)
        self.services[owner] = record
        return owner, record != known

    def _buried_at(self, uid: str) -> float:
        _, version = self._tombstones.get(uid, (0.0, -1.0))
        return version

    def _bury(self, uid: str, version: float) -> None:
        now = self._clock()
        self._tombstones[uid] = (now, version)
        while self._tombstones:
            oldest = next(iter(self._tombstones))
            if now - self._tombstones[oldest][0] < TOMBSTONE_SECONDS:
                return
            del self._tombstones[oldest]


class _PodsByDeployment(Mapping[Key, tuple[Pod, ...]]):
    """Reads the store's nested dictionaries as the snapshot has them."""

    def __init__(self, pods: Mapping[Key, Mapping[str, Pod]]) -> None:
        self._pods = pods

    def __getitem__(self, key: Key) -> tuple[Pod, ...]:
        return tuple(self._pods[key].values()) if key in self._pods else ()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._pods)

    def __len__(self) -> int:
        return len(self._pods)


def _version(metadata: Mapping[str, Any]) -> int:
    """The resourceVersion as a number: it orders an object's versions (guaranteed since Kubernetes 1.35)."""
    return _number(str(metadata.get("resourceVersion") or "0"))


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
