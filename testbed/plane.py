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
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testbed import components
from testbed.addresses import PodRange, claim_pod_range, free_ports
from testbed.binaries import PLANE_PROGRAMS, cache_directory, ensure_all
from testbed.components import Layout, PlaneOptions
from testbed.processes import Process, ProcessError

READY_SECONDS = 90.0
TOKEN_SECONDS = 24 * 3600
_DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


class PlaneError(Exception):
    """The control plane could not be started or used; the message says which program failed and how."""


class Plane:
    """A running control plane. Create it with `Plane.start`."""

    def __init__(self, layout: Layout, options: PlaneOptions, pods: PodRange, *, temporary: bool) -> None:
        self.layout = layout
        self.options = options
        self.admin_token = secrets.token_urlsafe(24)
        self._pods = pods
        self._temporary = temporary
        self._programs: dict[str, Path] = {}
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
        plane = cls(layout, options or PlaneOptions(), pods, temporary=directory is None)
        plane._programs = programs
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
            shutil.rmtree(self.layout.directory, ignore_errors=True)

    # What a client needs

    @property
    def url(self) -> str:
        """The API server's address, `https://127.0.0.1:…`; the same after a restart."""
        return self.layout.url

    @property
    def ca(self) -> Path:
        """The certificate to verify the API server with (PEM)."""
        return self.layout.ca

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.layout.kubeconfig

    @property
    def directory(self) -> Path:
        """The plane's folder; logs are in `logs/`."""
        return self.layout.directory

    @property
    def pod_cidr(self) -> str:
        """The range of the pods' addresses, which no other plane on this machine uses."""
        return str(self.layout.pod_cidr)

    def client(self, token: str | None = None) -> httpx.Client:
        """Return an HTTP client of the API, as the administrator or as the bearer of `token`."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token or self.admin_token}"},
            verify=ssl.create_default_context(cafile=str(self.ca)),
            timeout=30,
        )

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - subprocess calls it so
        """Run kubectl as the administrator and return what it prints.

        Raises:
            PlaneError: kubectl failed; the message is what it said.
        """
        command = [str(self._programs["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise PlaneError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token of a ServiceAccount, valid for a day (TokenRequest API).

        Raises:
            PlaneError: there is no such ServiceAccount, or the API server refuses.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        }
        with self.client() as client:
            answer = client.post(path, json=request)
        if answer.status_code != httpx.codes.CREATED:
            raise PlaneError(f"no token for ServiceAccount {namespace}/{name}: {answer.text}")
        return str(answer.json()["status"]["token"])

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount, valid for a day, and return its path."""
        path = self.layout.file(f"kubeconfig-{namespace}-{name}.yaml")
        _write_private(path, self._kubeconfig_text(self.service_account_token(namespace, name), name))
        return path

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

        Raises:
            PlaneError: it was not ready within 90 s.
        """
        with _plane_errors():
            self._launch("kube-apiserver", components.kube_apiserver(self.layout, self.options))
            self._wait("kube-apiserver", self._answers("/readyz"), time.monotonic() + READY_SECONDS)

    # Starting

    def _start_all(self) -> None:
        layout, options, deadline = self.layout, self.options, time.monotonic() + READY_SECONDS
        self._write_files()
        with _plane_errors():
            self._launch("etcd", components.etcd(layout))
            self._launch("kube-apiserver", components.kube_apiserver(layout, options))
            self._wait("kube-apiserver", self._answers("/readyz"), deadline, also="etcd")
            _write_private(self.kubeconfig, self._kubeconfig_text(self.admin_token, "admin"))
            self._launch("kube-controller-manager", components.kube_controller_manager(layout, options))
            self._launch("kube-scheduler", components.kube_scheduler(layout))
            self._launch("kwok", components.kwok(layout, options))
            self._wait("kwok", self._kwok_is_ready, deadline)
            # Without a port of its own, the controller manager shows that it works by what it makes.
            self._wait("kube-controller-manager", self._answers(_DEFAULT_ACCOUNT), deadline)
            self._wait("kube-scheduler", lambda: self._processes["kube-scheduler"].running, deadline)

    def _write_files(self) -> None:
        layout = self.layout
        layout.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(layout.file("tokens.csv"), f'{self.admin_token},admin,admin,"system:masters"\n')
        _write_private(layout.file("service-accounts.key"), _new_key())
        layout.file("scheduler.yaml").write_text(components.scheduler_configuration(layout, self.options))

    def _launch(self, name: str, arguments: list[str]) -> None:
        command = [str(self._programs[name]), *arguments]
        log = self.layout.file("logs") / f"{name}.log"
        self._processes[name] = Process(name, command, log, keep=[self._pods.claim])

    def _wait(self, name: str, ready: Callable[[], bool], deadline: float, also: str | None = None) -> None:
        """Wait for one program; blame `also`, which it needs, when that one has ended."""
        try:
            self._processes[name].wait_until(ready, deadline)
        except ProcessError:
            if also and not self._processes[also].running:
                self._processes[also].wait_until(lambda: False, deadline)
            raise

    def _answers(self, path: str) -> Callable[[], bool]:
        """Return a question to the API server: does a GET of `path` succeed?"""

        def ask() -> bool:
            # Until its first start is over there is no certificate to verify it with.
            context: ssl.SSLContext | bool = False
            if self.ca.exists():
                context = ssl.create_default_context(cafile=str(self.ca))
            headers = {"Authorization": f"Bearer {self.admin_token}"}
            return _succeeds(self.url + path, headers=headers, verify=context)

        return ask

    def _kwok_is_ready(self) -> bool:
        return _succeeds(f"http://127.0.0.1:{self.layout.kwok_port}/healthz")

    def _kubeconfig_text(self, token: str, user: str) -> str:
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "testbed",
                        "cluster": {"server": self.url, "certificate-authority": str(self.ca)},
                    }
                ],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
                "current-context": "testbed",
            }
        )


@contextmanager
def _plane_errors() -> Iterator[None]:
    try:
        yield
    except ProcessError as error:
        raise PlaneError(str(error)) from error


def _succeeds(url: str, **options: Any) -> bool:  # noqa: ANN401 - passed on to httpx, which types them
    with contextlib.suppress(httpx.HTTPError, ssl.SSLError):
        return httpx.get(url, timeout=5, **options).is_success
    return False


def _own_directory(pods: PodRange) -> Path:
    """Return an empty folder named after the claimed range, so that what a killed plane left is cleared."""
    directory = cache_directory() / "planes" / str(pods.cidr).replace("/", "-")
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _new_key() -> str:
    """Return a new private key that signs ServiceAccount tokens, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
