"""Where objects of a kind live in the API server's URL space.

A table instead of discovery: Stoker knows its few kinds, and needs neither a request nor a role to find them.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from stoker.api import meta
from stoker.clients.errors import Call


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind's place in the API."""

    plural: str
    namespaced: bool = True


RESOURCES: Mapping[tuple[str, str], Resource] = {
    ("v1", "Pod"): Resource("pods"),
    ("v1", "Service"): Resource("services"),
    ("v1", "Node"): Resource("nodes", namespaced=False),
    ("events.k8s.io/v1", "Event"): Resource("events"),
    ("coordination.k8s.io/v1", "Lease"): Resource("leases"),
    (meta.API_VERSION, meta.KIND): Resource(meta.PLURAL),
}


def collection(api_version: str, kind: str, namespace: str | None) -> tuple[Resource, str]:
    """A kind's resource and the path of its collection; without a namespace, of all namespaces.

    Raises:
        ValueError: the kind is not in ``RESOURCES``, or it is cluster-scoped and a namespace was given.
    """
    resource = RESOURCES.get((api_version, kind))
    if resource is None:
        known = ", ".join(f"{v} {k}" for v, k in RESOURCES)
        raise ValueError(
            f"kind {api_version} {kind} is not in paths.RESOURCES (it has {known}): add it there"
        )
    if namespace and not resource.namespaced:
        raise ValueError(f"{kind} is cluster-scoped, but namespace {namespace!r} was given")
    group = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return resource, f"{group}{scope}/{resource.plural}"


def in_collection(
    verb: str, api_version: str, kind: str, namespace: str | None, name: str | None = None
) -> tuple[Call, str]:
    """A call on a collection (list, create) and its path; ``name`` is for messages alone."""
    resource, path = collection(api_version, kind, namespace)
    return Call(verb, resource.plural, namespace, name), path


def on_object(
    verb: str, api_version: str, kind: str, namespace: str | None, name: str, *, subresource: str = ""
) -> tuple[Call, str]:
    """A call on one object and its path.

    Raises:
        ValueError: besides those of ``collection``, when a namespaced object is named without its namespace.
    """
    resource, path = collection(api_version, kind, namespace)
    if resource.namespaced and not namespace:
        raise ValueError(f"{kind} {name!r} is namespaced: give its namespace")
    path += f"/{quote(name, safe='')}"
    if not subresource:
        return Call(verb, resource.plural, namespace, name), path
    return Call(verb, f"{resource.plural}/{subresource}", namespace, name), f"{path}/{subresource}"
