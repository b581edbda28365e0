"""From the chart's values to the operator's settings: every one arrives, and none is refused there."""

import copy
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from stoker.settings import Settings, load, variable

Json = dict[str, Any]

NOT_FOR_VALUES = {
    # In a pod the service account is the way in, and probes and Service need to know where it listens.
    *("kubeconfig", "kube_context", "listen_address", "listen_port"),
}
CHANGED: Json = {
    "watchNamespaces": ["ml", "chat"],
    "prometheus": {
        "url": "https://mimir.example.com/prometheus",
        "timeoutSeconds": 2.5,
        "basicAuth": {"username": "stoker", "secretName": "mimir", "key": "password"},
        "ca": {"configMapName": "ca", "key": "root.pem"},
        "insecureSkipVerify": True,
        "headers": {"X-Scope-OrgID": "a,b=c d+e%", "X-Other": "1"},
    },
    "scaling": {"intervalSeconds": 2.5, "staleAfterSeconds": 90},
    "controller": {"workers": 4, "resyncSeconds": 86400},
    "kubeApi": {"qps": 0, "burst": 100000, "concurrency": 8, "timeoutSeconds": 20},
    "log": {"format": "console", "level": "debug"},
}
BEARER: Json = {"prometheus": {"bearerToken": {"secretName": "token", "key": "t"}}}

NUMBERS = {
    "prometheus_timeout_seconds": ("prometheus", "timeoutSeconds"),
    "scaling_interval_seconds": ("scaling", "intervalSeconds"),
    "stale_after_seconds": ("scaling", "staleAfterSeconds"),
    "resync_seconds": ("controller", "resyncSeconds"),
    "workers": ("controller", "workers"),
    "kube_qps": ("kubeApi", "qps"),
    "kube_burst": ("kubeApi", "burst"),
    "kube_concurrency": ("kubeApi", "concurrency"),
    "kube_timeout_seconds": ("kubeApi", "timeoutSeconds"),
}


@pytest.fixture
def container(render: Callable[..., list[Json]]) -> Callable[[Json], Json]:
    """The operator's container for these values; its mounts come with their volumes."""

    def rendered(values: Json) -> Json:
        (deployment,) = (obj for obj in render(values) if obj["kind"] == "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (main,) = pod["containers"]
        return main | {
            "mounted": {mount["mountPath"]: volumes[mount["name"]] for mount in main["volumeMounts"]}
        }

    return rendered


def environment(container: Json) -> dict[str, str]:
    return {e["name"]: e["value"] for e in container["env"]}


def test_the_defaults_of_the_chart_are_those_of_the_operator(container):
    assert load(environment(container({}))) == Settings()


def test_every_setting_can_be_changed_by_a_value(container):
    changed = [load(environment(container(values))) for values in (CHANGED, BEARER)]
    default = Settings()
    for spec in fields(Settings):
        moved = any(getattr(settings, spec.name) != getattr(default, spec.name) for settings in changed)
        assert moved == (spec.name not in NOT_FOR_VALUES), spec.name


def test_the_chart_sets_nothing_that_the_operator_does_not_know(container):
    known = {variable(spec) for spec in fields(Settings)}
    for values in ({}, CHANGED, BEARER):
        assert {name for name in environment(container(values)) if name.startswith("STOKER_")} <= known


def test_headers_arrive_as_they_were_written(container):
    settings = load(environment(container(CHANGED)))
    assert dict(settings.prometheus_headers) == CHANGED["prometheus"]["headers"]


@pytest.mark.parametrize(
    ("values", "setting", "kind", "name"),
    [
        (BEARER, "prometheus_bearer_token_file", "secret", "token"),
        (CHANGED, "prometheus_password_file", "secret", "mimir"),
        (CHANGED, "prometheus_ca_file", "configMap", "ca"),
        ({"prometheus": {"ca": {"secretName": "ca"}}}, "prometheus_ca_file", "secret", "ca"),
    ],
)
def test_a_file_that_a_setting_names_is_mounted_there(container, values, setting, kind, name):
    main = container(values)
    file = PurePosixPath(str(getattr(load(environment(main)), setting)))
    volume = main["mounted"][str(file.parent)][kind]
    assert volume.get("secretName", volume.get("name")) == name
    assert [item["path"] for item in volume["items"]] == [file.name]
    assert all("subPath" not in mount for mount in main["volumeMounts"])


def test_a_token_can_be_a_file_that_is_there_already(container):
    path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    main = container({"prometheus": {"bearerToken": {"file": path}}})
    assert str(load(environment(main)).prometheus_bearer_token_file) == path
    assert set(main["mounted"]) == {"/tmp"}


@pytest.mark.parametrize("setting", sorted(NUMBERS))
def test_the_bounds_of_a_number_are_the_operators(chart, setting):
    schema = json.loads((chart / "values.schema.json").read_text())
    (spec,) = (spec for spec in fields(Settings) if spec.name == setting)
    for key in NUMBERS[setting]:
        schema = schema["properties"][key]
    assert f"{schema['minimum']:g} … {schema['maximum']:g}" == spec.metadata["setting"].values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"prometheus": CHANGED["prometheus"] | BEARER["prometheus"]},
            "basicAuth and prometheus.bearerToken exclude each other",
        ),
        (
            {"prometheus": {"bearerToken": {"secretName": "a", "file": "/b"}}},
            "bearerToken: set secretName or file, not both",
        ),
        (
            {"prometheus": {"ca": {"secretName": "a", "configMapName": "b"}}},
            "ca: set secretName or configMapName, not both",
        ),
        (
            {"scaling": {"intervalSeconds": 60, "staleAfterSeconds": 60}},
            "scaling.staleAfterSeconds (60) must be longer than scaling.intervalSeconds (60)",
        ),
        ({"prometheus": {"basicAuth": {"username": "a"}}}, "/prometheus/basicAuth"),
        ({"prometheus": {"url": "prometheus:9090"}}, "/prometheus/url"),
        ({"prometheus": {"headers": {"a b": "c"}}}, "invalid propertyName 'a b'"),
        ({"kubeApi": {"burst": 0}}, "/kubeApi/burst"),
        ({"log": {"level": "loud"}}, "/log/level"),
        ({"watchNamespaces": ["ML"]}, "/watchNamespaces/0"),
    ],
)
def test_what_the_operator_would_refuse_helm_refuses_first(helm, chart, tmp_path, values, said):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(copy.deepcopy(values)))
    refused = helm("template", "x", chart, f"--values={file}")
    assert refused.returncode != 0
    assert said in refused.stderr
