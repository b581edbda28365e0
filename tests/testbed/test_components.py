"""The programs' command lines, for small and for large planes."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from testbed import components
from testbed.components import Layout, PlaneOptions

LAYOUT = Layout(Path("/plane"), 1, 2, 3, IPv4Network("127.20.0.0/16"))
SMALL = PlaneOptions()
LARGE = PlaneOptions.large()


def flag(arguments: list[str], name: str) -> str:
    """Return the value of the one flag of this name."""
    (value,) = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"--{name}=")]
    return value


def test_every_server_listens_on_this_machine_alone():
    assert flag(components.etcd(LAYOUT), "listen-client-urls") == "http://127.0.0.1:1"
    assert flag(components.kube_apiserver(LAYOUT, SMALL), "bind-address") == "127.0.0.1"
    assert flag(components.kwok(LAYOUT, SMALL), "server-address") == "127.0.0.1:3"


def test_permissions_are_checked_as_in_a_cluster():
    assert flag(components.kube_apiserver(LAYOUT, SMALL), "authorization-mode") == "RBAC"


def test_controllers_that_loopback_pods_would_only_annoy_are_off():
    controllers = flag(components.kube_controller_manager(LAYOUT, SMALL), "controllers").split(",")
    assert controllers[0] == "*"
    assert "-endpointslice-controller" in controllers
    assert "-node-lifecycle-controller" not in controllers


def stages(options: PlaneOptions) -> list[str]:
    arguments = (text.partition("=") for text in components.kwok(LAYOUT, options))
    return [Path(file).name for name, _, file in arguments if name == "--config"]


def test_a_plane_writes_no_leases_that_a_new_kwok_would_wait_for():
    for options in (SMALL, LARGE):
        assert flag(components.kwok(LAYOUT, options), "node-lease-duration-seconds") == "0"
    assert "node-heartbeat.yaml" in stages(SMALL), "without it the node lifecycle controller gives nodes up"


def test_a_large_plane_writes_no_heartbeats_and_taints_no_nodes():
    controllers = flag(components.kube_controller_manager(LAYOUT, LARGE), "controllers").split(",")
    assert {"-node-lifecycle-controller", "-ttl-controller", "-node-ipam-controller"} < set(controllers)
    assert "node-heartbeat.yaml" not in stages(LARGE)
    admission = flag(components.kube_apiserver(LAYOUT, LARGE), "disable-admission-plugins")
    assert admission == "TaintNodesByCondition"


def test_a_large_plane_leaves_pods_to_a_bulk_writer():
    assert stages(LARGE) == ["kwok.yaml", "node.yaml"]


def test_the_slim_scheduler_has_only_the_plugins_that_gpu_pods_need():
    small, large = (yaml.safe_load(components.scheduler_configuration(LAYOUT, o)) for o in (SMALL, LARGE))
    assert "profiles" not in small
    plugins = large["profiles"][0]["plugins"]["multiPoint"]
    assert plugins["disabled"] == [{"name": "*"}]
    assert {"name": "NodeResourcesFit"} in plugins["enabled"]


def test_more_flags_and_controllers_can_be_stated():
    options = PlaneOptions(disabled_controllers=("cronjob-controller",), apiserver_flags=("--v=4",))
    assert "--v=4" in components.kube_apiserver(LAYOUT, options)
    controllers = flag(components.kube_controller_manager(LAYOUT, options), "controllers")
    assert "-cronjob-controller" in controllers


def test_aggregated_apis_are_served_where_they_are_asked_for():
    options = PlaneOptions(aggregation=True)
    arguments = components.kube_apiserver(LAYOUT, options)
    assert flag(arguments, "proxy-client-cert-file") == "/plane/aggregation/tls.crt"
    assert flag(arguments, "requestheader-client-ca-file") == "/plane/aggregation/ca.crt"
    assert flag(arguments, "requestheader-allowed-names") == components.PROXY_CLIENT
    assert not [argument for argument in components.kube_apiserver(LAYOUT, SMALL) if "proxy" in argument]


@pytest.mark.parametrize("file", sorted(components.STAGES.glob("[np]o*.yaml")), ids=lambda file: file.stem)
def test_stages_are_stages_with_names_of_their_own(file: Path):
    documents = list(yaml.safe_load_all(file.read_text()))
    assert {document["kind"] for document in documents} == {"Stage"}
    names = [document["metadata"]["name"] for document in documents]
    assert len(names) == len(set(names))
