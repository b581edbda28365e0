"""The way into a plane, as a file."""

import stat
from pathlib import Path

import yaml

from testbed.access import Access, kubeconfig_text


def an_access(directory: Path) -> Access:
    return Access(
        directory=directory,
        url="https://127.0.0.1:20001",
        ca=directory / "certs" / "apiserver.crt",
        kubeconfig=directory / "kubeconfig.yaml",
        admin_token="secret",
        pod_cidr="127.16.0.0/16",
        kubectl_path=Path("/bin/kubectl"),
    )


def test_what_is_saved_can_be_loaded(tmp_path: Path):
    access = an_access(tmp_path)
    access.save(tmp_path / "access.json")
    assert Access.load(tmp_path / "access.json") == access


def test_nobody_else_can_read_the_token(tmp_path: Path):
    an_access(tmp_path).save(tmp_path / "access.json")
    assert stat.S_IMODE((tmp_path / "access.json").stat().st_mode) == 0o600


def test_a_kubeconfig_names_server_certificate_and_token(tmp_path: Path):
    config = yaml.safe_load(kubeconfig_text("https://127.0.0.1:1", tmp_path / "ca.crt", "token", "operator"))
    assert config["clusters"][0]["cluster"] == {
        "server": "https://127.0.0.1:1",
        "certificate-authority": str(tmp_path / "ca.crt"),
    }
    assert config["users"] == [{"name": "operator", "user": {"token": "token"}}]
    assert config["contexts"][0]["name"] == config["current-context"]
