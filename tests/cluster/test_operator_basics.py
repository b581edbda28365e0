"""A six-line object serves, stays as it is, and goes without a trace."""

import json
from typing import Any

from tests.cluster.operator_lab import Lab, in_routing, is_ready, manifest, names, uids

SIX_LINES = """
apiVersion: stoker.dev/v1alpha1
kind: ModelDeployment
metadata: {name: llama}
spec:
  model: {uri: "hf://meta-llama/Llama-3.1-8B-Instruct"}
  scaling: {maxReplicas: 8}
"""


def versions(lab: Lab) -> dict[str, str]:
    """resourceVersion by uid of everything that the operator may write in the namespace."""
    kinds = ("modeldeployments", "pods", "services", "events")
    return {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for kind in kinds for o in lab.items(kind)}


def test_a_six_line_object_serves(lab: Lab):
    lab.start()
    lab.kubectl("apply", "-f", "-", input=SIX_LINES)
    lab.kubectl("wait", "--for=condition=Ready", "modeldeployment/llama", "--timeout=60s")
    (pod,) = lab.serving("llama")
    assert is_ready(pod)
    assert pod["metadata"]["ownerReferences"][0]["name"] == "llama"
    model = lab.model("llama")
    assert model["status"]["observedGeneration"] == model["metadata"]["generation"]
    assert model["status"]["ready"] == "1/1"
    assert model["status"]["replicaStates"][0]["phase"] == "Serving"
    row = lab.kubectl("get", "modeldeployment", "llama", "--no-headers").split()
    assert "1/1" in row
    assert "Serving" in row


def test_the_service_selects_replicas_in_routing_and_no_others(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=2))
    lab.until_serving(2)
    service = lab.items("services")[0]
    assert service["metadata"]["name"] == "llm"
    assert service["spec"]["selector"] == {
        "stoker.dev/model-deployment": "llm",
        "stoker.dev/serving": "true",
    }
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    # A replica that loads has the label and no readiness; one that leaves is ready and has no label.
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=1")
    leaving = lab.until("one replica out of routing", lambda: [p for p in lab.pods() if not in_routing(p)])
    assert is_ready(leaving[0])
    assert names(leaving)[0] not in names(lab.serving())


def test_applying_the_same_again_changes_nothing(lab: Lab):
    lab.start()
    first = lab.apply(manifest(replicas=2))
    lab.until_serving(2)
    lab.until_verdict("Progressing", "False/Complete")
    before = versions(lab)
    again = lab.apply(manifest(replicas=2))
    assert again["metadata"]["generation"] == first["metadata"]["generation"]
    lab.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(manifest(replicas=2))
    )
    pods = uids(lab.pods())
    lab.stays("the same pods", lambda: uids(lab.pods()) == pods, 3)
    after = versions(lab)
    changed = {uid for uid in before if after.get(uid) != before[uid]}
    assert changed <= {first["metadata"]["uid"]}  # kubectl's own note of the server-side apply


def test_a_quiet_fleet_costs_no_writes(lab: Lab):
    operator = lab.start(resync_seconds="5")
    for name in ("one", "two", "three"):
        lab.apply(manifest(name, replicas=2))
    for name in ("one", "two", "three"):
        lab.until_serving(2, name)
        lab.until_verdict("Progressing", "False/Complete", name)

    def writes() -> float:
        verbs = ("create", "apply", "merge", "delete")
        return sum(operator.metric("stoker_kube_requests_total", verb=verb) for verb in verbs)

    lab.until("writes have ceased", _settled(writes))
    before, written = versions(lab), writes()
    assert written > 0
    lab.stays("quiet", lambda: (versions(lab), writes()) == (before, written), 12)


def _settled(number: Any) -> Any:
    """Whether the number is what it was half a second (five askings) ago."""
    seen: list[float] = []

    def ask() -> bool:
        seen.append(number())
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    return ask


def test_deleting_it_removes_everything(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=3))
    lab.until_serving(3)
    lab.kubectl("delete", "modeldeployment", "llm", "--wait=true", "--timeout=60s")
    lab.until("nothing left", lambda: not (lab.pods(live=False) or lab.items("services")))
    lab.stays("nothing comes back", lambda: not (lab.pods(live=False) or lab.items("services")), 3)


def test_one_deleted_while_the_operator_is_away_is_gone_too(lab: Lab):
    lab.start().kill()
    lab.operator.restart()
    lab.apply(manifest(replicas=2))
    lab.until_serving(2)
    lab.operator.kill()
    lab.kubectl("delete", "modeldeployment", "llm", "--wait=false")
    lab.until("nothing left", lambda: not (lab.pods(live=False) or lab.items("services")))
    lab.operator.restart()
    lab.stays("nothing comes back", lambda: not (lab.pods(live=False) or lab.items("services")), 4)


def test_a_service_that_was_changed_or_deleted_is_put_right(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1))
    lab.until_serving(1)
    selector = lab.items("services")[0]["spec"]["selector"]
    lab.patch("services/llm", {"spec": {"selector": {"stoker.dev/serving": None, "app": "other"}}})
    lab.until("the selector is right again", lambda: lab.items("services")[0]["spec"]["selector"] == selector)
    lab.delete("services/llm")
    lab.until_serving(1)


def test_a_serving_label_that_somebody_changed_is_put_right(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1))
    (pod,) = lab.until_serving(1)
    lab.patch(f"pods/{pod['metadata']['name']}", {"metadata": {"labels": {"stoker.dev/serving": "false"}}})
    (again,) = lab.until_serving(1)
    assert uids([again]) == uids([pod])
