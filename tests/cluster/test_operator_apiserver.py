"""The API server dies, hangs and comes back, and what happened meanwhile is noticed.

On a control plane of its own, which the tests of this file share: they harm it.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.nodes import create_nodes
from testbed.operator_access import grant, install_crds
from testbed.plane import Plane
from tests.cluster.operator_lab import ANNOTATION, Lab, manifest, names, uids

NAMESPACES = 6


@pytest.fixture(scope="module")
def own_plane(repository: Path) -> Iterator[Plane]:
    """A small control plane that may be harmed."""
    with Plane.start() as plane:
        install_crds(plane, repository / "crds")
        create_nodes(plane, 4)
        yield plane


@pytest.fixture(scope="module")
def namespaces(own_plane: Plane) -> list[str]:
    """Namespaces made before the harm: afterwards the controllers take half a minute to come back."""
    names = [f"test-{number}" for number in range(NAMESPACES)]
    for name in names:
        own_plane.kubectl("create", "namespace", name)
    for name in names:
        own_plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    return names


@pytest.fixture
def lab(own_plane: Plane, namespaces: list[str], tmp_path: Path) -> Iterator[Lab]:
    """A namespace on that plane, with an operator under its chart's ServiceAccount."""
    namespace = namespaces.pop()
    place = Lab(own_plane, namespace, tmp_path, grant(own_plane, namespace, [namespace]))
    yield place
    place.close()
    own_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def test_the_operator_survives_an_outage_of_the_api_server(lab: Lab, own_plane: Plane):
    operator = lab.start()
    lab.apply(manifest(replicas=2))
    before = uids(lab.until_serving(2))
    pid = operator.pid
    own_plane.kill_apiserver()
    time.sleep(12)  # long enough for every watch and every request to have failed more than once
    assert operator.running
    assert operator.healthy(), "an API server that is away is no reason to restart the operator"
    own_plane.start_apiserver()
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=4")
    after = uids(lab.until_serving(4))
    assert before <= after
    assert operator.pid == pid
    lab.apply(manifest("later", replicas=1))
    lab.until_serving(1, "later")


def test_an_api_server_that_hangs_is_given_up_and_found_again(lab: Lab, own_plane: Plane):
    operator = lab.start(kube_timeout_seconds="2", kube_qps="4", kube_burst="1")
    lab.apply(manifest(replicas=1))
    before = uids(lab.until_serving(1))
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=9")
    lab.until("the first of them", lambda: len(lab.pods()) >= 3)
    own_plane.pause("kube-apiserver")
    given_up = [operator.metric("stoker_kube_requests_total", code="timeout") for _ in lab.watch(8, pause=1)]
    healthy = operator.healthy()
    own_plane.resume("kube-apiserver")
    assert given_up[-1] > 0, "writes were under way"
    assert healthy, "an API server that hangs is no reason to restart the operator"
    assert before <= uids(lab.until_serving(9))
    lab.stays("nine", lambda: len(lab.pods(live=False)) == 9, 3)


def test_a_write_that_was_under_way_when_the_api_server_died_is_done_once(lab: Lab, own_plane: Plane):
    # At most a pod a second, and none moves once it has a node: no event makes the operator look again.
    lab.start(kube_qps="1", kube_burst="1")
    lab.apply(manifest(replicas=8, annotations={f"{ANNOTATION}/image-pull-seconds": "3600"}))
    lab.until("some of eight pods", lambda: len([p for p in lab.pods() if "nodeName" in p["spec"]]) >= 3)
    own_plane.kill_apiserver()
    time.sleep(8)  # long enough for the writes to have failed more than once
    own_plane.start_apiserver()
    assert len(lab.pods()) < 8, "killed too late for this test to mean anything"
    lab.until("eight pods", lambda: len(lab.pods()) == 8)
    lab.stays("eight", lambda: len(lab.pods(live=False)) == 8, 3)
    assert {pod["metadata"]["labels"]["stoker.dev/ordinal"] for pod in lab.pods()} == set("01234567")


@pytest.mark.parametrize("kind", ["pod", "service", "modeldeployment"])
def test_a_deletion_while_the_watches_were_broken_is_noticed(lab: Lab, own_plane: Plane, kind: str):
    operator = lab.start(resync_seconds="5")
    lab.apply(manifest(replicas=2))
    pods = lab.until_serving(2)
    lab.until_verdict("Progressing", "False/Complete")
    # A new API server has no history: it tells a watch that goes on to list again, and a list has no word of
    # what is gone. Killed before the deletion, it cannot have sent it to the operator's sockets either.
    operator.signal(signal.SIGSTOP)
    own_plane.kill_apiserver()
    own_plane.start_apiserver()
    name = {"pod": names(pods)[0], "service": "llm", "modeldeployment": "llm"}[kind]
    lab.kubectl("delete", kind, name, "--grace-period=0", "--force", "--wait=true")
    if kind == "modeldeployment":
        lab.until("its pods gone", lambda: not lab.pods(live=False), 120)
    operator.signal(signal.SIGCONT)
    if kind == "modeldeployment":
        lab.until("forgotten", lambda: not operator.metric("stoker_replicas_desired"))
        lab.stays("nothing comes back", lambda: not lab.pods(live=False), 6)
        return
    after = lab.until_serving(2, seconds=90)
    assert (name not in names(pods)) or uids(pods[:1]).isdisjoint(uids(after))
