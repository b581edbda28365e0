"""What the chart renders."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from stoker import __version__
from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core import resources
from stoker.core.observed import ModelDeployment
from stoker.core.readings import Key

Json = dict[str, Any]

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
EVERY_SWITCH: Json = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}


def one(objects: list[Json], kind: str) -> Json:
    (found,) = (obj for obj in objects if obj["kind"] == kind)
    return found


def pod_spec(objects: list[Json]) -> Json:
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def container(objects: list[Json]) -> Json:
    (found,) = pod_spec(objects)["containers"]
    return found


def matches(selector: Json, labels: Json) -> bool:
    """Whether a label selector of matchLabels and Exists expressions selects these labels."""
    assert all(e["operator"] == "Exists" for e in selector.get("matchExpressions", []))
    return selector["matchLabels"].items() <= labels.items() and all(
        expression["key"] in labels for expression in selector.get("matchExpressions", [])
    )


def replica() -> Json:
    """A pod as Stoker makes it."""
    spec = ModelDeploymentSpec.model_validate({"model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}})
    owner = ModelDeployment(
        key=Key("models", "llama"), uid="1", generation=1, created_at=0.0, deleting=False, spec=spec
    )
    return resources.pod(owner, resources.revision("llama", spec), 0, 0)


# --- The chart itself ----------------------------------------------------------------------------


def test_helm_finds_nothing_to_complain_of(helm, chart):
    result = helm("lint", "--strict", chart)
    assert result.returncode == 0, result.stdout
    assert "[WARNING]" not in result.stdout


def test_its_version_is_the_operators(chart):
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (metadata["version"], metadata["appVersion"]) == (__version__, __version__)


# --- The CRD -------------------------------------------------------------------------------------


def test_the_crd_is_the_projects_and_survives_an_uninstall(render, repository):
    ours = yaml.safe_load((repository / "crds" / "stoker.dev_modeldeployments.yaml").read_text())
    theirs = one(render(), "CustomResourceDefinition")
    assert theirs["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert theirs["metadata"].pop("labels")["app.kubernetes.io/name"] == "stoker"
    assert theirs == ours


def test_the_crd_can_go_with_the_release(render):
    crd = one(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in crd["metadata"]


def test_the_crd_can_be_somebody_elses(render):
    assert "CustomResourceDefinition" not in {obj["kind"] for obj in render({"crds": {"install": False}})}


# --- Scope ---------------------------------------------------------------------------------------


def test_with_namespaces_nothing_is_cluster_wide(render):
    objects = render({"crds": {"install": False}, "watchNamespaces": ["ml", "stoker-system"]})
    assert not CLUSTER_SCOPED & {obj["kind"] for obj in objects}
    where = {(obj["kind"], obj["metadata"]["namespace"]) for obj in objects if obj["kind"].startswith("Role")}
    assert where == {
        (kind, namespace) for kind in ("Role", "RoleBinding") for namespace in ("ml", "stoker-system")
    }
    env = {e["name"]: e["value"] for e in container(objects)["env"]}
    assert env["STOKER_NAMESPACES"] == "ml,stoker-system"


def test_without_namespaces_there_is_one_cluster_role_and_no_role(render):
    kinds = [obj["kind"] for obj in render()]
    assert kinds.count("ClusterRole") == kinds.count("ClusterRoleBinding") == 1
    assert not {"Role", "RoleBinding"} & set(kinds)


@pytest.mark.parametrize("watch", [[], ["ml"]])
def test_releases_in_two_namespaces_do_not_collide(render, watch):
    values = {"crds": {"install": False}, "watchNamespaces": watch}

    def names(namespace: str) -> set[tuple[str, str, str]]:
        objects = [obj["metadata"] | {"kind": obj["kind"]} for obj in render(values, namespace=namespace)]
        return {(obj["kind"], obj.get("namespace", ""), obj["name"]) for obj in objects}

    assert not names("one") & names("two")


def test_every_binding_joins_its_role_and_the_service_account(render):
    for watch in ([], ["ml", "stoker-system"]):
        objects = render({"watchNamespaces": watch})
        account = one(objects, "ServiceAccount")["metadata"]
        roles = {
            (obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"])
            for obj in objects
            if obj["kind"] in {"Role", "ClusterRole"}
        }
        bindings = [obj for obj in objects if obj["kind"].endswith("RoleBinding")]
        assert {
            (obj["roleRef"]["kind"], obj["metadata"].get("namespace"), obj["roleRef"]["name"])
            for obj in bindings
        } == roles
        for binding in bindings:
            (subject,) = binding["subjects"]
            assert (subject["namespace"], subject["name"]) == (account["namespace"], account["name"])
        assert pod_spec(objects)["serviceAccountName"] == account["name"]


def test_roles_can_be_an_administrators(render):
    assert not [obj for obj in render({"rbac": {"create": False}}) if "Role" in obj["kind"]]


def test_an_account_of_somebody_elses_has_to_be_named(render, helm, chart):
    objects = render({"serviceAccount": {"create": False, "name": "theirs"}})
    assert pod_spec(objects)["serviceAccountName"] == "theirs"
    assert "ServiceAccount" not in {obj["kind"] for obj in objects}
    refused = helm("template", "x", chart, "--set=serviceAccount.create=false")
    assert "serviceAccount.name: name the ServiceAccount to use" in refused.stderr


def test_every_object_is_in_the_releases_namespace_or_in_a_watched_one(render):
    for obj in render(EVERY_SWITCH | {"watchNamespaces": ["ml"]}):
        if obj["kind"] not in CLUSTER_SCOPED:
            allowed = {"stoker-system", "ml"} if obj["kind"].startswith("Role") else {"stoker-system"}
            assert obj["metadata"]["namespace"] in allowed, obj["kind"]


# --- The pod -------------------------------------------------------------------------------------


def test_two_operators_never_run_at_once(render):
    spec = one(render(), "Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_pod_keeps_to_the_restricted_standard_and_writes_only_to_tmp(render):
    pod, main = pod_spec(render()), container(render())
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount["mountPath"] for mount in main["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]


def test_the_platform_can_choose_the_user_but_never_root(render, helm, chart):
    unset = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    context = pod_spec(render(unset))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    refused = helm("template", "x", chart, "--set=podSecurityContext.runAsUser=0")
    assert "/podSecurityContext/runAsUser" in refused.stderr


def test_probes_and_service_meet_the_port_that_the_operator_listens_on(render):
    objects = render()
    main = container(objects)
    (port,) = main["ports"]
    assert port["containerPort"] == 8080
    assert main["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert main["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    service = one(objects, "Service")["spec"]
    assert [p["targetPort"] for p in service["ports"]] == [port["name"]]
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert one(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_an_upgrade_leaves_the_immutable_selector_alone(render):
    selector = one(render({"nameOverride": "", "podLabels": {"a": "b"}}), "Deployment")["spec"]["selector"]
    assert set(selector["matchLabels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, f"stoker:{__version__}"),
        ({"repository": "example.com:5000/a/stoker", "tag": "edge"}, "example.com:5000/a/stoker:edge"),
        ({"digest": "sha256:" + "0" * 64}, f"stoker:{__version__}@sha256:" + "0" * 64),
    ],
)
def test_the_image(render, image, reference):
    assert container(render({"image": image}))["image"] == reference


def test_what_the_user_adds_to_the_pod_arrives(render):
    added: Json = {
        "podLabels": {"team": "ml"},
        "podAnnotations": {"prometheus.io/scrape": "false", "note": "a"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    }
    objects = render(added)
    template, pod, main = (
        one(objects, "Deployment")["spec"]["template"]["metadata"],
        pod_spec(objects),
        container(objects),
    )
    assert template["labels"]["team"] == "ml"
    assert template["annotations"]["prometheus.io/scrape"] == "false"
    assert template["annotations"]["prometheus.io/port"] == "8080"
    for key in ("priorityClassName", "nodeSelector", "tolerations", "affinity", "imagePullSecrets"):
        assert pod[key] == added[key]
    assert added["extraEnv"][0] in main["env"]
    assert added["extraVolumes"][0] in pod["volumes"]
    assert added["extraVolumeMounts"][0] in main["volumeMounts"]


# --- Monitors ------------------------------------------------------------------------------------


def test_no_monitor_where_there_may_be_no_prometheus_operator(render):
    assert not [obj for obj in render() if obj["apiVersion"].startswith("monitoring.")]


def test_the_pod_monitor_finds_the_pods_that_stoker_makes_and_not_the_operator(render):
    objects = render(EVERY_SWITCH)
    monitor, pod = one(objects, "PodMonitor")["spec"], replica()
    assert matches(monitor["selector"], pod["metadata"]["labels"])
    assert not matches(
        monitor["selector"], one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    )
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    (relabeling,) = endpoint["relabelings"]
    assert relabeling["targetLabel"] == "__metrics_path__"
    annotation = relabeling["sourceLabels"][0].removeprefix("__meta_kubernetes_pod_annotation_")
    assert annotation in {key.translate(str.maketrans("./", "__")) for key in pod["metadata"]["annotations"]}


@pytest.mark.parametrize(
    ("watch", "selector"), [([], {"any": True}), (["ml", "chat"], {"matchNames": ["ml", "chat"]})]
)
def test_the_pod_monitor_looks_where_stoker_works(render, watch, selector):
    monitor = one(render(EVERY_SWITCH | {"watchNamespaces": watch}), "PodMonitor")
    assert monitor["spec"]["namespaceSelector"] == selector


def test_the_service_monitor_finds_the_service(render):
    objects = render(EVERY_SWITCH | {"serviceMonitor": {"enabled": True, "labels": {"release": "kps"}}})
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")
    assert matches(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]
    assert monitor["metadata"]["labels"]["release"] == "kps"


# --- The schema of the values ----------------------------------------------------------------------


def blocks(values: Json, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all maps in values.yaml that have keys of their own."""
    inner = [blocks(v, (*path, k)) for k, v in values.items() if isinstance(v, dict) and v]
    return [path, *(found for paths in inner for found in paths)]


