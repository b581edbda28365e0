"""Everything that happens to the pods of a namespace, without a gap: what polling would miss is in it."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx

from testbed.access import Access

Json = dict[str, Any]
Pods = dict[str, Json]

_WATCH_SECONDS = 3


class History:
    """Watches from the moment it is entered until it is left; then `steps` tells it again.

    Args:
        plane: the control plane; its API server must not be restarted meanwhile.
        namespace: whose pods.
    """

    def __init__(self, plane: Access, namespace: str) -> None:
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._client = plane.client()
        self._changes: list[tuple[str, Json]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start: Pods = {}
        self._known: dict[str, str] = {}
        self._version = ""
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._version, self._start = self._list()
        self._known = _versions(self._start)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def steps(self) -> Iterator[Pods]:
        """The pods by uid as they were at first, and after each change."""
        pods = dict(self._start)
        yield dict(pods)
        for event, pod in self._changes:
            uid = pod["metadata"]["uid"]
            if event == "DELETED":
                pods.pop(uid, None)
            else:
                pods[uid] = pod
            yield dict(pods)

    def counts(self, which: Callable[[Json], bool]) -> list[int]:
        """At each step, how many pods are such."""
        return [sum(map(which, pods.values())) for pods in self.steps()]

    def _watch(self) -> None:
        try:
            while not self._stop.is_set():
                before = len(self._changes)
                self._follow()
                if len(self._changes) == before:
                    self._catch_up()
        except (httpx.HTTPError, RuntimeError) as error:
            self._failure = error

    def _list(self) -> tuple[str, Pods]:
        answer = self._client.get(self._path).raise_for_status().json()
        return answer["metadata"]["resourceVersion"], {pod["metadata"]["uid"]: pod for pod in answer["items"]}

    def _catch_up(self) -> None:
        """Watch on from now, if nothing has changed: the API server forgets old versions within minutes."""
        version, pods = self._list()
        if _versions(pods) == self._known:
            self._version = version

    def _follow(self) -> None:
        query = {"watch": "1", "resourceVersion": self._version, "timeoutSeconds": str(_WATCH_SECONDS)}
        with self._client.stream("GET", self._path, params=query) as lines:
            for text in lines.iter_lines():
                event = json.loads(text)
                if event["type"] == "ERROR":
                    raise RuntimeError(f"the watch has a gap: {event['object']}")
                self._note(event["type"], event["object"])

    def _note(self, event: str, pod: Json) -> None:
        self._changes.append((event, pod))
        uid, self._version = pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]
        if event == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = self._version


def _versions(pods: Pods) -> dict[str, str]:
    return {uid: pod["metadata"]["resourceVersion"] for uid, pod in pods.items()}
