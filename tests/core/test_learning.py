"""What a replica carries: learned from the fleet, not to be poisoned by it, and known after a restart."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product

import pytest

from stoker.api.v1alpha1 import CapacitySource
from stoker.core import learning
from stoker.core.latency import Mix, capacity
from stoker.core.learning import capacity_of, learn, published, settled, window_number
from stoker.core.observed import Memory
from stoker.core.plan import Plan
from stoker.core.priors import UNKNOWN
from stoker.core.readings import Key, Metrics, Missing, Signal, Stale
from stoker.core.reconcile import reconcile
from testbed.replica_models import MODELS, model_named
from tests.core.learning_lab import (
    CHAT,
    EVEN,
    LONG,
    OBJECTIVE,
    WINDOW,
    Fleet,
    costs_of,
    generated,
    mix_of,
    slower,
    truth,
    window,
)
from tests.factories import NOW, load, pod, readings, snapshot

MODEL = model_named("qwen3-32b-2xh100")
COSTS = costs_of(MODEL)
CHATS = mix_of(MODEL, CHAT)
RIGHT = truth(COSTS, CHATS)
"""Generated tokens per second that a replica of these tests carries."""


def taught(replicas: int = 6, windows: int = 40, **spec) -> Fleet:
    """A fleet that knows its capacity."""
    fleet = Fleet(replicas, **spec)
    fleet.run(COSTS, CHATS, windows)
    return fleet


class TestLearning:
    @pytest.mark.parametrize(("name", "request_"), list(product(sorted(MODELS), (CHAT, EVEN, LONG))))
    def test_the_capacity_of_every_engine_is_found_in_every_mix(self, name, request_):
        model = model_named(name)
        costs, mix = costs_of(model), mix_of(model, request_)

        found = Fleet(6).run(costs, mix, 40)

        assert generated(found, mix) == pytest.approx(truth(costs, mix), rel=0.04)
        assert found.concurrent_requests == pytest.approx(
            capacity(costs, mix, OBJECTIVE, 256).in_flight, rel=0.08
        )
        assert found.source is CapacitySource.LEARNED
        assert found.confidence > 0.5

    def test_costs_are_told_apart_where_mixes_differ(self):
        fleet = Fleet(6)
        for n in range(60):
            fleet.run(
                COSTS, mix_of(MODEL, (CHAT, EVEN, LONG, (256, 2048))[n % 4]), 1, loads=(0.2 + n % 5 / 10,)
            )

        assert fleet.learned is not None
        assert fleet.learned.belief.costs.base == pytest.approx(COSTS.base, rel=0.05)
        assert fleet.learned.belief.costs.per_prompt_token == pytest.approx(COSTS.per_prompt_token, rel=0.05)
        assert fleet.capacity.prompt_token_weight == pytest.approx(
            COSTS.per_prompt_token / (COSTS.per_sequence + COSTS.full_cache * fleet.learned.mix.cache),
            rel=0.1,
        )

    @pytest.mark.parametrize(("before", "after"), [(CHAT, LONG), (EVEN, LONG), (EVEN, CHAT), (LONG, EVEN)])
    def test_the_capacity_of_a_mix_never_seen_follows_from_another(self, before, after):
        fleet = Fleet(6, accelerators=[{"name": "h100", "count": 2}], model={"uri": "hf://Qwen/Qwen3-32B"})
        fleet.run(COSTS, mix_of(MODEL, before), 40)
        unseen = mix_of(MODEL, after)

        assert fleet.learned is not None
        known = replace(fleet.learned, mix=unseen)
        found = capacity_of(fleet.deployment.spec, known)

        assert generated(found, unseen) == pytest.approx(truth(COSTS, unseen), rel=0.2)

    def test_a_shift_of_the_mix_is_followed_within_five_minutes(self):
        fleet = Fleet(6)
        fleet.run(COSTS, mix_of(MODEL, EVEN), 40)

        found = fleet.run(COSTS, mix_of(MODEL, LONG), 5)

        assert found.concurrent_requests == pytest.approx(
            capacity(COSTS, mix_of(MODEL, LONG), OBJECTIVE, 256).in_flight, rel=0.3
        )

    def test_the_first_request_of_a_fleet_is_not_taken_for_its_mix(self):
        # rates over a minute of one prompt, and of the few tokens that were generated for it by now
        fleet = Fleet(4)
        prior = fleet.capacity.concurrent_requests
        begun = readings(
            generated_tokens=2.0, prompt_tokens=60.0, inter_token_latency=0.02, cache_usage=0.003, running=1.0
        )

        fleet.look({fleet.pods[0]: begun})

        assert fleet.learned.samples == 1
        assert fleet.capacity.concurrent_requests == pytest.approx(prior, rel=0.2)

    def test_a_faster_driver_is_followed_by_a_fleet_that_agrees_on_it(self):
        fleet = taught()
        faster = slower(COSTS, 0.5)

        assert generated(fleet.run(faster, CHATS, 5), CHATS) == pytest.approx(truth(faster, CHATS), rel=0.1)

    def test_without_a_histogram_of_the_cache_contexts_are_taken_to_be_as_before(self):
        fleet = Fleet(4)
        for n in range(40):
            whole = {p: window(COSTS, CHATS, 0.2 + n % 5 / 10, fleet.luck) for p in fleet.pods}
            fleet.look(
                {
                    p: replace(m, readings={s: r for s, r in m.readings.items() if s != Signal.CACHE_USAGE})
                    for p, m in whole.items()
                }
            )

        assert fleet.capacity.concurrent_requests == pytest.approx(
            capacity(COSTS, CHATS, OBJECTIVE, 256).in_flight, rel=0.1
        )

    def test_confidence_grows_with_samples_and_with_the_load_they_were_taken_at(self):
        prior = Fleet(4).capacity.confidence
        idle, busy = Fleet(4), Fleet(4)
        idle.run(COSTS, CHATS, 40, loads=(0.02, 0.05))
        busy.run(COSTS, CHATS, 40, loads=(0.3, 0.6))

        assert prior < 0.1
        assert prior < idle.capacity.confidence < 0.6 < busy.capacity.confidence

    def test_what_lies_far_beyond_the_load_that_was_seen_is_less_certain(self):
        fleet = taught()
        assert fleet.learned is not None

        idle = capacity_of(fleet.deployment.spec, replace(fleet.learned, busiest=0.05))

        assert idle.confidence < 0.8 * fleet.capacity.confidence

    def test_confidence_falls_when_replicas_are_not_as_the_law_says(self):
        even, uneven = Fleet(4), Fleet(4)
        for fleet, noise in ((even, 0.02), (uneven, 0.3)):  # both as busy as the objective allows
            fleet.run(COSTS, CHATS, 40, loads=(0.5, 0.75), noise=noise)

        assert uneven.capacity.confidence < even.capacity.confidence


class TestHostile:
    def test_one_replica_three_times_slower_is_not_believed(self):
        fleet = Fleet(6)

        found = fleet.run(COSTS, CHATS, 40, odd={2: slower(COSTS, 3)})

        assert generated(found, CHATS) == pytest.approx(RIGHT, rel=0.1)

    @pytest.mark.parametrize("times", [1.5, 2.0, 4.0])
    def test_a_third_of_a_fleet_that_is_throttled_later_is_not_believed(self, times):
        fleet = taught(9)

        found = fleet.run(COSTS, CHATS, 60, odd=dict.fromkeys((1, 4, 7), slower(COSTS, times)))

        assert generated(found, CHATS) == pytest.approx(RIGHT, rel=0.1)

    def test_a_replica_that_leaks_speed_drags_nobody_along(self):
        fleet = taught()
        for minute in range(60):
            fleet.run(COSTS, CHATS, 1, loads=(0.4,), odd={0: slower(COSTS, 1 / (1 - 0.02) ** minute)})

        assert generated(fleet.capacity, CHATS) == pytest.approx(RIGHT, rel=0.1)

    def test_of_two_replicas_the_one_that_is_as_always_is_believed(self):
        fleet = taught(2)

        found = fleet.run(COSTS, CHATS, 40, odd={0: slower(COSTS, 2.5)})

        assert generated(found, CHATS) == pytest.approx(RIGHT, rel=0.15)

    def test_one_bad_window_of_the_whole_fleet_changes_little(self):
        fleet = taught(1)

        found = fleet.run(slower(COSTS, 3), CHATS, 1)

        assert generated(found, CHATS) == pytest.approx(RIGHT, rel=0.15)

    def test_a_single_replica_that_is_throttled_is_followed_there_and_back(self):
        fleet = taught(1)
        throttled = generated(fleet.run(slower(COSTS, 2), CHATS, 20), CHATS)
        again = generated(fleet.run(COSTS, CHATS, 20), CHATS)

        assert throttled < 0.6 * RIGHT
        assert again == pytest.approx(RIGHT, rel=0.2)

    @pytest.mark.parametrize(
        "odd",
        [
            readings(generated_tokens=math.nan, prompt_tokens=1.0, inter_token_latency=0.02, cache_usage=0.1),
            readings(generated_tokens=1e9, prompt_tokens=0.0, inter_token_latency=0.02, cache_usage=0.1),
            readings(generated_tokens=900.0, prompt_tokens=9e9, inter_token_latency=0.02, cache_usage=0.1),
            readings(generated_tokens=900.0, prompt_tokens=1.0, inter_token_latency=0.0, cache_usage=0.1),
            readings(generated_tokens=1.5, prompt_tokens=1.0, inter_token_latency=1e3, cache_usage=0.1),
            readings(generated_tokens=900.0, prompt_tokens=1.0, inter_token_latency=2e-5, cache_usage=0.1),
            readings(generated_tokens=900.0, prompt_tokens=1.0, inter_token_latency=0.02, cache_usage=95.0),
            readings(generated_tokens=0.0, prompt_tokens=0.0, inter_token_latency=0.02, cache_usage=0.0),
            readings(generated_tokens=900.0, prompt_tokens=1.0, cache_usage=0.1),
            readings(
                generated_tokens=Stale(900.0, NOW),
                prompt_tokens=1.0,
                inter_token_latency=3.0,
                cache_usage=0.1,
            ),
            readings(
                generated_tokens=9.0, prompt_tokens=1.0, inter_token_latency=Missing("x"), cache_usage=0.1
            ),
        ],
        ids=[
            "nan",
            "beyond measure",
            "prompts beyond measure",
            "no time",
            "forever",
            "at once",
            "per cent",
            "idle",
            "no latency",
            "not whole",
            "missing",
        ],
    )
    def test_what_cannot_be_true_teaches_nothing_though_nobody_contradicts(self, odd):
        fleet = taught(1)
        before = fleet.learned

        assert fleet.look(dict.fromkeys(fleet.pods, odd)) == before

    @pytest.mark.parametrize(
        ("latency", "windows"),
        [(2e-4, 12), (2e-3, 40), (20.0, 12)],
        ids=["absurdly fast", "fast enough to be believed at first", "absurdly slow"],
    )
    def test_a_wrong_first_window_is_forgotten(self, latency, windows):
        fleet = Fleet(1)
        fleet.look(
            {
                p: readings(
                    generated_tokens=900.0, prompt_tokens=100.0, inter_token_latency=latency, cache_usage=0.1
                )
                for p in fleet.pods
            }
        )

        assert generated(fleet.run(COSTS, CHATS, windows), CHATS) == pytest.approx(RIGHT, rel=0.2)

    def test_windows_with_hardly_a_token_teach_nothing(self):
        fleet = taught()
        before = fleet.learned
        still = readings(
            generated_tokens=0.0, prompt_tokens=0.0, inter_token_latency=COSTS.base, cache_usage=0.0
        )

        assert fleet.look(dict.fromkeys(fleet.pods, still)) == before

    def test_replicas_of_another_revision_or_just_ready_or_draining_teach_nothing(self):
        fleet = taught()
        before = fleet.learned
        strange = [
            pod(0, of=fleet.deployment, revision="other"),
            pod(1, of=fleet.deployment, ready_since=fleet.now),
            pod(2, of=fleet.deployment, serving=False, drain_started_at=fleet.now),
        ]
        fleet.pods = strange

        fleet.look({p: window(slower(COSTS, 3), CHATS, 0.4, fleet.luck) for p in strange})

        assert fleet.learned == before


class TestTime:
    def test_a_window_is_read_once_however_often_it_is_looked_at(self):
        seldom, often = Fleet(3), Fleet(3)
        for n in range(20):
            read = {p: window(COSTS, CHATS, 0.4, random.Random(n)) for p in seldom.pods}
            seldom.look(read)
            for step in range(12):
                often.look(read, WINDOW if step == 0 else 0.0)

        assert seldom.learned == often.learned

    def test_not_all_of_many_fleets_learn_at_the_same_moment(self):
        keys = [Key("models", f"m{n}") for n in range(1000)]
        turning = [
            sum(window_number(k, NOW + s, 60) != window_number(k, NOW + s + 5, 60) for k in keys)
            for s in range(0, 60, 5)
        ]

        assert sum(turning) == 1000
        assert max(turning) < 150

    def test_readings_of_long_ago_are_not_learned_from(self):
        fleet = taught()
        before = fleet.learned
        read = {p.key: window(slower(COSTS, 3), CHATS, 0.4, fleet.luck) for p in fleet.pods}

        after = learn(
            before, fleet.deployment, fleet.pods, Metrics(at=fleet.now + 60, pods=read), fleet.now + 600
        )

        assert after == before

    def test_a_quiet_night_forgets_nothing(self):
        fleet = taught()
        before = fleet.capacity
        for _ in range(600):
            fleet.look({p: load() for p in fleet.pods})

        assert fleet.capacity == before

    def test_a_clock_that_steps_back_breaks_nothing(self):
        fleet = taught()
        fleet.now -= 7200
        fleet.run(COSTS, CHATS, 10)

        assert generated(fleet.capacity, CHATS) == pytest.approx(RIGHT, rel=0.1)


class TestRevision:
    def test_a_new_revision_of_the_same_model_and_gpu_starts_where_the_old_one_was(self):
        fleet = taught()
        before = fleet.capacity
        changed = Fleet(6, engine={"env": [{"name": "A", "value": "1"}]})

        found = learn(fleet.learned, changed.deployment, (), Metrics(at=fleet.now), fleet.now)

        assert found is not None
        now = capacity_of(changed.deployment.spec, found)
        assert (now.source, now.samples) == (CapacitySource.PRIOR, 0)
        assert now.tokens_per_second == pytest.approx(before.tokens_per_second)
        assert now.confidence < before.confidence

    def test_another_model_starts_from_its_own_prior(self):
        fleet = taught(accelerators=[{"name": "h100"}], model={"uri": "hf://org/model-8B"})
        other = Fleet(6, accelerators=[{"name": "h100"}], model={"uri": "hf://org/model-32B"})

        found = learn(fleet.learned, other.deployment, (), Metrics(at=fleet.now), fleet.now)

        assert capacity_of(other.deployment.spec, found) == other.capacity

    def test_what_was_learned_does_not_become_that_of_the_new_replicas_for_good(self):
        fleet = taught()
        changed = Fleet(6, engine={"env": [{"name": "A", "value": "1"}]})
        changed.learned = fleet.learned
        faster = slower(COSTS, 0.6)

        assert generated(changed.run(faster, CHATS, 20), CHATS) == pytest.approx(
            truth(faster, CHATS), rel=0.1
        )


class TestRestart:
    def restarted(self, fleet: Fleet) -> Fleet:
        """Another operator, which knows no more than the published status."""
        status = fleet.deployment.status.model_copy(
            update={"capacity": (published(fleet.deployment.spec, fleet.learned),)}
        )
        fresh = taught(0, 0)
        fresh.deployment = replace(fleet.deployment, status=status)
        fresh.now, fresh.pods = fleet.now, fleet.pods
        fresh.look({})
        return fresh

    def test_it_goes_on_where_it_was(self):
        fleet = taught()
        fresh = self.restarted(fleet)

        assert fresh.capacity.tokens_per_second == pytest.approx(fleet.capacity.tokens_per_second, rel=0.005)
        assert fresh.capacity.concurrent_requests == pytest.approx(
            fleet.capacity.concurrent_requests, rel=0.005
        )
        assert fresh.capacity.prompt_token_weight == pytest.approx(
            fleet.capacity.prompt_token_weight, rel=0.005
        )
        assert (fresh.capacity.source, fresh.capacity.samples) == (CapacitySource.LEARNED, 240)

    def test_what_it_read_back_yields_to_what_the_fleet_says(self):
        fresh = self.restarted(taught())
        faster = slower(COSTS, 0.7)

        assert generated(fresh.run(faster, CHATS, 20), CHATS) == pytest.approx(truth(faster, CHATS), rel=0.1)

    def test_a_status_about_another_revision_is_not_believed(self):
        fleet = taught()
        known = published(fleet.deployment.spec, fleet.learned)
        assert known.learned is not None
        told = known.model_copy(update={"learned": known.learned.model_copy(update={"revision": "gone"})})
        status = fleet.deployment.status.model_copy(update={"capacity": (told,)})

        found = learn(None, replace(fleet.deployment, status=status), (), Metrics(at=NOW), NOW)

        assert capacity_of(fleet.deployment.spec, found) == Fleet(1).capacity

    def test_a_status_that_somebody_zeroed_is_not_believed(self):
        fleet = taught()
        known = published(fleet.deployment.spec, fleet.learned)
        assert known.learned is not None
        told = known.model_copy(
            update={"learned": known.learned.model_copy(update={"sequence_microseconds": 0.0})}
        )
        status = fleet.deployment.status.model_copy(update={"capacity": (told,)})

        found = learn(None, replace(fleet.deployment, status=status), (), Metrics(at=NOW), NOW)

        assert capacity_of(fleet.deployment.spec, found) == Fleet(1).capacity


class TestCapacity:
    def test_before_anything_is_known_it_is_a_prior_of_forty_requests_in_flight(self):
        found = Fleet(1).capacity

        assert found.source is CapacitySource.PRIOR
        assert found.concurrent_requests == pytest.approx(40, rel=0.05)
        assert found.samples == 0

    def test_what_the_user_states_is_the_capacity_in_the_unit_that_it_is_stated_in(self):
        fleet = taught(accelerators=[{"tokensPerSecond": 1234}])

        assert (fleet.capacity.tokens_per_second, fleet.capacity.prompt_token_weight) == (1234, 0.3)
        assert (fleet.capacity.source, fleet.capacity.confidence) == (CapacitySource.STATED, 1.0)
        assert fleet.capacity.concurrent_requests == pytest.approx(taught().capacity.concurrent_requests)

    def test_a_stricter_objective_leaves_less(self):
        found = [
            taught(scaling={"maxReplicas": 9, "targets": {"timePerOutputToken": objective}}).capacity
            for objective in ("30ms", "50ms", "100ms")
        ]

        assert sorted(c.tokens_per_second for c in found) == [c.tokens_per_second for c in found]
        assert found[0].concurrent_requests < found[2].concurrent_requests

    def test_a_batch_that_the_user_bounds_bounds_the_requests_in_flight(self):
        assert taught(engine={"args": ["--max-num-seqs=8"]}).capacity.concurrent_requests == 8

    def test_a_cache_that_few_requests_fill_bounds_them_too(self):
        fleet = taught(scaling={"maxReplicas": 9, "targets": {"timePerOutputToken": "500ms"}})
        assert fleet.learned is not None

        found = capacity_of(fleet.deployment.spec, replace(fleet.learned, mix=Mix(0.1, 0.1)))

        assert found.concurrent_requests == pytest.approx(9.0)

    def test_an_objective_beyond_the_engine_is_said_and_asks_for_no_endless_fleet(self):
        fleet = Fleet(4, scaling={"maxReplicas": 9, "targets": {"timePerOutputToken": "5ms"}})
        fleet.run(COSTS, CHATS, 20)

        shown = published(fleet.deployment.spec, fleet.learned)

        assert "a request that is alone takes 14" in shown.message
        assert shown.tokens_per_second > 0.1 * RIGHT


class TestStatus:
    def test_a_prior_says_where_it_comes_from(self):
        shown = published(Fleet(1).deployment.spec, None)

        assert (shown.source, shown.message) == (CapacitySource.PRIOR, UNKNOWN.origin)
        assert shown.learned is None

    def test_what_was_learned_is_shown_with_its_costs(self):
        fleet = taught()
        shown = published(fleet.deployment.spec, fleet.learned)

        assert (shown.source, shown.message, shown.samples) == (CapacitySource.LEARNED, "", 240)
        assert shown.learned is not None
        assert shown.learned.revision == fleet.deployment.revision
        assert shown.learned.iteration_milliseconds == pytest.approx(14.05, rel=0.05)
        assert shown.learned.prompt_tokens_per_generated_token == pytest.approx(CHATS.prompt, rel=0.05)

    def test_what_moves_a_little_is_not_written_again(self):
        fleet = taught(windows=60)
        first = published(fleet.deployment.spec, fleet.learned)
        fleet.run(COSTS, CHATS, 1)
        second = published(fleet.deployment.spec, fleet.learned)

        assert first != second
        assert settled((first,), second) == (first,)

    @pytest.mark.parametrize(
        "change",
        [
            {"tokens_per_second": 5000},
            {"source": CapacitySource.PRIOR},
            {"samples": 2000},
            {"message": "x"},
            {"learned": None},
            {"accelerator": "other"},
        ],
    )
    def test_what_matters_is_written_at_once(self, change):
        fleet = taught()
        shown = published(fleet.deployment.spec, fleet.learned)
        changed = shown.model_copy(update=change)

        assert settled((shown,), changed) == (changed,)

    def test_a_fixed_fleet_learns_nothing_and_is_asked_nothing(self):
        fleet = Fleet(2, scaling=None)

        assert fleet.look({}).samples == 0


def test_the_weight_of_a_stated_capacity_is_that_of_its_documentation():
    from stoker.api.workload import Accelerator

    text = Accelerator.model_json_schema()["properties"]["tokensPerSecond"]["description"]
    assert f"{learning.STATED_PROMPT_WEIGHT} of each computed prompt" in " ".join(text.split())


class TestInTheProgram:
    """Through `reconcile`: memory goes from tick to tick, status to the API server."""

    def ticks(self, fleet: Fleet, windows: int, known: Memory | None = None, status=None) -> Plan:
        record = fleet.deployment if status is None else replace(fleet.deployment, status=status)
        memory, plan = known, None
        for n in range(windows):
            fleet.now += WINDOW
            read = {p.key: window(COSTS, CHATS, 0.2 + n % 5 / 10, fleet.luck) for p in fleet.pods}
            seen = snapshot(
                record,
                pods=fleet.pods,
                now=fleet.now,
                metrics=Metrics(at=fleet.now, pods=read),
                memory={record.key: memory} if memory is not None else {},
            )
            plan = reconcile(seen)[record.key]
            memory = plan.memory
            if plan.status is not None:
                record = replace(record, status=plan.status)
        assert plan is not None
        self.record = record
        return plan

    def test_what_the_fleet_teaches_is_remembered_and_published(self):
        fleet = Fleet(4, scaling={"minReplicas": 4, "maxReplicas": 9})

        plan = self.ticks(fleet, 30)

        (shown,) = self.record.status.capacity
        assert plan.memory.learned is not None
        assert plan.memory.learned.samples == 120
        assert shown.source is CapacitySource.LEARNED
        assert shown.learned is not None
        assert shown.tokens_per_second / (
            1 + shown.prompt_token_weight * shown.learned.prompt_tokens_per_generated_token
        ) == pytest.approx(RIGHT, rel=0.1)

    def test_an_operator_that_starts_again_goes_on_from_what_it_published(self):
        fleet = Fleet(4, scaling={"minReplicas": 4, "maxReplicas": 9})
        self.ticks(fleet, 30)
        before = self.record.status

        plan = self.ticks(fleet, 1, None, before)

        assert plan.memory.learned is not None
        assert plan.memory.learned.samples > before.capacity[0].samples
        assert plan.memory.standing is not None
        assert plan.memory.standing.capacity.tokens_per_second == pytest.approx(
            before.capacity[0].tokens_per_second, rel=0.05
        )

    def test_between_windows_nothing_is_worked_out_anew(self):
        fleet = taught()
        spec = fleet.deployment.spec
        known = learning.standing(None, spec, fleet.learned)

        assert learning.standing(known, spec, fleet.learned) is known
        fleet.run(COSTS, CHATS, 1)
        assert learning.standing(known, spec, fleet.learned) is not known
        assert learning.standing(known, taught(0, 0).deployment.spec, known.learned) is not known

    def test_a_quiet_fleet_writes_nothing(self):
        fleet = Fleet(4, scaling={"minReplicas": 4, "maxReplicas": 9})
        memory = self.ticks(fleet, 30).memory
        writes = 0
        for _ in range(30):
            fleet.now += WINDOW
            seen = snapshot(
                self.record,
                pods=fleet.pods,
                now=fleet.now,
                metrics=Metrics(at=fleet.now, pods={p.key: load(at=fleet.now) for p in fleet.pods}),
                memory={self.record.key: memory},
            )
            plan = reconcile(seen)[self.record.key]
            memory = plan.memory
            if plan.status is not None:
                writes += plan.status.capacity != self.record.status.capacity
                self.record = replace(self.record, status=plan.status)

        assert writes <= 1  # the last of what was learned
