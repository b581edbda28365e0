"""Settings: what each variable accepts, and what is said of a bad one."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from stoker import settings
from stoker.settings import Settings, SettingsError, load


def test_an_empty_environment_gives_the_defaults():
    assert load({}) == Settings()
    assert load({"STOKER_WORKERS": "", "STOKER_LOG_LEVEL": "  ", "PATH": "/bin"}) == Settings()


EVERYTHING = {
    "STOKER_PROMETHEUS_URL": "https://mimir.example/prometheus/",
    "STOKER_PROMETHEUS_TIMEOUT_SECONDS": "2.5",
    "STOKER_PROMETHEUS_BEARER_TOKEN_FILE": "/run/token",
    "STOKER_PROMETHEUS_CA_FILE": "/run/ca.pem",
    "STOKER_PROMETHEUS_INSECURE_SKIP_VERIFY": "True",
    "STOKER_PROMETHEUS_HEADERS": "X-Scope-OrgID=team-a, X-Note=a%2Cb%3D",
    "STOKER_NAMESPACES": "ml, chat,ml,",
    "STOKER_SCALING_INTERVAL_SECONDS": "1",
    "STOKER_STALE_AFTER_SECONDS": "90",
    "STOKER_RESYNC_SECONDS": "60",
    "STOKER_WORKERS": "4",
    "STOKER_KUBE_QPS": "0",
    "STOKER_KUBE_BURST": "10",
    "STOKER_KUBE_CONCURRENCY": "8",
    "STOKER_KUBE_TIMEOUT_SECONDS": "5",
    "STOKER_KUBECONFIG": "/home/me/config",
    "STOKER_KUBE_CONTEXT": "prod",
    "STOKER_LISTEN_ADDRESS": "127.0.0.1",
    "STOKER_LISTEN_PORT": "0",
    "STOKER_LOG_FORMAT": "console",
    "STOKER_LOG_LEVEL": "DEBUG",
}
EVERYTHING_READ = Settings(
    prometheus_url="https://mimir.example/prometheus",
    prometheus_timeout_seconds=2.5,
    prometheus_bearer_token_file=Path("/run/token"),
    prometheus_ca_file=Path("/run/ca.pem"),
    prometheus_insecure_skip_verify=True,
    prometheus_headers={"X-Scope-OrgID": "team-a", "X-Note": "a,b="},
    namespaces=("ml", "chat"),
    scaling_interval_seconds=1.0,
    stale_after_seconds=90.0,
    resync_seconds=60.0,
    workers=4,
    kube_qps=0.0,
    kube_burst=10,
    kube_concurrency=8,
    kube_timeout_seconds=5.0,
    kubeconfig=Path("/home/me/config"),
    kube_context="prod",
    listen_address="127.0.0.1",
    listen_port=0,
    log_format="console",
    log_level="debug",
)
BASIC = {"STOKER_PROMETHEUS_USERNAME": "me", "STOKER_PROMETHEUS_PASSWORD_FILE": "/run/password"}
"""Beside a bearer token it would be a contradiction."""


def test_every_setting_can_be_set():
    assert load(EVERYTHING) == EVERYTHING_READ
    assert load(BASIC) == Settings(prometheus_username="me", prometheus_password_file=Path("/run/password"))
    assert {settings.variable(f) for f in fields(Settings)} == {*EVERYTHING, *BASIC}


def test_kubeconfig_counts_when_ours_is_not_set():
    assert load({"KUBECONFIG": "/a"}).kubeconfig == Path("/a")
    assert load({"KUBECONFIG": "/a", "STOKER_KUBECONFIG": "/b"}).kubeconfig == Path("/b")


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("STOKER_PROMETHEUS_URL", "prometheus:9090", "write an address such as"),
        ("STOKER_PROMETHEUS_URL", "ftp://prometheus", "write an address such as"),
        ("STOKER_PROMETHEUS_URL", "http://", "write an address such as"),
        ("STOKER_PROMETHEUS_URL", "http://[::1", "Invalid IPv6"),
        ("STOKER_PROMETHEUS_URL", "http://me:pass@prometheus", "put no password into it"),
        ("STOKER_PROMETHEUS_URL", "http://prometheus/?a=b", "without ?"),
        ("STOKER_PROMETHEUS_TIMEOUT_SECONDS", "0", "a number from 0.1 to 60"),
        ("STOKER_PROMETHEUS_TIMEOUT_SECONDS", "5s", "a number from 0.1 to 60"),
        ("STOKER_PROMETHEUS_TIMEOUT_SECONDS", "nan", "a number from 0.1 to 60"),
        ("STOKER_PROMETHEUS_TIMEOUT_SECONDS", "inf", "a number from 0.1 to 60"),
        ("STOKER_PROMETHEUS_INSECURE_SKIP_VERIFY", "yes", "true or false"),
        ("STOKER_PROMETHEUS_HEADERS", "X-Scope-OrgID", "name=value"),
        ("STOKER_PROMETHEUS_HEADERS", "a b=c", "name=value"),
        ("STOKER_PROMETHEUS_HEADERS", "a=b%0d%0aInjected: 1", "name=value"),
        ("STOKER_NAMESPACES", "ml,Not_A_Name", "'Not_A_Name' is no namespace"),
        ("STOKER_WORKERS", "0", "a whole number from 1 to 256"),
        ("STOKER_WORKERS", "1.5", "a whole number from 1 to 256"),
        ("STOKER_WORKERS", "1_0", "a whole number from 1 to 256"),
        ("STOKER_WORKERS", "9" * 5000, "a whole number from 1 to 256"),
        ("STOKER_LISTEN_PORT", "65536", "from 0 to 65535"),
        ("STOKER_LOG_FORMAT", "xml", "one of json, console"),
        ("STOKER_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_bad_value_is_refused_with_what_to_write(name, value, instead):
    with pytest.raises(SettingsError) as caught:
        load({name: value})
    assert str(caught.value).startswith(name)
    assert instead in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(SettingsError) as caught:
        load({"STOKER_WORKERS": "x", "STOKER_LOG_LEVEL": "x"})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        (
            {
                "STOKER_PROMETHEUS_USERNAME": "me",
                "STOKER_PROMETHEUS_PASSWORD_FILE": "/p",
                "STOKER_PROMETHEUS_BEARER_TOKEN_FILE": "/t",
            },
            "only one of them",
        ),
        ({"STOKER_PROMETHEUS_USERNAME": "me"}, "both or neither"),
        ({"STOKER_PROMETHEUS_PASSWORD_FILE": "/p"}, "both or neither"),
        ({"STOKER_STALE_AFTER_SECONDS": "5"}, "must be longer than STOKER_SCALING_INTERVAL_SECONDS"),
    ],
)
def test_contradictions_are_refused(environ, why):
    with pytest.raises(SettingsError, match=why):
        load(environ)


def test_headers_are_kept_out_of_messages():
    """They often carry a tenant's key."""
    assert "team-key" not in repr(load({"STOKER_PROMETHEUS_HEADERS": "X-Key=team-key"}))
    with pytest.raises(SettingsError) as caught:
        load({"STOKER_PROMETHEUS_HEADERS": "X Key=team-key"})
    assert "team-key" not in str(caught.value)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().workers = 3


