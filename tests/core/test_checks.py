"""What single checks say about pods that the recording of a real kubelet lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import ReplicaPhase
from stoker.core import checks
from stoker.core.diagnose import diagnose_pod, phase
from tests.core.diagnosis_lab import NOW, a_pod, condition, container, crashed, found


class TestEngines:
    @pytest.mark.parametrize(
        "words",
        [
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
            "ValueError: Free memory on device cuda:0 is less than desired GPU memory utilization.",
        ],
    )
    def test_gpu_memory_is_told_from_main_memory(self, words: str) -> None:
        finding = found(crashed(words))
        assert finding.reason is Reason.OUT_OF_MEMORY
        assert "GPU memory" in finding.message
        assert "accelerators[].count" in finding.message

    @pytest.mark.parametrize(
        ("words", "remedy"),
        [
            ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "model.secretName"),
            ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "model.uri"),
            ("vllm: error: unrecognized arguments: --max-modle-len", "engine.args"),
            ("OSError: [Errno 28] No space left on device", "storage.cache"),
            ("RuntimeError: The NVIDIA driver on your system is too old", "GPU driver"),
            ("something else", "kubectl logs --previous"),
        ],
    )
    def test_known_last_words_lead_to_a_remedy(self, words: str, remedy: str) -> None:
        finding = found(crashed(words))
        assert finding.reason is Reason.CRASH_LOOP
        assert remedy in finding.message

    def test_the_root_cause_is_quoted_not_the_pointer_to_it(self) -> None:
        log = "ValueError: unsupported head size 7\nRuntimeError: Engine core failed. See root cause above.\n"
        assert "ValueError: unsupported head size 7." in found(crashed(log)).message

    def test_the_last_of_several_errors_is_quoted(self) -> None:
        log = "KeyError: 'a'\n\nDuring handling, another one occurred:\nValueError: b\nbye\n"
        assert "exit code 1: ValueError: b." in found(crashed(log)).message

    def test_an_engine_that_loads_again_after_a_crash_still_shows_it(self) -> None:
        pod = a_pod(
            container(restarts=2, last_exit_code=1, last_message="KeyError: 'x'", last_reason="Error")
        )
        assert "restarted 2 times: KeyError: 'x'" in found(pod).message
        assert phase(pod, NOW) is ReplicaPhase.FAILED

    def test_an_old_crash_of_an_engine_that_is_up_again_is_past(self) -> None:
        up = container(restarts=2, last_exit_code=1, started=True, ready=True)
        assert diagnose_pod(a_pod(up, conditions=(condition("Ready"),)), NOW) is None

    def test_an_engine_that_stops_answering_is_told_from_one_that_never_did(self) -> None:
        silent = a_pod(
            container(started=True),
            conditions=(condition("PodScheduled"), condition("Ready", "False", "ContainersNotReady", ago=90)),
        )
        finding = found(silent)
        assert finding.reason is Reason.REPLICA_FAILED
        assert "has not answered its health check for 90 s, after having served" in finding.message

    def test_a_crash_before_that_is_not_why_it_stops_answering(self) -> None:
        silent = a_pod(
            container(started=True, restarts=1, last_exit_code=1, last_message="KeyError"),
            conditions=(condition("PodScheduled"), condition("Ready", "False", "ContainersNotReady", ago=90)),
        )
        assert found(silent).reason is Reason.REPLICA_FAILED

    def test_the_instant_between_started_and_ready_is_no_fault(self) -> None:
        assert diagnose_pod(a_pod(container(started=True)), NOW) is None

    def test_the_engine_is_named_before_its_sidecars(self) -> None:
        ended = {"state": "terminated", "exit_code": 1}
        pod = a_pod(container(name="a-sidecar", **ended), container(**ended))
        assert ": engine ended" in found(pod).message

    def test_an_init_container_that_is_done_is_no_fault(self) -> None:
        done = container(name="fetch", state="terminated", exit_code=0, reason="Completed")
        assert diagnose_pod(a_pod(container(), init_containers=(done,)), NOW) is None

    def test_init_containers_that_still_work_are_no_fault(self) -> None:
        done = container(name="one", state="terminated", exit_code=0, reason="Completed")
        conditions = (
            condition("PodScheduled"),
            condition("Initialized", "False", "ContainersNotInitialized"),
        )
        pod = a_pod(
            container(state="waiting", reason="PodInitializing"),
            init_containers=(done, container(name="two")),
            conditions=conditions,
        )
        assert diagnose_pod(pod, NOW) is None

    def test_a_pod_that_is_over_tells_what_failed_in_it(self) -> None:
        done = container(name="one", state="terminated", exit_code=0, reason="Completed")
        ended = container(state="terminated", exit_code=1, reason="Error")
        assert (
            "engine ended with exit code 1"
            in found(a_pod(ended, init_containers=(done,), phase="Failed")).message
        )

    def test_a_container_that_may_not_start_as_root_is_not_a_missing_secret(self) -> None:
        message = "container has runAsNonRoot and image will run as root"
        finding = found(
            a_pod(
                container(state="waiting", reason="CreateContainerConfigError", message=message),
                phase="Pending",
            )
        )
        assert finding.reason is Reason.REPLICA_FAILED
        assert message in finding.message

    def test_a_missing_key_of_a_secret_is_named(self) -> None:
        message = "couldn't find key HF_TOKEN in Secret models/hub"
        finding = found(
            a_pod(
                container(state="waiting", reason="CreateContainerConfigError", message=message),
                phase="Pending",
            )
        )
        assert finding.reason is Reason.CONFIG_MISSING
        assert "key HF_TOKEN in Secret models/hub" in finding.message


class TestDepartures:
    @pytest.mark.parametrize(
        ("disruption", "reason", "word"),
        [
            ("DeletionByPodGC", Reason.NODE_LOST, "its node is gone"),
            ("DeletionByTaintManager", Reason.EVICTED, "a taint"),
            ("TerminationByKubelet", Reason.EVICTED, "its node ends it"),
            ("SomethingNew", Reason.EVICTED, "in its own words"),
        ],
    )
    def test_who_takes_it_away_is_named(self, disruption: str, reason: Reason, word: str) -> None:
        target = condition("DisruptionTarget", reason=disruption, message="in its own words")
        finding = found(a_pod(conditions=(target,), deleting_at=NOW + 30))
        assert finding.reason is reason
        assert word in finding.message

    @pytest.mark.parametrize(
        ("reason", "message", "expected"),
        [
            ("OutOfcpu", "Node didn't have enough resource: cpu", Reason.UNSCHEDULABLE),
            ("NodeAffinity", "Predicate NodeAffinity failed", Reason.UNSCHEDULABLE),
            ("UnexpectedAdmissionError", "Pod was rejected: something else", Reason.REPLICA_FAILED),
            ("Terminated", "Pod was terminated in response to imminent node shutdown.", Reason.EVICTED),
            ("Evicted", "The node was low on resource: memory.", Reason.EVICTED),
            ("", "", Reason.REPLICA_FAILED),
            ("SomethingNew", "in its own words", Reason.REPLICA_FAILED),
        ],
    )
    def test_a_failed_pod_says_why(self, reason: str, message: str, expected: Reason) -> None:
        finding = found(a_pod(phase="Failed", reason=reason, message=message))
        assert finding.reason is expected
        assert message.rstrip(".") in finding.message

    def test_a_pod_that_is_over_because_it_was_taken_away_says_so(self) -> None:
        target = condition("DisruptionTarget", reason="TerminationByKubelet")
        ended = container(state="terminated", exit_code=137)
        assert found(a_pod(ended, phase="Failed", conditions=(target,))).reason is Reason.EVICTED

    def test_a_node_that_is_not_lost_is_not_said_to_be(self) -> None:
        # A status without a reason, and no container that was ready: there is nothing to be lost.
        pod = a_pod(container(), conditions=(condition("PodScheduled"), condition("Ready", "False")))
        assert diagnose_pod(pod, NOW) is None


def test_a_kubelet_that_restarts_after_hours_says_nothing_about_its_pods() -> None:
    assert diagnose_pod(a_pod(created_at=NOW - 86_400, conditions=()), NOW) is None


def test_a_start_up_budget_is_over_when_the_kubelet_says_so() -> None:
    waiting = a_pod(container(), created_at=NOW - checks.NEVER_READY_SECONDS, conditions=())
    assert diagnose_pod(replace(waiting, phase="Pending"), NOW) is not None
    assert diagnose_pod(replace(waiting, phase="Pending"), NOW - 1) is None
    assert diagnose_pod(replace(waiting, phase="Pending", created_at=0.0), NOW) is None  # unknown is not 1970
