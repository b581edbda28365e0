"""A real Kubernetes control plane on one machine: etcd, API server, controller manager, scheduler and kwok.

    with Plane.start() as plane:
        plane.kubectl("get", "nodes")

- Everything lives in one folder: data, certificates, tokens, kubeconfigs, logs.
- It listens on 127.0.0.1 only, on ports that were free, and owns a range of pod addresses
  (`plane.pod_cidr`), so planes can run side by side.
- `start` returns when the plane is usable, within 90 s, or raises `PlaneError` with the right log's tail.
- It ends with `stop`, at the end of the `with` block, or with this process, `kill -9` included.
"""

import contextlib
import secrets
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from testbed import components
from testbed.access import Access, PlaneError, kubeconfig_text, write_private
from testbed.addresses import PodRange, claim_pod_range, free_ports
from testbed.binaries import PLANE_PROGRAMS, cache_directory, ensure_all
from testbed.certificates import private_pem, write_certificate
from testbed.components import Layout, PlaneOptions
from testbed.processes import Process, ProcessError

READY_SECONDS = 90.0
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kwok")
AGGREGATED_HOSTS = ("localhost", "keda-operator.keda.svc", "keda-metrics-apiserver.keda.svc")
"""Names in the certificate for aggregated API servers: those by which KEDA's parts know each other."""
_DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


