"""The configuration that the testbed's Prometheus gets."""

from pathlib import Path

import pytest

from testbed.access import Access
from testbed.prometheus import configuration


@pytest.fixture
def plane(tmp_path: Path) -> Access:
    return Access(
        directory=tmp_path,
        url="https://127.0.0.1:1",
        ca=tmp_path / "ca.crt",
        kubeconfig=tmp_path / "kubeconfig.yaml",
        admin_token="secret",
        pod_cidr="127.16.0.0/16",
        kubectl_path=tmp_path / "kubectl",
    )


def discovery(config: dict) -> dict:
    """Return the way in which the one job finds pods."""
    (job,) = config["scrape_configs"]
    (found,) = job["kubernetes_sd_configs"]
    return found


def test_pods_of_every_namespace_by_default(plane: Access):
    assert discovery(configuration(plane, None, "5s")) == {
        "role": "pod",
        "kubeconfig_file": str(plane.kubeconfig),
    }


def test_only_the_namespaces_asked_for(plane: Access):
    assert discovery(configuration(plane, ["a", "b"], "5s"))["namespaces"] == {"names": ["a", "b"]}


def test_no_namespace_is_not_every_namespace(plane: Access):
    assert discovery(configuration(plane, [], "5s"))["namespaces"] == {"names": []}


def test_series_carry_namespace_and_pod_and_nothing_exotic(plane: Access):
    (job,) = configuration(plane, None, "15s")["scrape_configs"]
    targets = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    assert {label for label in targets if not label.startswith("__")} == {"namespace", "pod"}


def test_the_interval_is_the_one_asked_for(plane: Access):
    assert configuration(plane, None, "15s")["global"]["scrape_interval"] == "15s"
