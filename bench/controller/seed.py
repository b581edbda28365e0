"""A fleet as the operator would have made it, made in bulk: for sizes whose creation is not to be measured.

The manifests are the operator's own (`stoker.core.resources`), so that it finds nothing to correct and only
writes the statuses.
"""

from collections.abc import Iterator

from bench.controller import bulk, fleet
from stoker.core import resources
from stoker.core.observed import ModelDeployment
from stoker.core.parse import deployment_from
from testbed.access import Access


def pods_and_services(plane: Access, nodes: list[str]) -> Iterator[bulk.Request]:
    """Yield the requests that create every pod, on a node already, and every Service.

    Args:
        plane: where the ModelDeployments are.
        nodes: to spread the pods over.
    """
    number = 0
    for obj in bulk.objects(plane, fleet.COLLECTION):
        deployment = deployment_from(obj)
        yield _request("services", resources.service(deployment))
        for ordinal in range(fleet.REPLICAS):
            yield _request("pods", _pod(deployment, ordinal, nodes[number % len(nodes)]))
            number += 1


def _pod(deployment: ModelDeployment, ordinal: int, node: str) -> bulk.Object:
    pod = resources.pod(deployment, deployment.revision, ordinal, 0)
    return {**pod, "spec": {**pod["spec"], "nodeName": node}}


def _request(collection: str, manifest: bulk.Object) -> bulk.Request:
    namespace = manifest["metadata"]["namespace"]
    path = f"/api/v1/namespaces/{namespace}/{collection}?fieldManager=stoker"
    return bulk.Request("POST", path, manifest)
