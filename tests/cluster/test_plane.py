"""Planes start, stand side by side, survive faults, and end with whoever started them."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from testbed import components, nodes, plane
from testbed.access import Access, PlaneError
from testbed.components import PlaneOptions
from testbed.nodes import cordon, create_nodes, remove_nodes
from testbed.plane import Plane
from testbed.shared import shared_plane

ROOT = Path(plane.__file__).parent.parent
PROGRAMS = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; pytest's time limit ends a wait in vain."""
    while not condition():
        time.sleep(0.05)


def programs_of(directory: Path) -> set[str]:
    """Return the names of the running programs whose command line mentions the folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if any(bytes(directory) in argument for argument in command):
                found.add(Path(os.fsdecode(command[0])).name)
    return found & PROGRAMS


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A plane that these tests may harm, with two nodes."""
    with Plane.start(tmp_path_factory.mktemp("plane")) as started:
        create_nodes(started, 2)
        yield started


def test_two_planes_stand_side_by_side(own_plane: Plane, plane: Access):
    assert own_plane.url != plane.url
    assert own_plane.pod_cidr != plane.pod_cidr
    own_plane.kubectl("create", "namespace", "only-here")
    assert "only-here" not in plane.kubectl("get", "namespaces")
    with own_plane.client() as client, plane.client(own_plane.admin_token) as stranger:
        assert client.get("/api/v1/nodes").status_code == httpx.codes.OK
        with pytest.raises(httpx.ConnectError, match="certificate"):
            # Each plane has a certificate of its own.
            httpx.get(f"{own_plane.url}/readyz", verify=ssl.create_default_context(cafile=str(plane.ca)))
        assert stranger.get("/api/v1/nodes").status_code == httpx.codes.UNAUTHORIZED


def test_the_api_server_comes_back_with_its_data_on_the_same_port(own_plane: Plane):
    own_plane.kubectl("create", "configmap", "kept")
    own_plane.kill_apiserver()
    with own_plane.client() as client, pytest.raises(httpx.ConnectError):
        client.get("/readyz")
    own_plane.start_apiserver()
    assert "kept" in own_plane.kubectl("get", "configmaps")
    # Scheduler, controllers and kwok have found it again: a pod gets to Running and goes away.
    pod = {"metadata": {"name": "after"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    with own_plane.client() as client:
        client.post("/api/v1/namespaces/default/pods", json=pod).raise_for_status()
    own_plane.kubectl("wait", "--for=condition=Ready", "pod/after", "--timeout=60s")
    own_plane.kubectl("delete", "pod", "after", "--timeout=60s")


def test_a_frozen_api_server_accepts_connections_and_answers_nothing(own_plane: Plane):
    own_plane.pause("kube-apiserver")
    try:
        with socket.create_connection(("127.0.0.1", httpx.URL(own_plane.url).port or 0)):
            pass
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{own_plane.url}/readyz", verify=False, timeout=0.5)
    finally:
        own_plane.resume("kube-apiserver")
    assert own_plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_nodes_keep_reporting(own_plane: Plane):
    where = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].lastHeartbeatTime}"
    first = own_plane.kubectl("get", "nodes", "-o", where)
    deadline = time.monotonic() + 45  # the node lifecycle controller gives a silent node up after 50 s
    while set(own_plane.kubectl("get", "nodes", "-o", where).split()) & set(first.split()):
        assert time.monotonic() < deadline, "a node has not reported"
        time.sleep(1)


def test_a_cordoned_node_takes_no_pods_until_it_is_uncordoned(own_plane: Plane):
    (name,) = create_nodes(own_plane, 1, prefix="cordoned")
    cordon(own_plane, name)
    assert "SchedulingDisabled" in own_plane.kubectl("get", "node", name)
    cordon(own_plane, name, on=False)
    assert "SchedulingDisabled" not in own_plane.kubectl("get", "node", name)


def test_nodes_can_be_removed_and_made_again(own_plane: Plane):
    names = create_nodes(own_plane, 3, prefix="gone")
    remove_nodes(own_plane, names)
    assert "gone-" not in own_plane.kubectl("get", "nodes")
    remove_nodes(own_plane, names)  # once more does no harm
    assert create_nodes(own_plane, 2, prefix="gone") == create_nodes(own_plane, 2, prefix="gone") == names[:2]


def test_nodes_that_do_not_get_ready_are_reported(own_plane: Plane, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nodes, "READY_SECONDS", 1.0)
    unhealthy = [{"type": "Ready", "status": "False"}]
    monkeypatch.setattr(nodes, "_conditions", lambda _: unhealthy)
    own_plane.pause("kwok")
    try:
        with pytest.raises(PlaneError, match="1 of 1 nodes not Ready: dark-0000"):
            create_nodes(own_plane, 1, prefix="dark")
    finally:
        own_plane.resume("kwok")
    # And kwok makes it Ready when it can.
    own_plane.kubectl("wait", "--for=condition=Ready", "node/dark-0000", "--timeout=60s")


