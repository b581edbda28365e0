"""What is applied for each side: the same bounds, target and pods; whatever else, said in the settings."""

import json

from bench.peers import fleets
from bench.peers.fleets import KEDA, STOKER, Contender, Fleet, Side
from stoker.core.parse import deployment_from
from testbed.pods import Pod


def fleet(contender, **changes):
    return Fleet(
        **{"namespace": "f", "contender": contender, "minimum": 2, "maximum": 20, "target": 10, **changes}
    )


def applied(contender, **changes):
    found = fleets.manifests(fleet(contender, **changes), "http://prometheus:9090")
    return {one["kind"]: one for one in found}


def test_both_sides_have_the_same_bounds_and_target():
    stoker = applied(STOKER)["ModelDeployment"]["spec"]["scaling"]
    keda = applied(KEDA)["ScaledObject"]["spec"]
    assert (stoker["minReplicas"], stoker["maxReplicas"]) == (2, 20)
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (2, 20)
    assert stoker["targets"] == {"concurrentRequests": 10}
    assert keda["triggers"][0]["metadata"]["threshold"] == "10"
    assert applied(KEDA)["Deployment"]["spec"]["replicas"] == 2


def test_the_pods_of_both_sides_load_for_as_long():
    stoker = applied(STOKER, load_seconds=60)["ModelDeployment"]["spec"]["template"]["metadata"]
    keda = applied(KEDA, load_seconds=60)["Deployment"]["spec"]["template"]["metadata"]
    name = "testbed.stoker.dev/load-seconds"
    assert stoker["annotations"][name] == keda["annotations"][name] == "60"
    assert stoker["labels"][fleets.FLEET_LABEL] == keda["labels"][fleets.FLEET_LABEL] == "f"
    assert (stoker["labels"][fleets.SIDE_LABEL], keda["labels"][fleets.SIDE_LABEL]) == ("stoker", "keda")


def test_a_deployment_selects_its_pods_and_lets_requests_under_way_end():
    spec = applied(KEDA)["Deployment"]["spec"]
    template = spec["template"]
    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["spec"]["terminationGracePeriodSeconds"] > fleets.KEDA_STOP_SECONDS


def test_the_simulated_engine_of_a_deployment_serves_the_name_that_load_asks_for():
    template = applied(KEDA)["Deployment"]["spec"]["template"]
    manifest = {
        "metadata": {**template["metadata"], "namespace": "f", "name": "p", "uid": "u"},
        "spec": template["spec"],
    }
    pod = Pod.of(manifest)
    assert pod.port == fleets.PORT
    assert pod.command[pod.command.index("--served-model-name") + 1] == fleets.NAME


def test_what_a_contender_is_told_beyond_that_is_applied_and_in_the_settings():
    strict = Contender(
        "strict", Side.KEDA, {"trigger": {"ignoreNullValues": "false"}, "fallback": {"replicas": 6}}
    )
    spec = applied(strict)["ScaledObject"]["spec"]
    assert spec["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
    assert spec["fallback"] == {"replicas": 6}
    assert fleets.settings(fleet(strict))["spec"]["fallback"] == {"replicas": 6}
    patient = Contender("patient", Side.STOKER, {"windows": {"down": "2m"}})
    assert applied(patient)["ModelDeployment"]["spec"]["scaling"]["windows"] == {"down": "2m"}
    assert fleets.settings(fleet(patient))["spec"]["scaling"]["windows"] == {"down": "2m"}


def test_a_stoker_that_is_told_nothing_gets_its_bounds_alone():
    untold = Contender("untold", Side.STOKER, targeted=False)
    assert applied(untold)["ModelDeployment"]["spec"]["scaling"] == {"minReplicas": 2, "maxReplicas": 20}


def test_stoker_accepts_what_is_applied():
    record = deployment_from(
        {**applied(STOKER)["ModelDeployment"], "metadata": {"namespace": "f", "name": "chat", "uid": "u"}}
    )
    assert not record.errors


def test_the_query_is_about_this_fleet_alone():
    assert fleet(KEDA).query == (
        'sum(vllm:num_requests_running{namespace="f"}) + sum(vllm:num_requests_waiting{namespace="f"})'
    )


def test_objects_are_listed_for_kubectl():
    assert json.loads(fleets.listed([fleets.namespace(fleet(KEDA))]))["items"][0]["metadata"]["name"] == "f"
