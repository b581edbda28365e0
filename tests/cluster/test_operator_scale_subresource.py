"""`/scale` is for a hand or another autoscaler, where `scaling` is not set; Shadow mode only watches."""

import pytest

from testbed.access import PlaneError
from testbed.engines import EngineFleet
from testbed.prometheus import Prometheus
from tests.cluster.operator_lab import Lab, draining, manifest, scaling, uids
from tests.cluster.operator_load import HeldRequests

NEVER_READY = {"testbed.stoker.dev/fail": "never-ready"}


def test_kubectl_scale_sets_the_number(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=1))
    lab.until_serving(1)
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=3")
    pods = lab.until_serving(3)
    assert lab.verdict("ScalingActive") == "False/Fixed"
    decision = lab.status()["scaling"]["lastDecision"]
    assert (decision["from"], decision["to"], decision["limitedBy"]) == (1, 3, "replicas")

    scale = lab.client.get(
        f"/apis/stoker.dev/v1alpha1/namespaces/{lab.namespace}/modeldeployments/llm/scale"
    ).json()
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 3)
    selected = lab.items("pods", labelSelector=scale["status"]["selector"])
    assert uids(selected) == uids(pods)


def test_kubectl_scale_to_zero_and_back(lab: Lab, engines: EngineFleet):
    lab.start()
    lab.apply(manifest(replicas=1))
    lab.until_serving(1)
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=0")
    lab.until("nothing left", lambda: not lab.pods(live=False))
    lab.until_verdict("Available", "False/ScaledToZero")
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=1")
    lab.until_serving(1)
    lab.until_verdict("Ready", "True/Serving")


def test_kubectl_scale_is_refused_where_scaling_is_set(lab: Lab):
    lab.start()
    lab.apply(manifest(scaling=scaling(1, 4)))
    lab.until_serving(1)
    with pytest.raises(PlaneError) as refused:
        lab.kubectl("scale", "modeldeployment/llm", "--replicas=3")
    assert "replicas and scaling exclude each other" in str(refused.value)
    assert "remove scaling to set the number by hand" in str(refused.value)
    assert "replicas" not in lab.model()["spec"]
    lab.stays("one replica", lambda: len(lab.pods(live=False)) == 1, 2)


def test_replicas_that_never_served_leave_first_and_at_once(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=4, annotations=NEVER_READY))
    pods = lab.until("four pods that load", lambda: len(lab.pods()) == 4 and lab.pods())
    old = pods[0]["metadata"]["name"]
    lab.patch(f"pods/{old}", {"metadata": {"annotations": {"testbed.stoker.dev/fail": None}}})
    served = lab.until_serving(1)
    lab.kubectl("scale", "modeldeployment/llm", "--replicas=1")
    for _ in lab.watch(0):
        lab.until("the others gone", lambda: not any(map(draining, lab.pods())) and len(lab.pods()) == 1)
    assert uids(lab.pods()) == uids(served)


def test_shadow_mode_records_and_changes_nothing(
    lab: Lab, engines: EngineFleet, load: HeldRequests, prometheus: Prometheus
):
    lab.start(prometheus_url=prometheus.url)
    lab.apply(manifest(scaling=scaling(1, 8, mode="Shadow")))
    before = lab.until_serving(1)
    load.put(before[0], 35)
    message = lab.until_verdict("ScalingActive", "False/Shadow")
    lab.until("the decision on record", lambda: lab.status().get("desiredReplicas") == 4)
    lab.until("its message", lambda: "4 replicas would run" in lab.condition("ScalingActive")["message"])
    assert message
    decision = lab.status()["scaling"]["lastDecision"]
    assert (decision["from"], decision["to"]) == (1, 4)
    lab.stays("the same one replica", lambda: uids(lab.pods(live=False)) == uids(before), 4)
    assert lab.status()["readyReplicas"] == 1
    # A hand that switches it on gets what was recorded.
    lab.patch("modeldeployments/llm", {"spec": {"scaling": {"mode": "Active"}}})
    lab.until_serving(4)


def test_shadow_mode_does_not_shrink_what_runs(lab: Lab, engines: EngineFleet, prometheus: Prometheus):
    lab.start(prometheus_url=prometheus.url)
    lab.apply(manifest(replicas=3))
    before = lab.until_serving(3)
    shadow = {"replicas": None, "scaling": scaling(1, 8, mode="Shadow", down="2s")}
    lab.patch("modeldeployments/llm", {"spec": shadow})
    lab.until("a smaller number on record", lambda: lab.status()["desiredReplicas"] == 1)
    lab.stays("all three", lambda: uids(lab.serving()) == uids(before), 4)
