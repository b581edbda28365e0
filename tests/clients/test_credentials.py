"""Credentials: which source counts, what is said when none is usable, and that reloading never gives up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from stoker.clients import credentials
from stoker.clients.credentials import UnconfiguredError, keep_fresh, load


@pytest.fixture(autouse=True)
def _no_pod(monkeypatch, tmp_path):
    """The machine's own kubeconfig and service account play no part."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
    monkeypatch.setattr(
        "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "home")
    )


def written(path: Path, *, token: str = "secret", server: str = "https://one.example") -> Path:
    """A kubeconfig with two contexts; the current one is `one`."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "one", "cluster": {"server": server}},
                    {"name": "two", "cluster": {"server": "https://two.example"}},
                ],
                "users": [{"name": "me", "user": {"token": token}}],
                "contexts": [{"name": n, "context": {"cluster": n, "user": "me"}} for n in ("one", "two")],
                "current-context": "one",
            }
        )
    )
    return path


def token_of(configuration: Configuration) -> str:
    return str(configuration.api_key["BearerToken"])


@pytest.mark.parametrize(
    ("context", "host"),
    [(None, "https://one.example"), ("two", "https://two.example")],
    ids=["current", "named"],
)
async def test_a_kubeconfig_gives_address_and_token(tmp_path, context, host):
    found = await load(written(tmp_path / "config"), context, connections=7)

    assert (found.host, token_of(found)) == (host, "Bearer secret")


async def test_the_clients_own_rules_are_set(tmp_path):
    """No retries (the controller knows which calls still matter), no ~/.netrc, so many connections."""
    found = await load(written(tmp_path / "config"), None, connections=7)

    assert found.connection_pool_maxsize == 7
    assert found.retries is None
    assert found.client_session_kwargs == {"trust_env": False}


async def test_two_clients_share_nothing(tmp_path):
    one = await load(written(tmp_path / "a"), None, connections=1)
    other = await load(written(tmp_path / "b", token="other"), None, connections=1)

    assert (token_of(one), token_of(other)) == ("Bearer secret", "Bearer other")


@pytest.mark.parametrize(
    ("content", "context", "setting"),
    [
        (None, None, "STOKER_KUBECONFIG"),
        ("", None, "STOKER_KUBECONFIG"),
        ("{", None, "STOKER_KUBECONFIG"),
        ("clusters: []", None, "STOKER_KUBECONFIG"),
        ("good", "prod", "STOKER_KUBE_CONTEXT"),
    ],
    ids=["no such file", "empty", "no YAML", "nothing in it", "no such context"],
)
async def test_what_cannot_be_used_says_which_and_what_to_set(tmp_path, content, context, setting):
    file = tmp_path / "config"
    if content == "good":
        written(file)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(UnconfiguredError) as caught:
        await load(file, context, connections=1)

    assert str(file) in str(caught.value)
    assert f"set {setting}" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_neither_pod_nor_kubeconfig_says_what_to_set():
    with pytest.raises(UnconfiguredError, match=r"the default kubeconfig.*STOKER_KUBECONFIG"):
        await load(None, None, connections=1)


class TestInAPod:
    @pytest.fixture(autouse=True)
    def _pod(self, monkeypatch):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    async def test_the_service_account_counts(self, monkeypatch):
        def account(client_configuration):
            client_configuration.host = "https://10.0.0.1"

        monkeypatch.setattr(config, "load_incluster_config", account)

        assert (await load(None, None, connections=1)).host == "https://10.0.0.1"

    async def test_a_kubeconfig_that_is_set_counts_before_it(self, tmp_path):
        found = await load(written(tmp_path / "config"), None, connections=1)

        assert found.host == "https://one.example"

    @pytest.mark.parametrize("error", [config.ConfigException("no token"), PermissionError("no token")])
    async def test_an_account_that_cannot_be_read_says_what_to_set(self, monkeypatch, error):
        def account(client_configuration):
            raise error

        monkeypatch.setattr(config, "load_incluster_config", account)
        with pytest.raises(UnconfiguredError, match=r"no token.*automountServiceAccountToken"):
            await load(None, None, connections=1)


async def test_reloading_takes_the_new_token_and_survives_a_broken_file(tmp_path, monkeypatch, caplog):
    """Each turn of the loop changes the file first: broken, then with another token; then it is cancelled."""
    file = written(tmp_path / "config")
    configuration = await load(file, None, connections=1)
    tokens: list[str] = []

    async def pause(seconds: float) -> None:
        assert seconds == credentials.RELOAD_SECONDS
        tokens.append(token_of(configuration))
        if len(tokens) == 1:
            file.write_text("{")
        elif len(tokens) == 2:
            written(file, token="rotated")
        else:
            raise asyncio.CancelledError

    monkeypatch.setattr(credentials.asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await keep_fresh(configuration, file, None)

    assert tokens == ["Bearer secret", "Bearer secret", "Bearer rotated"]
    assert ["could not be read again" in r.getMessage() for r in caplog.records] == [True]
