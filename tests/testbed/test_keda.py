"""KEDA's command lines and objects; that it works is seen when `bench.peers` runs."""

import base64
from pathlib import Path

import pytest

from testbed import keda as module
from testbed.access import Access
from testbed.keda import Keda, KedaError


@pytest.fixture
def plane(tmp_path: Path) -> Access:
    return Access(
        directory=tmp_path,
        url="https://127.0.0.1:1",
        ca=tmp_path / "ca",
        kubeconfig=tmp_path / "kubeconfig.yaml",
        admin_token="t",
        pod_cidr="127.16.0.0/16",
        kubectl_path=tmp_path / "kubectl",
    )


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ensure", lambda name: tmp_path / name)


def test_a_plane_without_aggregation_is_refused(plane: Access):
    with pytest.raises(KedaError, match=r"PlaneOptions\(aggregation=True\)"):
        Keda.start(plane)


def test_the_adapter_asks_the_operator_and_registers_where_it_listens(plane: Access):
    folder = plane.directory / "aggregation"
    folder.mkdir()
    (folder / "ca.crt").write_text("authority")
    keda = Keda(plane)
    adapter, operator = keda._adapter_arguments(), keda._operator_arguments()
    (asked,) = [word.partition("=")[2] for word in adapter if word.startswith("--metrics-service-address=")]
    (served,) = [
        word.partition("=")[2] for word in operator if word.startswith("--metrics-service-bind-address=")
    ]
    assert asked.rpartition(":")[2] == served.rpartition(":")[2]
    spec = keda._registration()["spec"]
    assert f"--secure-port={spec['service']['port']}" in adapter
    assert base64.b64decode(spec["caBundle"]) == b"authority"
    service = keda._service()
    assert service["spec"]["ports"][0]["port"] == spec["service"]["port"]
    assert service["metadata"]["name"] == spec["service"]["name"]


def test_both_listen_on_this_machine_alone(plane: Access):
    keda = Keda(plane)
    binds = [word for word in keda._operator_arguments() if "bind-address=" in word]
    assert len(binds) == 3
    assert all("=127.0.0.1:" in word for word in binds)
    assert "--bind-address=127.0.0.1" in keda._adapter_arguments()


def test_the_version_is_the_pinned_one():
    assert Keda.version() == "v2.21.0"
