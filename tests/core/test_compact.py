from stoker.api.v1alpha1 import Condition, ModelDeploymentStatus
from stoker.core.compact import compact, text
from stoker.core.parse import pod_from
from tests.factories import manifest


def fresh(value: str) -> str:
    """An equal text that is another object, as JSON brings it."""
    return "".join(list(value))


def status() -> ModelDeploymentStatus:
    condition = {
        "type": fresh("Ready"),
        "status": "True",
        "lastTransitionTime": "2027-01-15T06:00:00Z",
        "reason": fresh("Serving of four"),
        "message": fresh("4 replicas serving"),
    }
    return ModelDeploymentStatus.model_validate({"replicas": 4, "conditions": [condition]})


def test_nothing_changes_its_value():
    assert compact(status()) == status()
    assert compact(status()).model_dump_json() == status().model_dump_json()


def test_equal_texts_are_one():
    one, other = compact(status()).conditions[0], compact(status()).conditions[0]
    assert one.message is other.message
    assert one.reason is other.reason
    assert status().conditions[0].message is not one.message


def test_a_copy_knows_its_own_fields_and_no_others_do():
    first = compact(status())
    copied = first.model_copy(update={"replicas": 5})
    assert copied.replicas == 5
    assert copied.model_fields_set == {"replicas"}
    assert compact(status()).model_fields_set == set()


def test_a_text_is_kept_once_and_what_is_none_is_empty():
    assert text(fresh("gpu node")) is text(fresh("gpu node"))
    assert [text(value) for value in (None, 3, {})] == ["", "", ""]


def test_pods_share_what_they_say_alike():
    def pod(name):
        labels = {"stoker.dev/model-deployment": fresh("a model"), "stoker.dev/revision": fresh("rev 1")}
        condition = {"type": fresh("a type"), "status": "True", "lastTransitionTime": "2027-01-15T06:00:00Z"}
        found = pod_from(
            manifest(name)
            | {
                "metadata": {"namespace": "ml", "name": name, "labels": labels},
                "status": {"conditions": [condition]},
            }
        )
        assert found is not None
        return found

    one, other = pod("a"), pod("b")
    assert one.owner is other.owner
    assert one.revision is other.revision
    assert one.conditions[0] is other.conditions[0]


def test_conditions_that_differ_in_time_alone_are_two():
    times = ("2027-01-15T06:00:00Z", "2027-01-15T06:00:01Z")
    first, second = (
        Condition(type="Ready", status="True", reason="Serving", last_transition_time=t) for t in times
    )
    assert compact(first) != compact(second)