def test_a_service_account_may_only_do_what_its_roles_say(plane: Access, namespace: str):
    plane.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    plane.kubectl("create", "role", "reader", "--verb=list", "--resource=pods", "-n", namespace)
    account = f"{namespace}:operator"
    plane.kubectl(
        "create", "rolebinding", "r", "--role=reader", f"--serviceaccount={account}", "-n", namespace
    )
    config = plane.service_account_kubeconfig(namespace, "operator")
    (user,) = yaml.safe_load(config.read_text())["users"]
    with plane.client(user["user"]["token"]) as client:
        review = client.get(f"/api/v1/namespaces/{namespace}/pods")
        assert review.status_code == httpx.codes.OK
        assert client.get("/api/v1/nodes").status_code == httpx.codes.FORBIDDEN


def test_a_missing_service_account_is_reported(plane: Access, namespace: str):
    with pytest.raises(PlaneError, match=f'{namespace}/ghost.*serviceaccounts \\\\"ghost\\\\" not found'):
        plane.service_account_kubeconfig(namespace, "ghost")


def test_a_kubectl_that_fails_says_what_kubectl_said(plane: Access):
    with pytest.raises(
        PlaneError, match=r"kubectl get ghosts: error: the server doesn't have a resource type"
    ):
        plane.kubectl("get", "ghosts")


def test_the_version_is_the_one_that_was_pinned(plane: Access):
    versions = json.loads(plane.kubectl("version", "-o", "json"))
    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"]
    assert versions["serverVersion"]["gitVersion"].startswith("v1.")


def test_nothing_of_a_stopped_plane_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plane, "_own_directory", lambda _: tmp_path / "own")
    with Plane.start() as started:
        assert programs_of(started.directory) == PROGRAMS
    assert programs_of(started.directory) == set()
    assert not started.directory.exists()
    started.stop()  # once more does no harm


PARENT = """
import pathlib, sys, time
from testbed.plane import Plane
plane = Plane.start(pathlib.Path(sys.argv[1]))
print("started", flush=True)
time.sleep(600)
"""


def test_kill_9_of_the_parent_ends_every_program(tmp_path: Path):
    directory = tmp_path / "plane"
    command = [sys.executable, "-c", PARENT, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        assert programs_of(directory) == PROGRAMS
        os.kill(parent.pid, signal.SIGKILL)
        wait_for(lambda: not programs_of(directory))


def test_a_program_that_fails_is_named_with_the_tail_of_its_log(tmp_path: Path):
    options = PlaneOptions(apiserver_flags=("--no-such-flag",))
    with pytest.raises(PlaneError, match="kube-apiserver ended with code 1") as caught:
        Plane.start(tmp_path, options=options)
    assert "unknown flag: --no-such-flag" in str(caught.value)
    assert programs_of(tmp_path) == set()


def test_etcd_is_blamed_when_it_is_etcd_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(components, "etcd", lambda _: ["--no-such-flag"])
    with pytest.raises(PlaneError, match="etcd ended with code 2") as caught:
        Plane.start(tmp_path)
    assert "no-such-flag" in str(caught.value)


def test_a_plane_that_is_never_ready_is_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plane, "READY_SECONDS", 4.0)
    monkeypatch.setattr(Plane, "_answers", lambda _, __: lambda: False)
    # On a busy machine it may be etcd that takes all of it.
    with pytest.raises(PlaneError, match=r"^[a-z-]+ was not ready after \d s; its log says:\n"):
        Plane.start(tmp_path)
    assert programs_of(tmp_path) == set()


def test_a_large_plane_schedules_pods_and_leaves_their_status_alone(tmp_path: Path):
    with Plane.start(tmp_path, options=PlaneOptions.large()) as large:
        create_nodes(large, 20)
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        with large.client() as client:
            client.post("/api/v1/namespaces/default/pods", json=pod).raise_for_status()
        large.kubectl("wait", "--for=condition=PodScheduled", "pod/p", "--timeout=30s")
        assert large.kubectl("get", "pod", "p", "-o", "jsonpath={.status.phase}") == "Pending"


def test_a_shared_plane_outlives_the_first_and_ends_with_the_last(tmp_path: Path):
    directory = tmp_path / "shared"
    with contextlib.ExitStack() as last:
        with shared_plane(directory, nodes=1) as first:
            second = last.enter_context(shared_plane(directory, nodes=1))
            assert second == first
        assert "gpu-0000" in second.kubectl("get", "nodes")
    wait_for(lambda: not programs_of(directory))


CALLER = """
import pathlib, sys, time
from testbed.shared import shared_plane
with shared_plane(pathlib.Path(sys.argv[1]), nodes=0):
    print("started", flush=True)
    time.sleep(600)
"""


def test_kill_9_of_the_only_caller_ends_a_shared_plane(tmp_path: Path):
    command = [sys.executable, "-c", CALLER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "started\n"
        os.kill(caller.pid, signal.SIGKILL)
    wait_for(lambda: not programs_of(tmp_path))


def test_a_shared_plane_that_cannot_start_says_why(tmp_path: Path):
    (tmp_path / "plane").write_text("a file where a folder must be")
    expected = r"the shared plane did not start; .*host\.log says:\n(.*\n)*.*plane"
    with pytest.raises(PlaneError, match=expected), shared_plane(tmp_path, nodes=0):
        pass
