"""Gathering: who is asked, how often, and that a source that fails yields readings that say so."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from stoker.controller.gather import Gatherer
from stoker.controller.store import Store
from stoker.core import gateway
from stoker.core.promql import FIRST_TOKEN
from stoker.core.readings import EngineLoad, Fresh, Key, Missing, Signal, Stale
from stoker.core.signals import Failed, Sample, Samples
from tests.factories import KEY, NAMESPACE, NOW, manifest

STALE_AFTER = 60.0
IDLE, BUSY = Fresh(0.0, NOW), Fresh(3.0, NOW)


class Prometheus:
    """Notes the queries of each round; gives every query the same answer."""

    def __init__(self, answer: Samples | Failed | None = None) -> None:
        self.answer = answer or Samples(())
        self.rounds: list[Mapping[str, str]] = []

    async def query_all(self, queries):
        self.rounds.append(queries)
        return dict.fromkeys(queries, self.answer)


class Engines:
    """Notes whom it is asked about; answers by pod uid."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.answers: dict = {}

    async def load_all(self, endpoints):
        self.asked.append(dict(endpoints))
        return {uid: self.answers.get(uid, IDLE) for uid in endpoints}


def pod(uid: str, *, of: str = KEY.name, drain: bool = False, ip: str = "10.0.0.9", port: int = 0, **meta):
    """A v1/Pod of a replica."""
    ports = [{"containerPort": port}] if port else []
    annotations = {"stoker.dev/drain-started-at": "2027-01-15T07:59:00Z"} if drain else {}
    labels = {"stoker.dev/model-deployment": of, "stoker.dev/serving": "false" if drain else "true"}
    names = {"namespace": NAMESPACE, "name": uid, "uid": uid, "resourceVersion": "1"}
    return {
        "metadata": {**names, "labels": labels, "annotations": annotations, **meta},
        "spec": {"containers": [{"name": "engine", "ports": ports}]},
        "status": {"podIP": ip},
    }


@pytest.fixture
def world():
    """A gatherer over an empty store, with recorders on all sides."""
    found = SimpleNamespace(now=NOW, prometheus=Prometheus(), engines=Engines())
    found.store = Store(lambda: found.now)
    found.gatherer = Gatherer(
        found.store, found.prometheus, found.engines, lambda: found.now, stale_after=STALE_AFTER
    )
    return found


def scaled(name: str = KEY.name, **scaling):
    return manifest(name, scaling={"maxReplicas": 4, **scaling})


