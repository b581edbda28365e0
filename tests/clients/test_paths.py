"""Resource paths of the API server."""

import pytest

from stoker.clients import paths
from stoker.clients.errors import Call


@pytest.mark.parametrize(
    ("api_version", "kind", "namespace", "path"),
    [
        ("v1", "Pod", "ml", "/api/v1/namespaces/ml/pods"),
        ("v1", "Pod", None, "/api/v1/pods"),
        ("v1", "Node", None, "/api/v1/nodes"),
        ("events.k8s.io/v1", "Event", "ml", "/apis/events.k8s.io/v1/namespaces/ml/events"),
        (
            "stoker.dev/v1alpha1",
            "ModelDeployment",
            "ml",
            "/apis/stoker.dev/v1alpha1/namespaces/ml/modeldeployments",
        ),
    ],
)
def test_collections(api_version, kind, namespace, path):
    assert paths.collection(api_version, kind, namespace)[1] == path


def test_an_object_and_its_subresource():
    call, path = paths.on_object("apply", "v1", "Pod", "ml", "a", subresource="status")
    assert path == "/api/v1/namespaces/ml/pods/a/status"
    assert call == Call("apply", "pods/status", "ml", "a")


def test_a_name_cannot_leave_its_place():
    _, path = paths.on_object("get", "v1", "Pod", "../kube-system", "../../nodes?x=#")
    assert path == "/api/v1/namespaces/..%2Fkube-system/pods/..%2F..%2Fnodes%3Fx%3D%23"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("v1", "Secret", "ml", "a"), "add it there"),
        (("v1", "Node", "ml", "a"), "cluster-scoped"),
        (("v1", "Pod", None, "a"), "give its namespace"),
        (("v1", "Pod", "", "a"), "give its namespace"),
    ],
)
def test_a_wrong_place_is_a_mistake_of_the_caller(arguments, why):
    with pytest.raises(ValueError, match=why):
        paths.on_object("get", *arguments)
