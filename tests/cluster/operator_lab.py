"""A place to watch the operator at work: one namespace, an operator for it alone, and what it has to do with.

Waiting is always for something that must come, with a deadline far beyond the expected time; nothing here
measures how long it took. What must *not* happen is watched for a while with `Lab.stays`.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx

from testbed.access import Access
from testbed.operator_process import Operator

Json = dict[str, Any]
T = TypeVar("T")

ANNOTATION = "testbed.stoker.dev"
QUICK = {f"{ANNOTATION}/image-pull-seconds": "0.1", f"{ANNOTATION}/load-seconds": "0.5"}
"""A replica that serves within a second or so."""

SETTINGS = {
    "scaling_interval_seconds": "1",
    "stale_after_seconds": "6",
    "prometheus_timeout_seconds": "2",
    "log_level": "debug",
}
"""The operator's pace in tests; the rest is as in a cluster."""

PATIENCE = 60.0
"""Seconds to wait for what must come: many times what it takes, since test runs share few cores."""


def scaling(
    least: int, most: int, *, requests: int = 10, up: str = "1s", down: str = "6s", **more: Any
) -> Json:
    """A scaling section on requests in flight per replica, with windows for the impatient."""
    windows = {"up": up, "down": down}
    targets = {"concurrentRequests": requests}
    return {"minReplicas": least, "maxReplicas": most, "targets": targets, "windows": windows, **more}


def manifest(name: str = "llm", *, annotations: Mapping[str, str] | None = None, **spec: Any) -> Json:
    """A ModelDeployment whose replicas start fast; `annotations` go to its pods."""
    template = spec.pop("template", {})
    metadata = {"annotations": {**QUICK, **(annotations or {})}}
    base = {"model": {"uri": "hf://org/name"}, "drain": {"timeout": "60s"}}
    return {
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {**base, **spec, "template": {"metadata": metadata, **template}},
    }


