"""A real Prometheus that scrapes the pods of a plane, as in a cluster with the usual annotations.

It finds pods through the API server, scrapes those that carry `prometheus.io/scrape: "true"` at
`prometheus.io/port` and `prometheus.io/path`, and labels what it finds with `namespace` and `pod`, the names
that the Prometheus Operator's PodMonitor attaches too. Like the plane it ends with this process, whatever
happens.
"""

import contextlib
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from testbed.access import Access
from testbed.addresses import free_ports
from testbed.binaries import ensure
from testbed.processes import Process, ProcessError

READY_SECONDS = 60.0
_META = "__meta_kubernetes_pod"


class PrometheusError(Exception):
    """Prometheus could not be started or queried; the message ends with what it said."""


class Prometheus:
    """A running Prometheus. Create it with `Prometheus.start`."""

    def __init__(self, directory: Path, port: int, extra_arguments: Sequence[str]) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            str(ensure("prometheus")),
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            # New pods are scraped from the next second on, instead of within five.
            "--scrape.discovery-reload-interval=1s",
            *extra_arguments,
        ]
        self._process: Process | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        plane: Access,
        *,
        namespaces: Sequence[str] | None = None,
        scrape_interval: str = "1s",
        extra_arguments: Sequence[str] = (),
    ) -> Self:
        """Start Prometheus in a folder of its own and wait until it answers queries.

        Args:
            directory: where its configuration, data and log go; kept afterwards.
            plane: whose pods to scrape.
            namespaces: only pods in these; None means all.
            scrape_interval: a Prometheus duration, for example `1s` or `15s`; also the time-out, up to 10 s.
            extra_arguments: more command-line flags.

        Raises:
            PrometheusError: it was not ready within a minute.
        """
        directory.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(configuration(plane, namespaces, scrape_interval))
        (directory / "prometheus.yaml").write_text(text)
        prometheus = cls(directory.resolve(), free_ports(1)[0], extra_arguments)
        prometheus.restart()
        return prometheus

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def restart(self, *, empty: bool = False) -> None:
        """Start it (again) at the same address, with the data it had or none, and wait until it is ready.

        Raises:
            PrometheusError: it was not ready within a minute.
        """
        self.kill()
        if empty:
            shutil.rmtree(self.directory / "data", ignore_errors=True)
        self._process = Process("prometheus", self._command, self.directory / "prometheus.log")
        try:
            self._process.wait_until(self._is_ready, time.monotonic() + READY_SECONDS)
        except ProcessError as error:
            self.kill()
            raise PrometheusError(str(error)) from error

    def stop(self) -> None:
        """End it in order, with its data on disk; `restart` starts it again."""
        if self._process is not None:
            self._process.terminate()
            self._process = None

    def kill(self) -> None:
        """End it at once; what it had scraped stays in its write-ahead log."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections are accepted and nothing answers."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an instant query now; return one `{"metric": …, "value": [time, text]}` per series.

        Raises:
            PrometheusError: the query was refused or there was no answer.
        """
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        except httpx.HTTPError as error:
            raise PrometheusError(f"query {expression!r}: {error}") from error
        if not answer.is_success:
            raise PrometheusError(f"query {expression!r}: {answer.text}")
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/-/ready", timeout=5).is_success
        return False


def configuration(plane: Access, namespaces: Sequence[str] | None, scrape_interval: str) -> dict[str, Any]:
    """Return Prometheus's configuration: one job that finds annotated pods."""
    discovery: dict[str, Any] = {"role": "pod", "kubeconfig_file": str(plane.kubeconfig)}
    if namespaces is not None:
        discovery["namespaces"] = {"names": list(namespaces)}
    job = {
        "job_name": "kubernetes-pods",
        "kubernetes_sd_configs": [discovery],
        "relabel_configs": _relabelling(),
    }
    return {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval},
        "scrape_configs": [job],
    }


def _relabelling() -> list[dict[str, Any]]:
    annotation = f"{_META}_annotation_prometheus_io"
    return [
        {"source_labels": [f"{annotation}_scrape"], "action": "keep", "regex": "true"},
        {"source_labels": [f"{_META}_phase"], "action": "drop", "regex": "Pending|Succeeded|Failed"},
        {"source_labels": [f"{annotation}_path"], "target_label": "__metrics_path__", "regex": "(.+)"},
        {
            "source_labels": [f"{_META}_ip", f"{annotation}_port"],
            "target_label": "__address__",
            "regex": r"(.+);(\d+)",
            "replacement": "$1:$2",
        },
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{_META}_name"], "target_label": "pod"},
    ]