class TestMeasuring:
    async def test_without_a_scaled_fleet_prometheus_is_not_asked(self, world):
        world.store.put("ModelDeployment", manifest(replicas=2))

        assert await world.gatherer.measure() == []
        assert world.prometheus.rounds == []

    @pytest.mark.parametrize(
        ("obj", "why"),
        [
            (manifest("other", replicas=1), "a fixed number"),
            (manifest("other", scaling={"maxReplicas": "many"}), "a spec that cannot be read"),
            (
                scaled("other") | {"metadata": {**scaled("other")["metadata"], "deletionTimestamp": "x"}},
                "going",
            ),
        ],
        ids=["fixed", "unreadable", "being deleted"],
    )
    async def test_only_those_whose_number_depends_on_it_are_looked_at_again(self, world, obj, why):
        world.store.put("ModelDeployment", scaled())
        world.store.put("ModelDeployment", obj)

        assert await world.gatherer.measure() == [KEY], why

    async def test_a_fleet_of_many_is_asked_for_in_one_round(self, world):
        for n in range(20):
            world.store.put("ModelDeployment", scaled(f"m{n}"))

        assert len(await world.gatherer.measure()) == 20
        (asked,) = world.prometheus.rounds
        assert set(Signal) <= set(asked)
        assert FIRST_TOKEN not in asked

    async def test_those_whose_demand_grew_come_first(self, world):
        names = [f"m{n}" for n in range(4)]
        for name in names:
            world.store.put("ModelDeployment", scaled(name))
        held = {"m0": 4.0, "m1": 4.0, "m2": 4.0, "m3": 4.0}
        for held["m2"] in (4.0, 50.0):
            world.prometheus.answer = Samples(
                tuple(Sample({"namespace": NAMESPACE, "inference_pool": n}, v, NOW) for n, v in held.items())
            )
            order = [key.name for key in await world.gatherer.measure()]

        assert order == ["m2", "m0", "m1", "m3"]
        assert [key.name for key in world.gatherer.urgent] == ["m2"]

    async def test_nobody_is_urgent_any_more_when_prometheus_was_not_asked(self, world):
        world.gatherer.urgent = [KEY]

        await world.gatherer.measure()
        assert world.gatherer.urgent == ()

    async def test_latencies_are_asked_for_only_where_a_target_needs_them(self, world):
        world.store.put("ModelDeployment", scaled(targets={"timeToFirstToken": "2s"}))
        await world.gatherer.measure()

        assert f'namespace=~"{NAMESPACE}"' in world.prometheus.rounds[0][FIRST_TOKEN]

    async def test_each_pod_of_a_scaled_fleet_has_readings(self, world):
        world.store.put("ModelDeployment", scaled())
        world.store.put("ModelDeployment", manifest("fixed", replicas=1))
        world.store.put("Pod", pod("p0"))
        world.store.put("Pod", pod("q0", of="fixed"))
        await world.gatherer.measure()

        found = world.gatherer.metrics()
        assert found.failure is None
        assert found.pods.keys() == {Key(NAMESPACE, "p0")}
        assert isinstance(found.pods[Key(NAMESPACE, "p0")].readings[Signal.RUNNING], Missing)

    async def test_a_prometheus_that_does_not_answer_is_a_failure_in_its_own_words(self, world):
        world.store.put("ModelDeployment", scaled())
        world.prometheus.answer = Failed("connection refused", unreachable=True)

        assert await world.gatherer.measure() == [KEY]
        assert world.gatherer.metrics().failure == "connection refused"
        assert not world.gatherer.metrics().pending

    async def test_without_an_address_the_failure_names_the_setting(self, world):
        world.store.put("ModelDeployment", scaled())
        gatherer = Gatherer(world.store, None, world.engines, lambda: NOW, STALE_AFTER)

        assert await gatherer.measure() == [KEY]
        assert "STOKER_PROMETHEUS_URL" in (gatherer.metrics().failure or "")
        assert not gatherer.metrics().pending


class TestOutside:
    """What no replica tells of: the users' own queries, and a gateway's queue."""

    SIGNAL = ({"name": "jobs", "query": "sum(depth)", "target": 5},)

    async def test_a_query_that_several_share_is_asked_once_and_apart(self, world):
        users = Prometheus(Samples((Sample({}, 7.0, NOW),)))
        gatherer = Gatherer(world.store, world.prometheus, world.engines, lambda: NOW, STALE_AFTER, users)
        for n in range(3):
            world.store.put("ModelDeployment", scaled(f"m{n}", signals=self.SIGNAL))
        await gatherer.measure()

        assert [list(asked.values()) for asked in users.rounds] == [["sum(depth)"]]
        assert "sum(depth)" not in world.prometheus.rounds[0].values()
        assert gatherer.metrics().signals == {"sum(depth)": Fresh(7.0, NOW)}

    async def test_a_gateway_is_asked_about_once_for_the_whole_fleet(self, world):
        for n in range(3):
            world.store.put("ModelDeployment", scaled(f"m{n}"))
        labels = {"namespace": NAMESPACE, "inference_pool": "m1"}
        world.prometheus.answer = Samples((Sample(labels, 4.0, NOW),))
        await world.gatherer.measure()

        assert world.prometheus.rounds[0][gateway.NAME] == gateway.QUERY
        assert world.gatherer.metrics().held == {Key(NAMESPACE, "m1"): Fresh(4.0, NOW)}

    async def test_the_model_is_known_by_the_name_that_clients_ask_for(self, world):
        world.store.put("ModelDeployment", scaled())
        world.store.put(
            "ModelDeployment",
            manifest("other", scaling={"maxReplicas": 2}, model={"uri": "hf://a/b", "name": "served"}),
        )
        labels = {"namespace": NAMESPACE, "inference_pool": "p", "target_model_name": "served"}
        world.prometheus.answer = Samples((Sample(labels, 4.0, NOW),))
        await world.gatherer.measure()

        assert world.gatherer.metrics().held == {Key(NAMESPACE, "other"): Fresh(4.0, NOW)}


