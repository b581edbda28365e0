"""What schedulers and registries say, read."""

from __future__ import annotations

import pytest

from stoker.api.conditions import Reason
from stoker.core.diagnose import Finding, diagnose_pod
from stoker.core.readings import Key
from tests.core.diagnosis_lab import NOW, at, found, unschedulable


class TestScheduling:
    @pytest.mark.parametrize(
        ("message", "reason", "words"),
        [
            (
                "0/5 nodes are available: 3 Insufficient cpu, 2 Insufficient memory.",
                Reason.UNSCHEDULABLE,
                ("3 without enough free cpu", "2 without enough free memory", "ower the request for cpu"),
            ),
            (
                "0/3 nodes are available: 1 node(s) had untolerated taint {a}, 2 Insufficient amd.com/gpu.",
                Reason.INSUFFICIENT_GPUS,
                ("2 without enough free amd.com/gpu, 1 with a taint", "accelerators[].tolerations"),
            ),
            (
                "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
                Reason.UNSCHEDULABLE,
                ("where its volume cannot be used", "kubectl describe pvc"),
            ),
            (
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                Reason.UNSCHEDULABLE,
                ("unbound immediate PersistentVolumeClaims",),
            ),
            (
                '0/1 nodes are available: persistentvolumeclaim "weights" is being deleted.',
                Reason.CONFIG_MISSING,
                ("'weights'", "is being deleted"),
            ),
            (
                "no nodes available to schedule pods",
                Reason.UNSCHEDULABLE,
                ("no nodes available to schedule pods",),
            ),
            (
                "0/3 nodes are available: 1 of a kind yet unknown, 2 Insufficient amd.com/gpu.",
                Reason.INSUFFICIENT_GPUS,
                ("2 without enough free amd.com/gpu, 1 that say 'of a kind yet unknown'",),
            ),
            (
                "0/1 nodes are available: 1 of a kind yet unknown.",
                Reason.UNSCHEDULABLE,
                ("of a kind yet unknown",),
            ),
            ("", Reason.UNSCHEDULABLE, ("no node fits",)),
        ],
    )
    def test_the_schedulers_message_is_read(
        self, message: str, reason: Reason, words: tuple[str, ...]
    ) -> None:
        finding = found(unschedulable(message))
        assert finding.reason is reason
        for word in words:
            assert word in finding.message

    def test_the_reason_does_not_depend_on_the_order_of_obstacles(self) -> None:
        parts = [
            "1 Insufficient nvidia.com/gpu",
            "2 node(s) were unschedulable",
            "3 node(s) had untolerated taint(s)",
        ]
        messages = {
            found(unschedulable(f"0/6 nodes are available: {', '.join(order)}.")).message
            for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]])
        }
        assert len(messages) == 1

    def test_what_is_said_of_preemption_is_left_out(self) -> None:
        assert diagnose_pod(at("unsched", 1), NOW) == Finding(
            Reason.INSUFFICIENT_GPUS,
            "unsched: no node fits: 1 without enough free nvidia.com/gpu. "
            "Add nodes with nvidia.com/gpu, or make another fleet smaller.",
            Key("default", "unsched"),
        )

    def test_two_remedies_are_enough(self) -> None:
        message = (
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint, 1 Too many pods."
        )
        finding = found(unschedulable(message))
        assert "1 full of pods" in finding.message
        assert finding.message.endswith("larger nodes; add the taint to accelerators[].tolerations.")

    def test_a_taint_beside_wrong_labels_may_be_the_control_planes(self) -> None:
        message = (
            "0/41 nodes are available: 1 node(s) had untolerated taint(s), "
            "40 node(s) didn't match Pod's node affinity/selector."
        )
        assert found(unschedulable(message)).message.endswith(
            "Add the taint to accelerators[].tolerations; "
            "correct accelerators[].nodeSelector, or label the nodes."
        )

    def test_a_gate_is_named(self) -> None:
        finding = found(unschedulable("", reason="SchedulingGated"))
        assert finding.reason is Reason.UNSCHEDULABLE
        assert "scheduling gate" in finding.message


def test_a_registrys_words_come_without_their_wrapping() -> None:
    finding = found(at("pull401", 62.4))
    assert "cannot be pulled: connection error" in finding.message
