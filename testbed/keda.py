"""The real KEDA on a plane: its operator and its metrics adapter, with the plane's own HPA controller.

    with Plane.start(options=PlaneOptions(aggregation=True)) as plane, Keda.start(plane) as keda:
        ...

- Both are built from KEDA's own Go module (10 minutes once), with its CRDs; every setting that concerns
  scaling is KEDA's default. They run as the plane's administrator.
- There are no pods and no cluster network for them, so their Services are names of this machine
  (`type: ExternalName`), and the plane's certificate for aggregated API servers is theirs.
- They end with the process that started them, whatever happens to it.
"""

import base64
import contextlib
import json
import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx

from testbed.access import Access, PlaneError
from testbed.addresses import free_ports
from testbed.binaries import PROGRAMS, ensure, module_source, module_version
from testbed.operator_access import install_crds
from testbed.processes import Process, ProcessError

READY_SECONDS = 90.0
NAMESPACE = "keda"
GROUP = "external.metrics.k8s.io"
_SERVICE = "keda-metrics-apiserver"
_OPERATOR, _ADAPTER = KEDA_PROGRAMS = ("keda-operator", "keda-adapter")


class KedaError(Exception):
    """KEDA could not be started; the message ends with the tail of the log of the part that failed."""


class Keda:
    """A running KEDA. Create it with `Keda.start`.

    Args:
        plane: started with `PlaneOptions.aggregation`.
    """

    def __init__(self, plane: Access) -> None:
        self._plane = plane
        self._programs = {name: ensure(name) for name in (_OPERATOR, _ADAPTER)}
        self._certificates = plane.directory / "aggregation"
        self._metrics, self._probes, self._grpc, self._secure, self._adapter_metrics = free_ports(5)
        self._processes: dict[str, Process] = {}

    @staticmethod
    def version() -> str:
        """The version that is built, for example `v2.21.0`."""
        return module_version(PROGRAMS[_OPERATOR].family)

    @classmethod
    def start(cls, plane: Access) -> Self:
        """Install KEDA's CRDs and start its two parts; return when the API server serves their metrics.

        Raises:
            KedaError: the plane has no aggregation, or a part was not ready within 90 s.
            testbed.binaries.BuildError: it could not be built.
        """
        keda = cls(plane)
        if not (keda._certificates / "tls.key").exists():
            raise KedaError(
                "the plane serves no aggregated APIs: start it with PlaneOptions(aggregation=True)"
            )
        install_crds(plane, module_source(PROGRAMS[_OPERATOR].family) / "config" / "crd" / "bases")
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl("apply", "-f", "-", input=json.dumps(keda._service()))
        try:
            keda.start_operator()
            keda._launch(_ADAPTER, keda._adapter_arguments())
            plane.kubectl("apply", "-f", "-", input=json.dumps(keda._registration()))
            keda._wait(_ADAPTER, keda._serves)
        except BaseException:
            keda.stop()
            raise
        return keda

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End both parts at once."""
        for process in reversed(self._processes.values()):
            process.kill()
        self._processes.clear()

    def kill_operator(self) -> None:
        """Kill the operator: the adapter asks it for every metric, and gets no answer."""
        self._processes[_OPERATOR].kill()

    def start_operator(self) -> None:
        """Start the operator (again), and wait until it is ready.

        Raises:
            KedaError: it was not ready within 90 s.
        """
        self._launch(_OPERATOR, self._operator_arguments())
        probe = f"http://127.0.0.1:{self._probes}/readyz"
        self._wait(_OPERATOR, lambda: _succeeds(probe))

    # Command lines

    def _operator_arguments(self) -> list[str]:
        return [
            f"--cert-dir={self._certificates}",
            f"--metrics-bind-address=127.0.0.1:{self._metrics}",
            f"--health-probe-bind-address=127.0.0.1:{self._probes}",
            f"--metrics-service-bind-address=127.0.0.1:{self._grpc}",
            # Both would write the certificate of a rotation that is off.
            "--enable-webhook-patching=false",
            "--enable-apiservice-patching=false",
        ]

    def _adapter_arguments(self) -> list[str]:
        folder, kubeconfig = self._certificates, self._plane.kubeconfig
        return [
            f"--secure-port={self._secure}",
            "--bind-address=127.0.0.1",
            f"--port={self._adapter_metrics}",
            f"--metrics-service-address=localhost:{self._grpc}",
            *(f"--{who}-kubeconfig={kubeconfig}" for who in ("authentication", "authorization", "lister")),
            f"--client-ca-file={folder / 'ca.crt'}",
            f"--tls-cert-file={folder / 'tls.crt'}",
            f"--tls-private-key-file={folder / 'tls.key'}",
            f"--cert-dir={folder}",
        ]

    def _environment(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self._plane.kubeconfig),
            "POD_NAMESPACE": NAMESPACE,
            "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
            "WATCH_NAMESPACE": "",
        }

    def _launch(self, name: str, arguments: list[str]) -> None:
        variables = [f"{key}={value}" for key, value in self._environment().items()]
        command = [shutil.which("env") or "/usr/bin/env", *variables, str(self._programs[name]), *arguments]
        self._processes[name] = Process(name, command, self._plane.directory / "logs" / f"{name}.log")

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        try:
            self._processes[name].wait_until(ready, time.monotonic() + READY_SECONDS)
        except ProcessError as error:
            raise KedaError(str(error)) from error

    def _serves(self) -> bool:
        with contextlib.suppress(PlaneError):
            return "resources" in self._plane.kubectl("get", "--raw", f"/apis/{GROUP}/v1beta1")
        return False

    # Objects

    def _service(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _SERVICE, "namespace": NAMESPACE},
            "spec": {
                "type": "ExternalName",
                "externalName": "localhost",
                "ports": [{"name": "https", "port": self._secure}],
            },
        }

    def _registration(self) -> dict[str, Any]:
        authority = (self._certificates / "ca.crt").read_bytes()
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1beta1.{GROUP}"},
            "spec": {
                "service": {"name": _SERVICE, "namespace": NAMESPACE, "port": self._secure},
                "group": GROUP,
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": base64.b64encode(authority).decode(),
            },
        }


def _succeeds(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).is_success
    return False
