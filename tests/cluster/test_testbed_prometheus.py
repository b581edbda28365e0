"""The testbed's Prometheus finds and scrapes pods at their own addresses, and can be made to fail."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed import prometheus as module
from testbed.access import Access
from testbed.binaries import ensure
from testbed.prometheus import Prometheus, PrometheusError

PORT = 18800
ROOT = Path(module.__file__).parent.parent


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; pytest's time limit ends a wait in vain."""
    while not condition():
        time.sleep(0.1)


class Exposition(http.server.BaseHTTPRequestHandler):
    """Serves one gauge at /telemetry, whose value is the last number of the address that was asked."""

    def do_GET(self) -> None:
        found = self.path == "/telemetry"
        address = self.connection.getsockname()[0]
        body = f"# TYPE answer gauge\nanswer {address.rpartition('.')[2]}\n" if found else ""
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listener(address: str) -> Iterator[None]:
    """Answer for a pod at its address."""
    with http.server.ThreadingHTTPServer((address, PORT), Exposition) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def ready_pod(plane: Access, namespace: str, create_pod: Callable[..., str]) -> Callable[..., str]:
    """Create a pod with annotations, wait until it is Ready, and return its address."""

    def create(name: str, **annotations: str) -> str:
        texts = {f"prometheus.io/{key}": value for key, value in annotations.items()}
        create_pod(name, {**texts, "testbed.stoker.dev/load-seconds": "0"}, gpus=0)
        plane.kubectl("wait", "--for=condition=Ready", "-n", namespace, f"pod/{name}", "--timeout=30s")
        return plane.kubectl("get", "-n", namespace, "pod", name, "-o", "jsonpath={.status.podIP}")

    return create


SCRAPED = {"scrape": "true", "port": str(PORT), "path": "/telemetry"}


def test_annotated_pods_are_scraped_at_their_addresses(
    prometheus: Prometheus, namespace: str, ready_pod: Callable[..., str]
):
    addresses = [ready_pod(name, **SCRAPED) for name in ("one", "two")]
    ready_pod("silent")
    with listener(addresses[0]), listener(addresses[1]):
        wait_for(lambda: len(prometheus.query("answer")) == 2)
        series = {item["metric"].pop("pod"): item for item in prometheus.query("answer")}
    for name, address in zip(("one", "two"), addresses, strict=True):
        assert series[name]["value"][1] == address.rpartition(".")[2]
        assert series[name]["metric"] == {
            "__name__": "answer",
            "job": "kubernetes-pods",
            "instance": f"{address}:{PORT}",
            "namespace": namespace,
        }
    assert {item["metric"]["pod"] for item in prometheus.query("up")} == {"one", "two"}


def test_a_pod_that_does_not_answer_is_down_not_absent(prometheus: Prometheus, ready_pod: Callable[..., str]):
    ready_pod("loading", **SCRAPED)
    wait_for(lambda: [item["value"][1] for item in prometheus.query("up")] == ["0"])


def test_data_survive_a_restart_unless_they_are_dropped(
    prometheus: Prometheus, ready_pod: Callable[..., str]
):
    url = prometheus.url
    with listener(ready_pod("engine", **SCRAPED)):
        wait_for(lambda: bool(prometheus.query("answer")))
    before = "last_over_time(answer[1h])"
    prometheus.stop()
    with pytest.raises(PrometheusError, match="query 'answer'"):
        prometheus.query("answer")
    prometheus.restart()
    assert prometheus.url == url
    assert len(prometheus.query(before)) == 1
    prometheus.kill()
    prometheus.restart()
    assert len(prometheus.query(before)) == 1
    prometheus.restart(empty=True)
    assert prometheus.query(before) == []


def test_other_namespaces_are_left_alone(
    prometheus: Prometheus, plane: Access, tmp_path: Path, ready_pod: Callable[..., str]
):
    ready_pod("engine", **SCRAPED)
    with Prometheus.start(tmp_path / "other", plane, namespaces=["default"]) as other:
        wait_for(lambda: bool(prometheus.query("up")))
        assert other.query("up") == []


def test_a_frozen_prometheus_answers_nothing_until_it_goes_on(prometheus: Prometheus):
    prometheus.pause()
    try:
        assert not prometheus._is_ready()
    finally:
        prometheus.resume()
    wait_for(prometheus._is_ready)


def test_a_bad_query_is_reported(prometheus: Prometheus):
    with pytest.raises(PrometheusError, match="parse error"):
        prometheus.query("sum(")


def test_a_bad_flag_is_reported_with_what_prometheus_said(plane: Access, tmp_path: Path):
    with pytest.raises(PrometheusError, match="prometheus ended with code 1") as caught:
        Prometheus.start(tmp_path, plane, extra_arguments=["--no-such-flag"])
    assert "unknown long flag '--no-such-flag'" in str(caught.value)


def test_promtool_finds_no_fault_with_the_configuration(prometheus: Prometheus):
    file = prometheus.directory / "prometheus.yaml"
    command = [str(ensure("promtool")), "check", "config", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


PARENT = """
import pathlib, sys, time
from testbed.access import Access
from testbed.prometheus import Prometheus
directory = pathlib.Path(sys.argv[1])
server = Prometheus.start(directory, Access.load(directory / "access.json"))
print(server._process.pid, flush=True)
time.sleep(600)
"""


def test_kill_9_of_the_parent_ends_prometheus(plane: Access, tmp_path: Path):
    plane.save(tmp_path / "access.json")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        os.kill(parent.pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
