"""The replica model against measurements, against a step-by-step twin, and rule by rule."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.replica import Event, EventKind, Replica, Request, Steps
from testbed.replica_models import MODELS, ReplicaModel, model_named

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = ReplicaModel(
    "small", "made up", 10_000, 100, 3_000, 50, kv_capacity_tokens=64, max_sequences=4, max_batched_tokens=16
)


@dataclass(frozen=True)
class Point:
    """A measured closed loop: `concurrency` clients, each sending its next request when one ends."""

    model: str
    isl: int
    osl: int
    concurrency: int
    ttft: float
    tpot: float

    @property
    def throughput(self) -> float:
        return self.concurrency * self.osl / (self.ttft + self.tpot * (self.osl - 1))


def measured(model: str) -> list[Point]:
    lines = (FIXTURES / "measured-serving-points.csv").read_text().splitlines()[1:]
    return [
        Point(
            r["model"],
            int(r["isl"]),
            int(r["osl"]),
            int(r["concurrency"]),
            float(r["ttft_ms"]) / 1e3,
            float(r["tpot_ms"]) / 1e3,
        )
        for r in csv.DictReader(lines)
        if r["model"] == model
    ]


def closed_loop(point: Point, rounds: int = 4) -> Point:
    """The same loop, simulated; throughput over the whole run is osl·requests/duration."""
    replica = Replica(MODELS[point.model])
    done: list[Request] = []
    sent = 0
    for sent in range(1, point.concurrency + 1):
        replica.submit(Request(sent, point.isl, point.osl), 0)
    while (at := replica.next_event()) is not None:
        for event in replica.advance(at):
            if event.kind is not EventKind.FINISHED:
                continue
            done.append(event.request)
            if sent < rounds * point.concurrency:
                sent += 1
                replica.submit(Request(sent, point.isl, point.osl), at)
    ttft = sum(r.first_token_ns - r.submitted_ns for r in done) / len(done) / 1e9
    tpot = sum(r.finished_ns - r.first_token_ns for r in done) / len(done) / (point.osl - 1) / 1e9
    return replace(point, ttft=ttft, tpot=tpot), len(done) * point.osl / (done[-1].finished_ns / 1e9)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("model", "points", "mean_error", "max_error"),
    [
        ("qwen3-32b-2xh100", 25, 0.0195, 0.095),
        ("qwen3-32b-4xh100", 30, 0.0190, 0.095),
        ("qwen3-32b-8xh100", 30, 0.0215, 0.125),
        ("llama-3.1-70b-fp8-4xh100", 15, 0.0225, 0.065),
        ("llama-3.1-70b-fp8-1xh200", 11, 0.0235, 0.105),
    ],
)
def test_iteration_time_fits_the_measured_time_per_token(model, points, mean_error, max_error):
    engine = MODELS[model]
    errors = []
    for p in measured(model):
        if p.concurrency * (p.isl + p.osl) > engine.kv_capacity_tokens:
            continue
        context = round(p.concurrency * (p.isl + p.osl / 2))
        # In a closed loop each token of a batch comes with isl/osl prompt tokens per client.
        tpot = engine.iteration_ps(p.concurrency, context, round(p.concurrency * p.isl / p.osl)) / 1e12
        errors.append(abs(tpot / p.tpot - 1))
    assert len(errors) == points
    assert mean(errors) <= mean_error
    assert max(errors) <= max_error


def test_closed_loops_reproduce_all_thirty_measured_points_of_two_h100():
    pairs = [(p, *closed_loop(p)) for p in measured("qwen3-32b-2xh100")]
    assert len(pairs) == 30
    assert mean([abs(rate / p.throughput - 1) for p, _, rate in pairs]) <= 0.055
    assert mean([abs(sim.tpot / p.tpot - 1) for p, sim, _ in pairs]) <= 0.082


def test_a_kv_bound_loop_queues_as_the_measured_one_does():
    by_shape = {(p.isl, p.osl, p.concurrency): p for p in measured("qwen3-32b-2xh100")}
    for shape in ((4096, 128, 128), (4096, 1024, 128)):
        point = by_shape[shape]
        simulated, _ = closed_loop(point)
        assert simulated.ttft == pytest.approx(point.ttft, rel=0.25)


def test_beyond_saturation_only_the_queue_grows():
    by_shape = {(p.isl, p.osl, p.concurrency): p for p in measured("qwen3-32b-2xh100")}
    half, full = (closed_loop(by_shape[4096, 128, c]) for c in (64, 128))
    assert full[1] == pytest.approx(half[1], rel=0.03)
    assert full[0].ttft > 5 * half[0].ttft


class StepByStep(Replica):
    """The same engine without event skipping: every iteration is a run of its own."""

    def _steps_until_change(self) -> int:
        return min(1, super()._steps_until_change())


class Recorder:
    """Adds up what an observer is told."""

    def __init__(self) -> None:
        self.iterations = self.tokens = self.intervals = self.duration = self.gaps = self.between = 0

    def on_steps(self, steps: Steps) -> None:
        n = steps.iterations
        self.iterations += n
        self.tokens += n * steps.tokens
        self.intervals += n * steps.decoding
        elapsed = n * steps.first_ps + steps.increment_ps * (n * (n - 1) // 2)
        self.duration += elapsed
        self.between += elapsed * steps.decoding

    def on_gap(self, duration_ps: int) -> None:
        self.gaps += 1
        self.between += duration_ps
        assert duration_ps > 0


load = st.lists(
    st.tuples(
        st.integers(0, 400_000),  # arrival, ns
        st.integers(1, 40),  # prompt
        st.integers(1, 24),  # output
        st.none() | st.integers(1, 300_000),  # cancelled this long after
    ),
    min_size=1,
    max_size=20,
)


def play(replica: Replica, jobs, stops=()) -> list[tuple[int, int, int]]:
    """Submit and cancel at the given times, stopping at extra times as well; events as comparable tuples."""
    requests = [Request(i, prompt, output) for i, (_, prompt, output, _) in enumerate(jobs)]
    actions = [(at, 0, "submit", r) for (at, *_), r in zip(jobs, requests, strict=True)]
    actions += [
        (at + c, 1, "cancel", r) for (at, _, _, c), r in zip(jobs, requests, strict=True) if c is not None
    ]
    actions += [(at, 2, "stop", None) for at in stops]
    events: list[Event] = []
    for at, _, what, request in sorted(actions, key=lambda a: (a[0], a[1], a[3].id if a[3] else 0)):
        if what == "submit":
            replica.submit(request, at)
        elif what == "cancel":
            replica.cancel(request, at)
        else:
            events += replica.advance(at)
    events += replica.advance(10**9)
    return [(e.time_ns, int(e.kind), e.request.id) for e in events]


@settings(max_examples=300)
@given(load)
def test_event_skipping_changes_nothing(jobs):
    fast, slow = Replica(SMALL, a := Recorder()), StepByStep(SMALL, b := Recorder())
    assert play(fast, jobs) == play(slow, jobs)
    assert fast.counters == slow.counters
    assert vars(a) == vars(b)


@settings(max_examples=300)
@given(load, st.lists(st.integers(0, 2_000_000), max_size=30))
def test_the_size_of_the_steps_in_time_changes_nothing(jobs, stops):
    one, many = Replica(SMALL), Replica(SMALL)
    # A stop may not come between the submissions of one instant: it would start an iteration there.
    arrivals = {at for at, *_ in jobs} | {at + c for at, *_, c in jobs if c is not None}
    assert play(one, jobs) == play(many, jobs, [s for s in stops if s not in arrivals])
    assert one.counters == many.counters


@settings(max_examples=300)
@given(load)
def test_every_request_ends_and_nothing_leaks(jobs):
    replica = Replica(SMALL, recorder := Recorder())
    events = play(replica, jobs)
    finished = [r for _, kind, r in events if kind == EventKind.FINISHED]
    assert replica.idle
    assert replica.kv_tokens == 0
    assert replica.next_event() is None
    assert len(finished) == len(set(finished)) == replica.counters.finished
    assert replica.counters.finished + replica.counters.cancelled == len(jobs)
    assert replica.counters.busy_ps == recorder.duration
    assert recorder.tokens == replica.counters.prompt_tokens + replica.counters.generated_tokens
    assert replica.counters.inter_tokens == recorder.intervals + recorder.gaps
    assert replica.counters.inter_token_ps == recorder.between
    if not any(c for *_, c in jobs):
        assert replica.counters.generated_tokens == sum(output for _, _, output, _ in jobs)
        assert replica.counters.prompt_tokens == sum(prompt for _, prompt, _, _ in jobs)


@settings(max_examples=200)
@given(load)
def test_the_cache_and_the_batch_never_overflow(jobs):
    replica = Replica(SMALL)
    for i, (at, prompt, output, _) in enumerate(sorted(jobs, key=lambda job: job[0])):
        replica.submit(Request(i, prompt, output), at)
        assert replica.kv_tokens <= SMALL.kv_capacity_tokens
    while (at := replica.next_event()) is not None:
        replica.advance(at)
        assert 0 <= replica.kv_usage <= 1
        assert replica.running <= SMALL.max_sequences


def test_one_request_alone_takes_the_formula_s_time():
    model = MODELS["qwen3-32b-2xh100"]
    replica, request = Replica(model), Request("a", 1000, 3)
    replica.submit(request, 5_000)
    replica.advance(10**12)
    prefill = model.iteration_ps(1, 0, 1000)
    decode = model.iteration_ps(1, 1000, 0) + model.iteration_ps(1, 1001, 0)
    assert request.scheduled_ns == 5_000
    assert request.first_token_ns == 5_000 + -(-prefill // 1000)
    assert request.finished_ns == 5_000 + -(-(prefill + decode) // 1000)


def test_a_long_prompt_is_prefilled_in_chunks_beside_the_decoding():
    replica = Replica(MODELS["qwen3-32b-2xh100"])
    first, long = Request("first", 10, 100), Request("long", 5000, 2)
    replica.submit(first, 0)
    replica.advance(replica.next_event())
    replica.submit(long, replica.now_ns)
    before = replica.counters.iterations
    while long.first_token_ns is None:
        replica.advance(replica.next_event())
    # 2,048 tokens an iteration, one of which is the other request's: 2,047 + 2,047 + 906.
    assert replica.counters.iterations - before == 3
    assert replica.generated(first) == 4


def test_the_queue_is_first_come_first_served():
    replica = Replica(replace(SMALL, max_sequences=1))
    requests = [Request(i, 4, 4) for i in range(3)]
    for request in requests:
        replica.submit(request, 0)
    replica.advance(replica.next_event())
    assert (replica.running, replica.waiting) == (1, 2)
    replica.advance(10**9)
    assert [r.scheduled_ns for r in requests[1:]] == [r.finished_ns for r in requests[:2]]


def test_the_newest_is_preempted_and_recomputed():
    replica = Replica(SMALL, recorder := Recorder())
    old, new = Request("old", 14, 40), Request("new", 14, 40)
    replica.submit(old, 0)
    replica.advance(replica.next_event())
    replica.submit(new, replica.now_ns)
    replica.advance(10**9)
    assert (old.preemptions, new.preemptions) == (0, 1)
    assert old.finished_ns < new.finished_ns
    assert replica.counters.prompt_tokens == 28  # a recomputed prompt is not counted again
    assert replica.counters.prefill_tokens > 28
    assert replica.counters.generated_tokens == 80
    assert recorder.gaps == 1


def test_a_prompt_that_does_not_fit_waits_for_a_finish():
    replica = Replica(SMALL)
    big, next_ = Request("big", 50, 6), Request("next", 20, 2)
    replica.submit(big, 0)
    replica.submit(next_, 0)
    replica.advance(10**9)
    assert next_.scheduled_ns == big.finished_ns
    assert replica.counters.preemptions == 0


def test_tokens_are_visible_while_a_request_runs():
    replica, request = Replica(MODELS["qwen3-32b-2xh100"]), Request("a", 100, 1000)
    replica.submit(request, 0)
    replica.advance(1_000_000_000)
    seen = replica.generated(request)
    assert 10 < seen < 100
    assert replica.counters.generated_tokens == seen
    assert replica.counters.prompt_tokens == 100


def test_what_is_submitted_in_mid_iteration_waits_for_its_end():
    model = MODELS["qwen3-32b-2xh100"]
    replica, first, second = Replica(model), Request("a", 100, 50), Request("b", 100, 50)
    replica.submit(first, 0)
    replica.advance(first_end := replica.next_event())
    replica.submit(second, first_end + 1_000_000)
    replica.advance(10**12)
    assert second.scheduled_ns > first_end + 1_000_000
    assert second.scheduled_ns - first_end <= model.iteration_ps(1, 100, 0) // 1000 + 1


def test_cancelling_frees_the_cache_at_the_end_of_the_iteration():
    replica, a, b = Replica(SMALL), Request("a", 8, 50), Request("b", 8, 4)
    replica.submit(a, 0)
    replica.submit(b, 0)
    replica.advance(replica.next_event() + 1)
    assert replica.cancel(a, replica.now_ns)
    assert not replica.cancel(a, replica.now_ns)
    assert replica.running == 2
    events = replica.advance(replica.next_event())
    assert replica.running == 1
    assert replica.kv_tokens == 8 + replica.generated(b) - 1
    events += replica.advance(10**9)
    assert [e.request for e in events] == [b]
    assert a.finished_ns is None
    assert replica.kv_tokens == 0


def test_cost_grows_with_requests_and_not_with_tokens(monkeypatch):
    plans = 0
    plan = Replica._plan

    def counted(self):
        nonlocal plans
        plans += 1
        return plan(self)

    monkeypatch.setattr(Replica, "_plan", counted)
    replica = Replica(MODELS["qwen3-32b-2xh100"])
    for i in range(100):
        replica.submit(Request(i, 200, 1500 + i), 0)
    replica.advance(10**13)
    assert replica.counters.generated_tokens > 150_000
    assert plans < 250


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("r", 0, 5), "at least one token"),
        (Request("r", 5, 0), "at least one token"),
        (Request("r", 60, 5), "65 tokens, the KV cache of small holds 64"),
    ],
)
def test_an_impossible_request_is_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        Replica(SMALL).submit(request_, 0)


def test_time_does_not_go_back():
    replica = Replica(SMALL)
    replica.advance(5_000)
    with pytest.raises(ValueError, match="time goes back"):
        replica.submit(Request("r", 1, 1), 4_000)


def test_an_unknown_model_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'gpt-5'.*qwen3-32b-2xh100"):
        model_named("gpt-5")


@pytest.mark.parametrize(("field", "value"), [("base_ns", 0), ("per_kv_token_ps", -1), ("max_sequences", 16)])
def test_a_model_that_cannot_run_is_refused(field, value):
    with pytest.raises(ValueError, match="small"):
        replace(SMALL, **{field: value})
