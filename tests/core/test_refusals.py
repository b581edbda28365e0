"""A refusal that names no field gets one."""

import pytest

from stoker.core.refusals import explain

SAID = "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^…$'"


def pod(memory: object = "8Gi", size: object = "1Gi") -> dict[str, object]:
    """A pod's manifest."""
    container = {"name": "engine", "resources": {"limits": {"nvidia.com/gpu": "1", "memory": memory}}}
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "cache", "emptyDir": {"sizeLimit": size}}]
    return {"kind": "Pod", "spec": {"containers": [container], "volumes": volumes}}


@pytest.mark.parametrize("wrong", ["a lot", "", "8 Gi", "8gb", "1Gi1", "٣"])
def test_the_field_of_a_bad_quantity_is_found(wrong: str):
    found = explain(SAID, pod(memory=wrong))
    assert found.startswith(
        f"spec.containers[0].resources.limits[memory] is {wrong!r}: correct template.spec"
    )
    assert found.endswith(SAID)


def test_every_bad_quantity_is_named():
    found = explain(SAID, pod(memory="much", size="more"))
    assert "limits[memory] is 'much'" in found
    assert "spec.volumes[1].emptyDir.sizeLimit is 'more'" in found


@pytest.mark.parametrize(
    "good", ["1", "1.5", ".5", "1.", "-1", "+1", "500m", "1Ki", "2E", "1e3", "1E-3", 4, 0.5]
)
def test_a_good_quantity_is_not_accused(good: object):
    assert explain(SAID, pod(memory=good)) == SAID


def test_other_refusals_stay_as_they_are():
    assert explain("spec.restartPolicy: Unsupported value", pod(memory="a lot")) == (
        "spec.restartPolicy: Unsupported value"
    )
    assert explain(SAID, None) == SAID