def test_a_likely_typing_error_is_found():
    environ = {"STOKER_PROMETHEUS_URI": "x", "STOKER_ZZZZZZZZZZZ": "x", "STOKER_WORKERS": "4", "HOME": "/"}
    assert settings.unknown(environ) == {
        "STOKER_PROMETHEUS_URI": "STOKER_PROMETHEUS_URL",
        "STOKER_ZZZZZZZZZZZ": None,
    }


@pytest.mark.parametrize(
    "name",
    [
        "STOKER_SERVICE_HOST",
        "STOKER_SERVICE_PORT",
        "STOKER_METRICS_SERVICE_PORT_HTTP",
        "STOKER_PORT",
        "STOKER_PORT_8080_TCP",
        "STOKER_PORT_8080_TCP_ADDR",
    ],
)
def test_what_kubernetes_sets_for_services_is_no_typing_error(name):
    assert settings.unknown({name: "tcp://10.0.0.1:8080"}) == {}


def test_the_defaults_can_be_written_as_the_reference_shows_them():
    for spec in fields(Settings):
        setting = spec.metadata["setting"]
        if setting.shown:
            assert load({settings.variable(spec): setting.shown}) == Settings(), spec.name


def test_the_reference_has_a_row_for_each_setting():
    page = settings.reference_markdown()
    for spec in fields(Settings):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{settings.variable(spec)}` |")]
        assert row.count(" | ") == 3