class Plane(Access):
    """A running control plane. Create it with `Plane.start`; see `Access` for what a client does with it."""

    def __init__(
        self,
        layout: Layout,
        options: PlaneOptions,
        pods: PodRange,
        programs: dict[str, Path],
        *,
        temporary: bool,
    ) -> None:
        super().__init__(
            directory=layout.directory,
            url=layout.url,
            ca=layout.ca,
            kubeconfig=layout.kubeconfig,
            admin_token=secrets.token_urlsafe(24),
            pod_cidr=str(layout.pod_cidr),
            kubectl_path=programs["kubectl"],
        )
        self._layout = layout
        self._options = options
        self._pods = pods
        self._programs = programs
        self._temporary = temporary
        self._processes: dict[str, Process] = {}

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        pod_cidr: str | None = None,
        options: PlaneOptions | None = None,
    ) -> Self:
        """Start a control plane and wait until it is usable, building its programs first if need be.

        Args:
            directory: where it lives; kept afterwards. By default a folder in the user's cache that goes away
                with `stop` (and is cleared by the next plane when this one was killed).
            pod_cidr: the range of the pods' addresses, inside 127.0.0.0/8; by default a /16 of its own.
            options: what the plane is for; by default a few dozen nodes with everything on.

        Raises:
            PlaneError: a program failed, or the plane was not ready within 90 s.
            testbed.binaries.BuildError: a program could not be built.
        """
        programs = ensure_all(PLANE_PROGRAMS)
        with _plane_errors():
            pods = claim_pod_range(pod_cidr)
        where = directory or _own_directory(pods)
        etcd, apiserver, kwok = free_ports(3)
        layout = Layout(where.resolve(), etcd, apiserver, kwok, pods.cidr)
        plane = cls(layout, options or PlaneOptions(), pods, programs, temporary=directory is None)
        try:
            plane._start_all()
        except BaseException:
            plane.stop(keep=True)  # the logs are what one needs now
            raise
        return plane

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, *, keep: bool = False) -> None:
        """End every program at once, and remove the folder unless the caller gave it or `keep` is set.

        May be called again. The programs are killed: an API server with open watches takes long to stop in
        order, and nothing of a plane is worth saving.
        """
        for process in reversed(self._processes.values()):
            process.kill()
        self._processes.clear()
        self._pods.release()
        if self._temporary and not keep:
            shutil.rmtree(self._layout.directory, ignore_errors=True)

    # Faults

    def kill(self, component: str) -> None:
        """Kill one program, by the name of its executable (`etcd`, `kube-scheduler`, `kwok` …)."""
        self._processes[component].kill()

    def pause(self, component: str) -> None:
        """Freeze one program (SIGSTOP): its connections stay open and nothing answers."""
        self._processes[component].signal(signal.SIGSTOP)

    def resume(self, component: str) -> None:
        """Let a frozen program go on (SIGCONT)."""
        self._processes[component].signal(signal.SIGCONT)

    def kill_apiserver(self) -> None:
        """Kill the API server; clients see refused connections."""
        self.kill("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server again on the same port and data, and wait until it is ready.

        The plane's controllers start anew with it: after a few losses in a row client-go waits for up to a
        minute before the next attempt (tools/cache/reflector.go), and whoever breaks the API server to see
        what an operator makes of it would wait for the scheduler instead.

        Raises:
            PlaneError: it was not ready within 90 s.
        """
        deadline = time.monotonic() + READY_SECONDS
        with _plane_errors():
            self._launch("kube-apiserver", components.kube_apiserver(self._layout, self._options))
            self._wait("kube-apiserver", self._answers("/readyz"), deadline)
            for name in _CONTROLLERS:
                self.kill(name)
            self._launch_controllers()
            self._wait("kwok", self._kwok_answers, deadline)

    # Starting

    def _start_all(self) -> None:
        layout, options, deadline = self._layout, self._options, time.monotonic() + READY_SECONDS
        self._write_files()
        with _plane_errors():
            self._launch("etcd", components.etcd(layout))
            etcd = f"http://127.0.0.1:{layout.etcd_port}/health"
            self._wait("etcd", lambda: _succeeds(etcd), deadline)
            self._launch("kube-apiserver", components.kube_apiserver(layout, options))
            self._wait("kube-apiserver", self._answers("/readyz"), deadline)
            write_private(self.kubeconfig, kubeconfig_text(self.url, self.ca, self.admin_token, "admin"))
            self._launch_controllers()
            self._wait("kwok", self._kwok_answers, deadline)
            # Without a port of its own, the controller manager shows that it works by what it makes.
            self._wait("kube-controller-manager", self._answers(_DEFAULT_ACCOUNT), deadline)
            self._wait("kube-scheduler", lambda: self._processes["kube-scheduler"].running, deadline)

    def _launch_controllers(self) -> None:
        layout, options = self._layout, self._options
        self._launch("kube-controller-manager", components.kube_controller_manager(layout, options))
        self._launch("kube-scheduler", components.kube_scheduler(layout))
        self._launch("kwok", components.kwok(layout, options))

    def _kwok_answers(self) -> bool:
        return _succeeds(f"http://127.0.0.1:{self._layout.kwok_port}/healthz")

    def _write_files(self) -> None:
        layout = self._layout
        layout.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(layout.file("tokens.csv"), f'{self.admin_token},admin,admin,"system:masters"\n')
        account_key = private_pem(ec.generate_private_key(ec.SECP256R1()))
        write_private(layout.file("service-accounts.key"), account_key)
        if self._options.aggregation:
            write_certificate(layout.aggregation, components.PROXY_CLIENT, AGGREGATED_HOSTS)
        layout.file("scheduler.yaml").write_text(components.scheduler_configuration(layout, self._options))

    def _launch(self, name: str, arguments: list[str]) -> None:
        command = [str(self._programs[name]), *arguments]
        log = self._layout.file("logs") / f"{name}.log"
        self._processes[name] = Process(name, command, log, keep=[self._pods.claim])

    def _wait(self, name: str, ready: Callable[[], bool], deadline: float) -> None:
        self._processes[name].wait_until(ready, deadline)

    def _answers(self, path: str) -> Callable[[], bool]:
        """Return a question to the API server: does a GET of `path` succeed?"""

        def ask() -> bool:
            # Until its first start is over there is no certificate to verify it with, or half of one.
            context: ssl.SSLContext | bool = False
            if self.ca.exists():
                try:
                    context = ssl.create_default_context(cafile=str(self.ca))
                except ssl.SSLError:
                    return False
            headers = {"Authorization": f"Bearer {self.admin_token}"}
            return _succeeds(self.url + path, headers=headers, verify=context)

        return ask


@contextmanager
def _plane_errors() -> Iterator[None]:
    try:
        yield
    except ProcessError as error:
        raise PlaneError(str(error)) from error


def _succeeds(url: str, **options: Any) -> bool:
    with contextlib.suppress(httpx.HTTPError, ssl.SSLError):
        return httpx.get(url, timeout=5, **options).is_success
    return False


def _own_directory(pods: PodRange) -> Path:
    """Return an empty folder named after the claimed range, so that what a killed plane left is cleared."""
    directory = cache_directory() / "planes" / str(pods.cidr).replace("/", "-")
    shutil.rmtree(directory, ignore_errors=True)
    return directory