FREE = {("resources", "requests"), ("resources", "limits")}


def test_no_unknown_key_passes_anywhere(chart):
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    checker = jsonschema.Draft7Validator(schema)
    checker.validate(values)
    for path in set(blocks(values)) - FREE:
        wrong = yaml.safe_load((chart / "values.yaml").read_text())
        inner = wrong
        for key in path:
            inner = inner[key]
        inner["unknwon"] = "x"
        assert not checker.is_valid(wrong), path


def test_the_schema_knows_the_same_keys_as_the_values(chart):
    schema = json.loads((chart / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load((chart / "values.yaml").read_text())
    assert set(schema) - {"global"} == set(values)
    for key, value in values.items():
        if "properties" in schema[key] and isinstance(value, dict) and key != "resources":
            assert set(schema[key]["properties"]) == set(value), key


def test_helm_itself_refuses_an_unknown_key_by_name(helm, chart):
    refused = helm("template", "x", chart, "--set=promethus.url=http://a")
    assert refused.returncode != 0
    assert "additional properties 'promethus' not allowed" in refused.stderr


def test_the_chart_can_be_a_dependency_of_another(chart):
    """Helm gives `global` to every dependency, so a schema without it would refuse each of them."""
    values = yaml.safe_load((chart / "values.yaml").read_text()) | {"global": {"region": "eu"}}
    jsonschema.Draft7Validator(json.loads((chart / "values.schema.json").read_text())).validate(values)
