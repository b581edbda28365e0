"""Mark and sweep: what the watches missed.

A watch that breaks and starts again does not tell of objects that were deleted in between (kopf reports no
deletion that it did not see), so a pod could be believed alive for ever.

Rules of this module:

* A listed uid that is not known is read and taken in; a known one that is not listed is read once more, and
  forgotten only when the API server says that it is gone: it may be younger than the list.
* Only metadata is listed: a tenth of the bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import structlog

from stoker.api import meta
from stoker.clients.errors import NotFound
from stoker.controller.store import Store
from stoker.core.readings import Key

WATCHED = (
    (meta.API_VERSION, meta.KIND, None),
    ("v1", "Pod", meta.LABEL_MODEL_DEPLOYMENT),
    ("v1", "Service", meta.LABEL_MODEL_DEPLOYMENT),
)
"""(apiVersion, kind, label selector) of what the store holds."""

log = structlog.get_logger(__name__)


class Reader(Protocol):
    """The part of the Kubernetes client that sweeping needs."""

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """All objects of a kind, page by page."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Mapping[str, Any]:
        """One object."""


class Sweeper:
    """Compares the store with the API server.

    Args:
        kube: Lists and reads.
        store: Is put right.
        namespaces: To look at; empty for all.
    """

    def __init__(self, kube: Reader, store: Store, namespaces: Sequence[str] = ()) -> None:
        self._kube = kube
        self._store = store
        self._namespaces: Sequence[str | None] = namespaces or (None,)

    async def sweep(self) -> set[Key]:
        """Put the store right; the ModelDeployments that it was wrong about.

        Raises:
            ClientError: The API server could not be asked; what was found so far is kept.
        """
        wrong: set[Key] = set()
        for api_version, kind, selector in WATCHED:
            known = self._store.objects(kind)
            listed = await self._listed(api_version, kind, selector)
            for uid, where in {**listed, **known}.items():
                if (uid in listed) != (uid in known) and (
                    key := await self._look(api_version, kind, uid, where)
                ):
                    wrong.add(key)
        if wrong:
            log.info("the sweep found what the watches had missed", model_deployments=len(wrong))
        return wrong

    async def _listed(self, api_version: str, kind: str, selector: str | None) -> dict[str, Key]:
        found = {}
        for namespace in self._namespaces:
            objects = self._kube.list(
                api_version, kind, namespace, label_selector=selector, metadata_only=True
            )
            async for obj in objects:
                metadata = obj["metadata"]
                found[metadata["uid"]] = Key(metadata["namespace"], metadata["name"])
        return found

    async def _look(self, api_version: str, kind: str, uid: str, where: Key) -> Key | None:
        """Read one object that is known and not listed, or the reverse."""
        try:
            obj = await self._kube.get(api_version, kind, where.namespace, where.name)
        except NotFound:
            return self._store.remove(uid)
        if obj["metadata"]["uid"] != uid:  # a namesake: this one is gone
            self._store.put(kind, obj)
            return self._store.remove(uid)
        return self._store.put(kind, obj)
