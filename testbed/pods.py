"""What the simulated engines and the traffic need to know of a pod, and where they learn it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from testbed.kubewatch import KubeReader, Manifest

__all__ = ["KubePods", "Pod", "PodChange", "PodSource", "flag"]

PORT_ANNOTATION = "prometheus.io/port"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, reduced to what concerns its engine.

    Attributes:
        namespace: of the pod.
        name: of the pod.
        uid: tells a pod from a later one of the same name.
        ip: its address, once it has one.
        started: the first container's `started`: its start-up probe passed, so the engine has loaded.
        ready: the pod's Ready condition.
        deleting: it has a deletionTimestamp.
        restarts: of the first container; a restarted engine has forgotten everything.
        port: of the first container, else of the annotation ``prometheus.io/port``, else None.
        command: command and arguments of the first container.
        annotations: of the pod.
    """

    namespace: str
    name: str
    uid: str
    ip: str | None = None
    started: bool = False
    ready: bool = False
    deleting: bool = False
    restarts: int = 0
    port: int | None = None
    command: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, manifest: Manifest) -> "Pod":
        """Read a pod as the API server sends it."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        container = manifest["spec"]["containers"][0]
        annotations = metadata.get("annotations") or {}
        running = _container_status(status, container["name"])
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            ip=status.get("podIP") or None,
            started=running.get("started") is True,
            ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
            deleting="deletionTimestamp" in metadata,
            restarts=int(running.get("restartCount", 0)),
            port=_port(container, annotations),
            command=(*container.get("command", ()), *container.get("args", ())),
            annotations=annotations,
        )


def _container_status(status: Manifest, name: str) -> Manifest:
    return next((one for one in status.get("containerStatuses") or () if one["name"] == name), {})


def _port(container: Manifest, annotations: Mapping[str, str]) -> int | None:
    ports = container.get("ports") or ()
    if ports:
        return int(ports[0]["containerPort"])
    text = annotations.get(PORT_ANNOTATION, "")
    return int(text) if text.isdigit() else None


def flag(command: Sequence[str], name: str) -> str | None:
    """The value of a command-line flag given as ``--name value`` or ``--name=value``; the last one counts."""
    found = None
    for at, word in enumerate(command):
        if word == name and at + 1 < len(command):
            found = command[at + 1]
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


@dataclass(frozen=True, slots=True)
class PodChange:
    """A pod as it is now, or (`gone`) one whose object is no more."""

    pod: Pod
    gone: bool = False


class PodSource(Protocol):
    """Where pods are learnt from: the API server, or a list in a test."""

    def changes(self) -> AsyncIterator[PodChange]:
        """Every pod that exists, then every change, for ever; at least once and in order per pod."""


class KubePods:
    """The pods that match a label selector, in one namespace or (empty) in all."""

    def __init__(self, reader: KubeReader, *, namespace: str = "", selector: str = "") -> None:
        self._reader = reader
        self._path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        self._selector = selector

    async def changes(self) -> AsyncIterator[PodChange]:
        """See `PodSource`."""
        async for change in self._reader.watch(self._path, labels=self._selector):
            yield PodChange(Pod.of(change.manifest), gone=change.gone)