class Lab:
    """One test's namespace, its operator, and questions to the API server.

    Args:
        plane: with the CRDs.
        namespace: of this test alone.
        directory: for logs.
        kubeconfig: who the operator is.
    """

    def __init__(self, plane: Access, namespace: str, directory: Path, kubeconfig: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.directory = directory
        self.kubeconfig = kubeconfig
        self.client: httpx.Client = plane.client()
        self._operator: Operator | None = None

    def close(self) -> None:
        """End the operator."""
        if self._operator is not None:
            self._operator.kill()
        self.client.close()

    # --- The operator ----------------------------------------------------------------------------

    @property
    def operator(self) -> Operator:
        """The running operator."""
        assert self._operator is not None, "this test has not started an operator"
        return self._operator

    def start(self, **settings: str) -> Operator:
        """Start the operator for this namespace; `settings` as for `Operator.start`."""
        self._operator = Operator.start(
            self.directory, self.kubeconfig, namespaces=[self.namespace], **{**SETTINGS, **settings}
        )
        return self._operator

    # --- Objects ---------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as in subprocess
        """Run kubectl in the namespace."""
        return self.plane.kubectl("-n", self.namespace, *arguments, input=input)

    def apply(self, obj: Json) -> Json:
        """`kubectl apply` of one object, as whoever writes manifests does it; the object as stored."""
        text = json.dumps(obj)
        stored: Json = json.loads(self.kubectl("apply", "-o", "json", "-f", "-", input=text))
        return stored

    def patch(self, path: str, patch: Json, kind: str = "merge") -> Json:
        """Patch an object of the namespace: `patch("pods/x", {…})`; kind as in `kubectl patch --type`."""
        headers = {"Content-Type": f"application/{kind}-patch+json"}
        answer = self.client.patch(self._url(path), json=patch, headers=headers)
        answer.raise_for_status()
        result: Json = answer.json()
        return result

    def age(self, pod: Json, minutes: float = 60) -> None:
        """Make a serving pod one that became ready a while ago, long past every grace for newcomers."""
        since = datetime.now(UTC) - timedelta(minutes=minutes)
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": f"{since:%Y-%m-%dT%H:%M:%SZ}"}
        patch = {"status": {"conditions": [condition]}}
        self.patch(f"pods/{pod['metadata']['name']}/status", patch, kind="strategic-merge")

    def delete(self, path: str, *, force: bool = False) -> None:
        """Delete an object of the namespace without waiting; `force` skips the grace period."""
        query = {"gracePeriodSeconds": "0"} if force else None
        self.client.delete(self._url(path), params=query).raise_for_status()

    def model(self, name: str = "llm") -> Json:
        """The ModelDeployment."""
        answer = self.client.get(self._url(f"modeldeployments/{name}"))
        answer.raise_for_status()
        result: Json = answer.json()
        return result

    def status(self, name: str = "llm") -> Json:
        """Its status, empty before the operator has seen it."""
        found: Json = self.model(name).get("status", {})
        return found

    def pods(self, name: str = "llm", *, live: bool = True) -> list[Json]:
        """Its pods by name: with `live` only those that are not being deleted."""
        query = {"labelSelector": f"stoker.dev/model-deployment={name}"}
        items: list[Json] = self.items("pods", **query)
        return sorted(
            (pod for pod in items if not (live and "deletionTimestamp" in pod["metadata"])),
            key=lambda pod: str(pod["metadata"]["name"]),
        )

    def items(self, kind: str, **query: str) -> list[Json]:
        """All objects of a kind in the namespace."""
        answer = self.client.get(self._url(kind), params=query)
        answer.raise_for_status()
        found: list[Json] = answer.json()["items"]
        return found

    def serving(self, name: str = "llm") -> list[Json]:
        """The pods that the Service routes to: selected and ready."""
        service = self.client.get(self._url(f"services/{name}"))
        if service.status_code == httpx.codes.NOT_FOUND:
            return []
        selector = service.json()["spec"]["selector"]
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        return [pod for pod in self.items("pods", labelSelector=labels) if is_ready(pod)]

    def events(self, reason: str) -> list[Json]:
        """Events with this reason about ModelDeployments of the namespace."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        items = self.client.get(path).json()["items"]
        return [e for e in items if e["reason"] == reason and e["regarding"]["kind"] == "ModelDeployment"]

    def condition(self, kind: str, name: str = "llm") -> Json:
        """A condition of the ModelDeployment, empty when it is not set."""
        found = (c for c in self.status(name).get("conditions", ()) if c["type"] == kind)
        return next(found, {})

    def verdict(self, kind: str, name: str = "llm") -> str:
        """A condition as text, for example `False/Unschedulable`."""
        found = self.condition(kind, name)
        return f"{found.get('status', 'absent')}/{found.get('reason', '')}"

    def _url(self, path: str) -> str:
        kind = path.partition("/")[0]
        base = "/apis/stoker.dev/v1alpha1" if kind == "modeldeployments" else "/api/v1"
        return f"{base}/namespaces/{self.namespace}/{path}"

    # --- Waiting ---------------------------------------------------------------------------------

    def until(self, what: str, ask: Callable[[], T], seconds: float = PATIENCE) -> T:
        """Ask until the answer is true; return it.

        Raises:
            AssertionError: it did not become so in time; the message shows the fleet and the operator's log.
        """
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < deadline, f"not seen: {what}\n{self.story()}"
            time.sleep(0.1)
        return answer

    def stays(self, what: str, ask: Callable[[], object], seconds: float) -> None:
        """Ask for a while; each answer must be true."""
        for _ in self.watch(seconds):
            assert ask(), f"no longer: {what}\n{self.story()}"

    @staticmethod
    def watch(seconds: float, pause: float = 0.1) -> Iterator[None]:
        """Come round every `pause` seconds until `seconds` are over; once at least."""
        deadline = time.monotonic() + seconds
        while True:
            yield
            if time.monotonic() > deadline:
                return
            time.sleep(pause)

    def until_serving(self, count: int, name: str = "llm", seconds: float = PATIENCE) -> list[Json]:
        """Wait until exactly `count` replicas serve and status says so; return their pods."""
        self.until(
            f"{count} replicas of {name} serving",
            lambda: len(self.serving(name)) == count and self.status(name).get("readyReplicas") == count,
            seconds,
        )
        return self.serving(name)

    def until_verdict(self, kind: str, verdict: str, name: str = "llm", seconds: float = PATIENCE) -> str:
        """Wait for a condition such as `False/Unschedulable`; return its message."""
        self.until(f"{kind}={verdict}", lambda: self.verdict(kind, name) == verdict, seconds)
        return str(self.condition(kind, name)["message"])

    def story(self) -> str:
        """The fleet as it is and the operator's last words: for a failed assertion."""
        lines = [f"namespace {self.namespace}"]
        for model in self.items("modeldeployments"):
            status = model.get("status", {})
            lines.append(
                f"{model['metadata']['name']}: {status.get('ready')} of {status.get('desiredReplicas')}"
            )
            lines += [
                f"  {c['type']}={c['status']}/{c['reason']}: {c['message']}"
                for c in status.get("conditions", ())
            ]
        lines += [f"  pod {line(pod)}" for pod in self.items("pods")]
        if self._operator is not None and self._operator.log.exists():
            lines += _tail(self._operator.log, 40)
        for program in ("kube-scheduler", "kwok"):
            lines += [f"{program}:", *_tail(self.plane.directory / "logs" / f"{program}.log", 10)]
        return "\n".join(lines)


def names(pods: Sequence[Json]) -> list[str]:
    """The pods' names."""
    return [pod["metadata"]["name"] for pod in pods]


def uids(pods: Sequence[Json]) -> set[str]:
    """The pods' uids."""
    return {pod["metadata"]["uid"] for pod in pods}


def is_ready(pod: Json) -> bool:
    """Whether the kubelet says that the pod may receive traffic."""
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def in_routing(pod: Json) -> bool:
    """Whether the pod carries the label that the Service selects."""
    return pod["metadata"].get("labels", {}).get("stoker.dev/serving") == "true"


def draining(pod: Json) -> bool:
    """Whether Stoker took the pod out of routing to let its requests finish."""
    return "stoker.dev/drain-started-at" in pod["metadata"].get("annotations", {})


def line(pod: Json) -> str:
    """A pod in one line."""
    metadata, status = pod["metadata"], pod["status"]
    marks = [
        "ready" if is_ready(pod) else "",
        "in routing" if in_routing(pod) else "out of routing",
        f"on {node}" if (node := pod["spec"].get("nodeName")) else "on no node",
        "deleting" if "deletionTimestamp" in metadata else "",
        *(f"not {c['type']} since {c['lastTransitionTime']}: {c.get('message', '')}" for c in _false(status)),
    ]
    return f"{metadata['name']} {metadata['uid'][:8]} {status.get('phase')} {' '.join(filter(None, marks))}"


def _tail(log: Path, count: int) -> list[str]:
    """The last lines of a log, none of one that was never written."""
    return log.read_text(errors="replace").splitlines()[-count:] if log.exists() else []


def _false(status: Json) -> list[Json]:
    """The conditions of a pod that are False."""
    return [c for c in status.get("conditions", ()) if c["status"] == "False"]
