"""The operator as a process of its own, as it runs in a cluster: started, killed, asked how it is.

It is run from the source tree by this Python, configured through its environment, and ends with the process
that started it.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from testbed.addresses import free_ports
from testbed.processes import Process, ProcessError

READY_SECONDS = 60.0


class OperatorError(Exception):
    """The operator ended or was not ready in time; the message ends with the tail of its log."""


class Operator:
    """A running operator. Create it with `Operator.start`.

    Args:
        directory: where its log goes.
        environment: its settings, `STOKER_…`.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.log = directory / "operator.log"
        self._port = free_ports(1)[0]
        self._environment = dict(environment)
        self._process: Process | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        kubeconfig: Path,
        *,
        prometheus_url: str = "",
        namespaces: Sequence[str] = (),
        **settings: str,
    ) -> Self:
        """Start the operator and wait until it is ready.

        Args:
            directory: where its log goes.
            kubeconfig: who it is to the API server.
            prometheus_url: what it asks for metrics.
            namespaces: where it works; all by default.
            settings: more settings by the name of their field, for example `stale_after_seconds="10"`.

        Raises:
            OperatorError: it ended or was not ready within a minute.
        """
        environment = {
            "STOKER_KUBECONFIG": str(kubeconfig),
            "STOKER_PROMETHEUS_URL": prometheus_url,
            "STOKER_NAMESPACES": ",".join(namespaces),
            "STOKER_LISTEN_ADDRESS": "127.0.0.1",
            "STOKER_LOG_FORMAT": "console",
            **{f"STOKER_{name.upper()}": value for name, value in settings.items()},
        }
        operator = cls(directory, environment)
        operator.restart()
        return operator

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where `/metrics`, `/healthz` and `/readyz` are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the running operator.

        Raises:
            OperatorError: it does not run.
        """
        if self._process is None:
            raise OperatorError("the operator does not run")
        return self._process.pid

    def restart(self, *, wait: bool = True) -> None:
        """Start it (again), after ending it in order if it runs.

        Raises:
            OperatorError: it ended or was not ready within a minute.
        """
        self.stop()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")}
        environment |= self._environment | {"STOKER_LISTEN_PORT": str(self._port), "NO_COLOR": "1"}
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = [shutil.which("env") or "/usr/bin/env", *variables, sys.executable, "-m", "stoker", "run"]
        self._process = Process("stoker", command, self.log)
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it has a full view of the cluster and has made a first decision.

        Raises:
            OperatorError: it ended or was not ready in time.
        """
        if self._process is None:
            raise OperatorError("the operator does not run")
        try:
            self._process.wait_until(lambda: self.healthy("/readyz"), time.monotonic() + seconds)
        except ProcessError as error:
            self.kill()
            raise OperatorError(str(error)) from error

    def stop(self) -> None:
        """End it in order (SIGTERM)."""
        if self._process is not None:
            self._process.terminate()
            self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.signal(number)

    @property
    def running(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.running

    def healthy(self, path: str = "/healthz") -> bool:
        """Whether a probe of this path succeeds."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}{path}", timeout=5).is_success
        return False

    def metrics(self) -> str:
        """Its own metrics, in the Prometheus text format."""
        return httpx.get(f"{self.url}/metrics", timeout=5).text

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric over the series that have these labels; 0 when there is none."""
        from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - only here

        families: Any = text_string_to_metric_families(self.metrics())
        values = (
            float(sample.value)
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return sum(values, 0.0)
