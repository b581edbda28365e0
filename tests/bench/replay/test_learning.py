"""What the operator's code learns from simulated engines, through all of Prometheus' shortcomings."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from bench.replay.fleet import StartUp
from bench.replay.policies.stoker import Stoker, deployment
from bench.replay.simulation import Leak, Setting, simulate
from bench.replay.view import View
from stoker.core.latency import Costs, Mix, capacity
from stoker.core.learning import ReplicaCapacity, capacity_of, published
from testbed.replica_models import ReplicaModel, model_named
from testbed.trace import TraceRequest

MODEL = model_named("qwen3-32b-2xh100")
MINUTE = 60.0


@dataclass(slots=True)
class Watching:
    """Stoker decides, nothing is carried out; what it knows of a replica is kept, minute by minute."""

    stoker: Stoker = field(default_factory=lambda: Stoker(deployment(1, 100)))
    interval: float = 5.0
    known: dict[int, ReplicaCapacity] = field(default_factory=dict)

    def decide(self, view: View) -> int:
        self.stoker.decide(view)
        assert self.stoker.last is not None
        memory = self.stoker.last.memory
        self.known[int(view.now // MINUTE)] = capacity_of(self.stoker.last.spec, memory.learned)
        return view.replicas


def poisson(rate: float, start: float, end: float, tokens: tuple[int, int]) -> list[TraceRequest]:
    luck, at, found = random.Random(5), start, []
    while (at := at + luck.expovariate(rate)) < end:
        found.append(TraceRequest(at, *tokens))
    return found


def watched(arrivals: list[TraceRequest], minutes: float, replicas: int = 6, **setting) -> Watching:
    watching = Watching()
    simulate(Setting(MODEL, arrivals, minutes * MINUTE, StartUp(60.0), replicas, **setting), watching)
    return watching


def truth(model: ReplicaModel, tokens: tuple[int, int]):
    """What the law says of the engine's own coefficients."""
    prompt, output = tokens
    costs = Costs(
        model.base_ns * 1e-9,
        model.per_sequence_ns * 1e-9,
        model.per_kv_token_ps * 1e-12 * model.kv_capacity_tokens,
        model.per_prefill_token_ns * 1e-9,
    )
    mix = Mix(prompt / output, (prompt + output / 2) / model.kv_capacity_tokens)
    found = capacity(costs, mix, 0.05, model.max_sequences)
    return found.in_flight, found.weighted / (1 + found.weight * mix.prompt)


def generated(found: ReplicaCapacity, tokens: tuple[int, int]) -> float:
    prompt, output = tokens
    return found.tokens_per_second / (1 + found.prompt_token_weight * prompt / output)


@pytest.mark.parametrize(("tokens", "rate"), [((1024, 1024), 12.0), ((512, 256), 40.0), ((2048, 256), 9.0)])
def test_the_capacity_of_simulated_engines_is_found_within_ten_minutes(tokens, rate):
    watching = watched(poisson(rate, 0.0, 10 * MINUTE, tokens), 10)

    in_flight, tokens_per_second = truth(MODEL, tokens)
    found = watching.known[9]
    assert generated(found, tokens) == pytest.approx(tokens_per_second, rel=0.15)
    assert found.concurrent_requests == pytest.approx(in_flight, rel=0.25)


def test_a_shift_of_the_mix_is_followed_within_five_minutes():
    before, after = (1024, 1024), (4096, 128)
    arrivals = poisson(10.0, 0.0, 15 * MINUTE, before) + poisson(8.0, 15 * MINUTE, 25 * MINUTE, after)

    watching = watched(arrivals, 25)

    wide, narrow = truth(MODEL, before)[0], truth(MODEL, after)[0]
    assert watching.known[14].concurrent_requests == pytest.approx(wide, rel=0.25)
    assert watching.known[20].concurrent_requests < wide / 5
    assert watching.known[24].concurrent_requests == pytest.approx(narrow, rel=0.5)


def test_a_replica_that_leaks_speed_does_not_make_the_others_smaller():
    tokens = (1024, 1024)
    arrivals = poisson(10.0, 0.0, 40 * MINUTE, tokens)

    even = watched(arrivals, 40)
    leaking = watched(arrivals, 40, leak=Leak(ordinal=0, start=10 * MINUTE, per_minute=0.03))

    assert generated(leaking.known[39], tokens) == pytest.approx(generated(even.known[39], tokens), rel=0.1)


def test_an_operator_that_starts_again_goes_on_from_status():
    """Nothing but the published status is handed over."""
    tokens = (1024, 1024)
    first = watched(poisson(10.0, 0.0, 15 * MINUTE, tokens), 15)
    assert first.stoker.last is not None
    status = first.stoker.deployment.status.model_copy(
        update={"capacity": (published(first.stoker.last.spec, first.stoker.last.memory.learned),)}
    )
    again = Watching(Stoker(replace(first.stoker.deployment, status=status)))
    simulate(Setting(MODEL, [], 2 * MINUTE, StartUp(60.0), 6), again)

    assert again.known[1].tokens_per_second == pytest.approx(first.known[14].tokens_per_second, rel=0.01)
    assert again.known[1].source == first.known[14].source
