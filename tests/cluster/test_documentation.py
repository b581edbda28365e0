"""Examples in the documentation: the API server takes each of them."""

import json

import pytest
import yaml

from tests.docs.markdown import ROOT, blocks, model_deployments, pages

EXAMPLES = [
    pytest.param(obj, id=f"{page.relative_to(ROOT)}: {obj['metadata']['name']}")
    for page in pages()
    for obj in model_deployments(page.read_text())
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_api_server_takes_an_example(kubectl, namespace, example):
    metadata = {**example["metadata"], "namespace": namespace}  # some say a namespace of their own
    taken = kubectl(
        "apply",
        "--dry-run=server",
        "--validate=strict",
        f"--namespace={namespace}",
        "--output=name",
        "--filename=-",
        input=json.dumps({**example, "metadata": metadata}),
    )
    assert taken.strip() == f"modeldeployment.stoker.dev/{example['metadata']['name']}"


def test_the_autoscaler_of_the_guide(kubectl, namespace):
    text = (ROOT / "docs" / "how-to" / "use-an-hpa-or-keda.md").read_text()
    objects = [obj for block in blocks(text, "yaml") for obj in yaml.safe_load_all(block)]
    (autoscaler,) = (obj for obj in objects if obj["kind"] == "HorizontalPodAutoscaler")
    where = f"--namespace={namespace}"
    kubectl("apply", "--dry-run=server", "--validate=strict", where, "-f", "-", input=json.dumps(autoscaler))