class TestTheLastRound:
    def test_before_the_first_round_nothing_is_known_and_nothing_is_wrong(self, world):
        assert world.gatherer.metrics().pending
        assert world.gatherer.metrics().failure

    @pytest.mark.parametrize(("age", "kept"), [(STALE_AFTER, True), (STALE_AFTER + 1, False)])
    async def test_it_counts_until_it_is_too_old_to_be_acted_on(self, world, age, kept):
        world.store.put("ModelDeployment", scaled())
        world.store.put("Pod", pod("p0"))
        await world.gatherer.measure()
        world.now += age

        found = world.gatherer.metrics()
        assert bool(found.pods) is kept
        assert found.pending is not kept
        assert (found.failure is None) is kept

    async def test_an_old_failure_stays_a_failure(self, world):
        world.store.put("ModelDeployment", scaled())
        world.prometheus.answer = Failed("connection refused")
        await world.gatherer.measure()
        world.now += 10 * STALE_AFTER

        assert world.gatherer.metrics().failure == "connection refused"


class TestDrainingEngines:
    @pytest.fixture
    def world(self, world):
        world.store.put("ModelDeployment", manifest(engine={"port": 9000}))
        return world

    async def test_only_draining_engines_are_asked(self, world):
        world.store.put("Pod", pod("serving"))
        world.store.put("Pod", pod("going", drain=True, deletionTimestamp="2027-01-15T08:00:00Z"))
        world.store.put("Pod", pod("draining", drain=True))

        assert await world.gatherer.poll_draining() == [KEY]
        assert world.engines.asked[0].keys() == {"draining"}

    @pytest.mark.parametrize(("own", "asked"), [(0, 9000), (7000, 7000)], ids=["of the spec", "of the pod"])
    async def test_the_port_is_the_pods_own_where_it_names_one(self, world, own, asked):
        world.store.put("Pod", pod("p", drain=True, port=own))
        await world.gatherer.poll_draining()

        endpoint = world.engines.asked[0]["p"]
        assert (endpoint.pod_ip, endpoint.port) == ("10.0.0.9", asked)
        assert endpoint.path == "/metrics"
        assert endpoint.running
        assert endpoint.waiting

    async def test_a_pod_without_an_address_is_not_asked_and_still_looked_at(self, world):
        world.store.put("Pod", pod("p", drain=True, ip=""))

        assert await world.gatherer.poll_draining() == [KEY]
        assert world.engines.asked == [{}]
        assert world.gatherer.loads == {}

    async def test_a_pod_whose_deployment_is_gone_is_not_asked(self, world):
        world.store.put("Pod", pod("p", of="nobody", drain=True))
        await world.gatherer.poll_draining()

        assert world.engines.asked == [{}]

    @pytest.mark.parametrize(
        ("answers", "idle"),
        [
            ([IDLE, IDLE, IDLE], 3),
            ([IDLE, IDLE, BUSY], 0),
            ([IDLE, Missing("refused"), IDLE], 1),
            ([IDLE, Stale(0.0, NOW)], 0),
        ],
        ids=["zero each time", "a request came", "one poll failed", "an old zero"],
    )
    async def test_idle_counts_zeros_in_a_row(self, world, answers, idle):
        world.store.put("Pod", pod("p", drain=True))
        for answer in answers:
            world.engines.answers["p"] = answer
            await world.gatherer.poll_draining()

        assert world.gatherer.loads == {"p": EngineLoad(answers[-1], idle)}

    async def test_a_pod_that_is_taken_back_starts_anew_when_it_drains_again(self, world):
        world.store.put("Pod", pod("p", drain=True))
        await world.gatherer.poll_draining()
        world.store.put("Pod", pod("p", resourceVersion="2"))
        await world.gatherer.poll_draining()
        assert world.gatherer.loads == {}

        world.store.put("Pod", pod("p", drain=True, resourceVersion="3"))
        await world.gatherer.poll_draining()
        assert world.gatherer.loads["p"].idle_polls == 1
