"""Runs: nothing is lost, everything is paid for, and the same run gives the same result."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from bench.replay.faults import Fault, FaultKind
from bench.replay.fleet import StartUp
from bench.replay.policies.reference import Static
from bench.replay.simulation import FULL_QUEUE, Leak, Queueing, Routing, Setting, simulate
from bench.replay.traces import poisson
from bench.replay.view import View
from testbed.replica import Replica, Request
from tests.bench.replay.scene import MODEL

ARRIVALS = poisson(8.0, 0.0, 600.0, (500, 100), seed=1)


@dataclass
class Script:
    """Decides what the script says, and keeps what it saw."""

    steps: dict[float, int]
    interval: float = 5.0
    seen: list[View] = field(default_factory=list)
    pods: dict[float, tuple[int, int]] = field(default_factory=dict)
    """(replicas, ready ones) by time."""

    def decide(self, view: View) -> int:
        self.seen.append(view)
        self.pods[view.now] = (view.status_replicas, view.ready)
        return self.steps.get(view.now, view.replicas)


def setting(**changes) -> Setting:
    plain = Setting(MODEL, ARRIVALS, 600.0, StartUp(60), initial=3, warm_up=0.0)
    return replace(plain, **changes)


def test_every_request_is_answered_once():
    ledger = simulate(setting(), Static(3))
    assert ledger.score().requests == len(ARRIVALS)
    assert ledger.unserved_requests == 0


def test_one_replica_gives_what_the_replica_model_alone_gives():
    arrivals = ARRIVALS[:500]
    ledger = simulate(setting(arrivals=arrivals, initial=1), Static(1))
    alone, requests = Replica(MODEL), []
    for one in arrivals:
        at = round(one.arrival * 1e9)
        requests.append(Request(at, one.prompt_tokens, one.output_tokens))
        alone.submit(requests[-1], at)
    while (following := alone.next_event()) is not None:
        alone.advance(following)
    expected = sorted((r.first_token_ns - r.id) / 1e9 for r in requests)
    assert sorted(ledger._ttft) == expected


def test_the_same_run_twice_is_the_same():
    first, second = (simulate(setting(), Script({100.0: 5, 300.0: 2})) for _ in range(2))
    assert first.score() == second.score()
    assert simulate(setting(seed=1), Script({100.0: 5})).score() != first.score()


def test_scaling_in_cuts_nothing_and_the_drain_is_paid_for():
    ledger = simulate(setting(), Script({100.0: 1}))
    score = ledger.score()
    assert score.requests == len(ARRIVALS)
    assert ledger.cut_requests == 0
    paid = score.replica_hours * 3600
    assert 600 + 2 * 100 + 2 * 15 <= paid <= 600 + 2 * 100 + 2 * 60


def test_a_new_replica_serves_after_its_start_up_and_exports_nothing_before_its_first_scrape():
    policy = Script({100.0: 4})
    simulate(setting(), policy)
    assert policy.pods[100.0] == (3, 3)
    assert policy.pods[105.0] == policy.pods[155.0] == (4, 3)
    assert policy.pods[165.0] == (4, 4)
    scraped = policy.seen[-1].prometheus._targets["replica-3"].times
    assert 160.0 <= scraped[0] < 175.0
    assert [b - a for a, b in pairwise(scraped)] == pytest.approx([15.0] * (len(scraped) - 1))


def test_scrapes_have_a_phase_of_their_own():
    policy = Script({})
    simulate(setting(), policy)
    firsts = {round(t.times[0], 3) for t in policy.seen[-1].prometheus._targets.values()}
    assert len(firsts) == 3


def test_counters_count_prompts_at_their_first_token():
    policy = Script({}, interval=15.0)
    arrivals = poisson(0.5, 0.0, 60.0, (100_000, 10), seed=0)[:1]
    simulate(setting(arrivals=arrivals, initial=1, duration=120.0), policy)
    rows = policy.seen[-1].prometheus._targets["replica-0"].rows
    prompts = [r.prompt_tokens_total for r in rows if r is not None]
    assert set(prompts) == {0.0, float(arrivals[0].prompt_tokens)}


def test_faults_reach_prometheus():
    policy = Script({})
    simulate(setting(faults=(Fault("lost", FaultKind.SCRAPES, 200.0, 300.0),)), policy)
    later = policy.seen[-1].prometheus
    assert later.instant("num_requests_running", 250.0) == {}
    assert len(later.instant("num_requests_running", 320.0)) == 3


def test_least_loaded_routing_spares_a_slow_replica_and_round_robin_does_not():
    slow = setting(leak=Leak(0, 0.0, 0.3))
    tails = {
        routing: simulate(replace(slow, routing=routing), Static(3)).score().tpot[2] for routing in Routing
    }
    assert tails[Routing.LEAST_LOADED] < 0.8 * tails[Routing.ROUND_ROBIN]


def test_a_leaking_replica_slows_its_requests():
    plain = simulate(setting(routing=Routing.ROUND_ROBIN), Static(3)).score()
    leaking = setting(routing=Routing.ROUND_ROBIN, leak=Leak(0, 0.0, 0.1))
    assert simulate(leaking, Static(3)).score().tpot[2] > 1.2 * plain.tpot[2]


def test_requests_wait_in_the_gateway_for_a_first_replica():
    ledger = simulate(setting(initial=0, minimum=0), Script({5.0: 1}, interval=5.0))
    assert ledger.score().requests == len(ARRIVALS)
    assert 55 < ledger.score().ttft[2] < 70


def test_a_policy_outside_its_bounds_is_an_error():
    with pytest.raises(ValueError, match=r"asks for 7 replicas at 100 s, outside \[1, 6\]"):
        simulate(setting(maximum=6), Script({100.0: 7}))


@dataclass
class Watch(Script):
    """Sees the longest queues, in the engines and in the gateway."""

    engines: int = 0
    gateway: int = 0

    def decide(self, view: View) -> int:
        self.engines = max([self.engines, *(pod.replica.waiting for pod in view.pods)])
        self.gateway = max(self.gateway, view.gateway.queued)
        return super().decide(view)


def test_a_gateway_that_holds_requests_has_the_queue_that_engines_would_have():
    flood = poisson(40.0, 0.0, 200.0, (2000, 400), seed=2)
    plain = setting(arrivals=flood, duration=300.0, initial=2)
    engine, gateway = Watch({}, interval=1.0), Watch({}, interval=1.0)
    before = simulate(plain, engine).score()
    after = simulate(replace(plain, queueing=Queueing.GATEWAY), gateway).score()
    assert before.requests == after.requests == len(flood)
    assert engine.engines > 100
    assert engine.gateway == 0
    assert gateway.gateway > 100
    assert gateway.engines <= FULL_QUEUE + 1
    assert after.ttft[1] == pytest.approx(before.ttft[1], rel=0.5)


def test_looking_at_engines_more_often_changes_nothing():
    seldom = simulate(setting(), Script({100.0: 5, 300.0: 2}, interval=100.0))
    often = simulate(setting(), Script({100.0: 5, 300.0: 2}, interval=0.5))
    assert sorted(seldom._ttft) == sorted(often._ttft)
    assert sorted(seldom._tpot) == sorted(often._tpot)
    assert seldom.score().replica_hours == often.score().replica_hours
