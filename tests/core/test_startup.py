"""Time to ready: measured once per pod, split into its parts, and known after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.v1alpha1 import StartupPart, StartupStatus
from stoker.core.observed import ContainerStatus, Pod, PodCondition, StartUps
from stoker.core.startup import DEFAULT_SECONDS, KEEP, Start, measured, remember, time_to_ready
from tests.factories import NOW, loading, pod

SECONDS = st.floats(0, 4000)


def started(
    ordinal: int = 0,
    scheduling: float = 0.0,
    pull: float = 0.0,
    load: float = 0.0,
    *,
    at: float = NOW - 900,
    accelerator: str = "gpu",
    restarts: int = 0,
) -> Pod:
    """A replica that serves since ``at`` and took so long for each part of its start."""
    ran = at - load
    engine = ContainerStatus(
        "engine", ready=True, started=True, restarts=restarts, state="running", started_at=ran
    )
    conditions = (
        PodCondition("PodScheduled", "True", since=ran - pull),
        PodCondition("Ready", "True", since=at),
    )
    return pod(
        ordinal,
        created_at=ran - pull - scheduling,
        conditions=conditions,
        containers=(engine,),
        accelerator=accelerator,
    )


def learned(*looks: Sequence[Pod], known: StartUps | None = None) -> StartUps:
    for pods in looks:
        known = remember(known, (), pods)
    assert known is not None
    return known


def status_of(*looks: Sequence[Pod]) -> StartupStatus:
    (found,) = learned(*looks).summary
    return found


class TestOneStart:
    def test_is_split_into_scheduling_image_pull_and_load(self):
        assert measured(started(0, 2, 30, 200)) == Start(232, 2, 30, 200)

    def test_of_a_replica_that_waited_for_a_gpu_counts_from_its_place(self):
        assert measured(started(0, 3600, 30, 200)) == Start(230, None, 30, 200)

    def test_is_none_until_it_serves(self):
        assert measured(loading()) is None

    def test_is_none_when_a_container_restarted(self):
        assert measured(started(0, 1, 1, 1, restarts=1)) is None
        init = ContainerStatus("fetch", restarts=2)
        assert measured(replace(started(), init_containers=(init,))) is None

    def test_of_two_clocks_that_disagree_has_no_negative_part(self):
        assert measured(started(0, -3, -2, -1)) == Start(0, 0, 0, 0)

    def test_has_no_parts_where_the_moments_are_not_known(self):
        ready = PodCondition("Ready", "True", since=NOW)
        engine = ContainerStatus("engine", state="running")

        found = measured(pod(created_at=NOW - 50, conditions=(ready,), containers=(engine,)))

        assert found == Start(50, None, None, None)

    def test_begins_to_load_when_the_engine_runs_and_not_its_sidecar(self):
        replica = started(0, 0, 10, 100)
        sidecar = ContainerStatus("proxy", state="running", started_at=NOW)

        assert measured(replace(replica, containers=(*replica.containers, sidecar))) == Start(110, 0, 10, 100)


class TestPercentiles:
    @pytest.mark.parametrize(
        ("count", "p50", "p90"),
        [(1, 1, 1), (2, 1, 2), (3, 2, 3), (5, 3, 5), (10, 5, 9), (11, 6, 10), (20, 10, 18), (30, 15, 27)],
    )
    def test_are_of_the_nearest_rank(self, count, p50, p90):
        found = status_of([started(n, load=n) for n in range(count, 0, -1)])

        assert (found.p50_seconds, found.p90_seconds, found.samples) == (p50, p90, count)
        assert found.load == StartupPart(p50_seconds=p50, p90_seconds=p90)
        assert found.scheduling == found.image_pull == StartupPart(p50_seconds=0, p90_seconds=0)

    def test_are_those_of_the_latest_starts(self):
        slow = [started(n, load=900, at=NOW - 5000 + n) for n in range(KEEP)]
        fast = [started(100 + n, load=20, at=NOW - 100 + n) for n in range(KEEP)]

        found = status_of(slow + fast)

        assert (found.p90_seconds, found.samples) == (20, KEEP)

    def test_are_told_by_accelerator(self):
        pods = [started(0, load=10, accelerator="h100"), started(1, load=99, accelerator="a100")]

        found = learned(pods).summary

        assert [(s.accelerator, s.p50_seconds) for s in found] == [("a100", 99), ("h100", 10)]

    def test_of_replicas_that_all_waited_know_no_scheduling(self):
        assert status_of([started(0, scheduling=60, pull=1, load=1)]).scheduling is None

    def test_are_not_there_before_a_replica_served(self):
        assert learned([loading()], [started(restarts=1)]).summary == ()


class TestMemory:
    def test_a_pod_counts_once_however_often_it_is_looked_at(self):
        replica = started(load=60)

        assert status_of([loading()], [replica], [replica], [replica]).samples == 1

    def test_a_replica_that_lost_readiness_has_not_started_again(self):
        replica = started(load=60, at=NOW - 9000)
        again = started(load=9060, at=NOW)
        gone = replace(replica, conditions=())

        found = status_of([replica], [gone], [again])

        assert (found.samples, found.p90_seconds) == (1, 60)

    def test_what_was_measured_outlives_the_pods(self):
        known = learned([started(n, load=60) for n in range(3)], [])

        assert known.counted == frozenset()
        assert known.summary[0].samples == 3

    def test_a_new_pod_of_the_same_name_counts_anew(self):
        again = replace(started(load=80), uid="another")

        assert status_of([started(load=60)], [], [again]).samples == 2

    def test_nothing_new_is_the_very_same_memory(self):
        known = learned([started(load=60), loading(1)])

        assert remember(known, (), [started(load=60), loading(1)]) is known

    def test_is_no_longer_than_the_fleet_and_the_latest_starts(self):
        known = None
        for n in range(200):
            known = remember(known, (), [started(n, load=n)])
        assert known is not None
        assert len(known.counted) == 1
        assert len(known.by_accelerator["gpu"].whole) == KEEP


class TestRestart:
    @given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=40))
    def test_the_published_percentiles_come_back(self, parts):
        pods = [started(n, *each) for n, each in enumerate(parts)]
        published = learned(pods).summary

        assert remember(None, published, pods).summary == published
        assert learned([*pods, started(99)], known=remember(None, published, pods)).summary != ()
        fresh = started(99, load=1, accelerator="other")
        found = learned([*pods, fresh], known=remember(None, published, pods)).summary
        assert next(s for s in found if s.accelerator == "gpu") == published[0]

    def test_who_serves_already_is_among_what_was_published(self):
        pods = [started(n, load=60) for n in range(3)]
        published = learned(pods).summary

        assert learned(pods, known=remember(None, published, pods)).summary[0].samples == 3

    def test_a_start_that_ends_after_it_counts(self):
        pods = [started(n, load=60) for n in range(3)]
        published = learned(pods).summary

        known = learned([*pods, started(3, load=600)], known=remember(None, published, [*pods, loading(3)]))

        assert (known.summary[0].samples, known.summary[0].p90_seconds) == (4, 600)

    def test_who_serves_and_was_never_published_is_measured(self):
        assert remember(None, (), [started(load=60)]).summary[0].samples == 1


class TestTimeToReady:
    def test_is_the_ninth_of_ten(self):
        known = learned([started(n, load=n) for n in range(1, 11)])

        assert time_to_ready(known, "gpu") == 9

    def test_is_the_default_before_any_start(self):
        assert time_to_ready(StartUps(), "gpu") == DEFAULT_SECONDS
