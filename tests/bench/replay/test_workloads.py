"""Traffic, capacity, references, candidates, and the experiments over them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.replay import experiments, fault_runs, quick, traces
from bench.replay.calibration import Capacity, calibrate
from bench.replay.candidate import BUDGET
from bench.replay.candidates import CANDIDATES, Context, candidate
from bench.replay.experiments import Case, Job, prepare, tuning_case, workload_of
from bench.replay.policies.reference import Clairvoyant, Static, weighted_demand
from bench.replay.workloads import WORKLOADS, from_files
from testbed.trace import TraceError, TraceRequest
from tests.bench.replay.scene import MODEL, pod, view

MIX = traces.poisson(5.0, 0.0, 60.0, (16_000, 800), seed=0)
CAPACITY = Capacity(requests=5.0, generated=1500.0, weighted=3000.0, in_flight=45.0)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_ordered_and_bounded(name):
    workload = WORKLOADS[name]
    arrivals = workload.arrivals(1)
    times = [r.arrival for r in arrivals]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < workload.duration
    assert max(r.prompt_tokens + r.output_tokens for r in arrivals) < MODEL.kv_capacity_tokens


def test_a_seed_gives_the_same_traffic_again():
    steady = WORKLOADS["slow-leak"]
    assert steady.arrivals(1) == steady.arrivals(1) != steady.arrivals(2)


def test_the_burst_is_ten_times_the_traffic_and_the_dead_hour_is_dead():
    burst = [r.arrival for r in WORKLOADS["burst"].arrivals(0)]
    assert sum(1200 <= at < 2100 for at in burst) > 7 * sum(0 <= at < 900 for at in burst)
    assert not [r for r in WORKLOADS["dead-hour"].arrivals(0) if 1200 <= r.arrival < 4800]


def test_poisson_has_its_rate_and_lengths():
    found = traces.poisson(10.0, 100.0, 1100.0, (400, 80), seed=3)
    assert len(found) == pytest.approx(10_000, rel=0.05)
    assert sum(r.prompt_tokens for r in found) / len(found) == pytest.approx(400, rel=0.02)
    assert {300 <= r.prompt_tokens <= 500 and 60 <= r.output_tokens <= 100 for r in found} == {True}


def test_mooncake_is_spread_within_its_steps(tmp_path):
    file = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 3000 * n, "input_length": 10 + n, "output_length": 5} for n in range(4)]
    rows.append({"timestamp": 0, "input_length": 900_000, "output_length": 5})
    file.write_text("\n".join(map(json.dumps, rows)))
    found = traces.load_mooncake(file)
    assert [r.prompt_tokens for r in found] == [10, 11, 12, 13]
    assert all(3 * n <= r.arrival < 3 * n + 3 for n, r in enumerate(found))
    file.write_text('{"timestamp": 0}')
    with pytest.raises(TraceError, match="line 1"):
        traces.load_mooncake(file)


def servegen(folder, *, shape="Gamma"):
    folder.mkdir()
    for client, rate in ((0, 20.0), (7, 10.0)):
        rows = [f"{start},{rate},1.0,{shape},0.8,1.0" for start in (0, 600, 86_400)]
        (folder / f"chunk-{client}-trace.csv").write_text("\n".join(rows) + "\n1200,0,,,0,0\n")
    lengths = {"0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{50: 1.0}"}}
    (folder / "chunk-0-dataset.json").write_text(json.dumps(lengths))


@pytest.mark.parametrize("shape", ["Gamma", "Weibull"])
def test_servegen_keeps_the_rates_of_a_share_and_lends_lengths_to_clients_without(tmp_path, shape):
    servegen(tmp_path / "pool", shape=shape)
    found = traces.load_servegen(tmp_path / "pool", share=0.5, days=(1, 1))
    assert len(found) == pytest.approx(0.5 * 30 * 1200, rel=0.05)
    assert [r.arrival for r in found] == sorted(r.arrival for r in found)
    assert max(r.arrival for r in found) < 1200
    assert {r.prompt_tokens for r in found} == {100, 300}
    second = traces.load_servegen(tmp_path / "pool", share=0.5, days=(2, 2))
    assert 0 <= min(r.arrival for r in second) < 60
    with pytest.raises(TraceError, match="chunk"):
        traces.load_servegen(tmp_path, share=1.0, days=(1, 1))


def test_files_that_are_there_become_workloads(tmp_path):
    assert from_files(tmp_path) == {}
    servegen(tmp_path / "servegen-m-large")
    assert set(from_files(tmp_path)) == {"servegen-day1", "servegen-day2", "servegen-day3"}


def test_a_replicas_capacity_is_the_edge_of_the_objective():
    found = calibrate(MODEL, MIX)
    assert found.weighted == pytest.approx(found.generated + 0.3 * found.requests * 16_000, rel=0.05)
    assert found.generated == pytest.approx(found.requests * 800, rel=0.05)
    slower = calibrate(replace(MODEL, base_ns=2 * MODEL.base_ns), MIX)
    assert slower.requests < found.requests
    with pytest.raises(ValueError, match="empty"):
        calibrate(MODEL, [])
    with pytest.raises(ValueError, match="misses the objective"):
        calibrate(replace(MODEL, base_ns=60_000_000), MIX)


def test_weighted_demand_is_smoothed_over_a_minute():
    demand = weighted_demand([TraceRequest(0.5, 1000, 300), TraceRequest(100.0, 1000, 300)], 300.0)
    assert demand[0] == 600.0
    assert demand[9] == 60.0
    assert demand[59] == demand[100] == pytest.approx(10.0)
    assert demand[60] == demand[200] == 0.0


def test_the_clairvoyant_looks_as_far_as_a_new_pod_needs():
    demand = np.zeros(1000)
    demand[500:] = 100.0
    policy = Clairvoyant(demand, capacity=30.0, horizon=240.0, minimum=1, maximum=3)
    assert [policy.decide(view(at, [pod(0)])) for at in (0.0, 199.0, 201.0, 2000.0)] == [1, 1, 3, 3]


def test_every_candidate_decides_within_bounds_for_each_of_its_settings():
    context = Context(CAPACITY, 2, 9, np.full(100, 5 * CAPACITY.weighted), 240.0, 290_000)
    for one in CANDIDATES:
        for choice in (*one.choices, *([one.default] if one.default else [])):
            policy = one.policy(context, choice)
            assert policy.interval > 0
            decided = policy.decide(view(15.0, [pod(n) for n in range(3)]))
            assert 2 <= decided <= 9, one.name
    assert len({one.name for one in CANDIDATES}) == len(CANDIDATES)
    assert isinstance(candidate("static at peak").make(context, 1.0), Static)
    with pytest.raises(ValueError, match="known are: static at peak;"):
        candidate("magic")


def test_everybody_who_has_something_to_set_tries_the_same_number_of_settings():
    fixed = {"production-stack recipe", "knative kpa, default", "stoker, min and max only"}
    counts = {one.name: len(set(one.choices)) for one in CANDIDATES}
    assert {name for name, count in counts.items() if count == 1} == fixed
    assert {count for name, count in counts.items() if name not in fixed} == {BUDGET}


def test_an_unknown_workload_is_an_error_that_names_the_others():
    with pytest.raises(ValueError, match="azure-wave"):
        workload_of(Case("nonsense"))


@pytest.fixture
def short(monkeypatch, tmp_path):
    """A workload of ten minutes, so that runs take a moment."""
    small = replace(
        WORKLOADS["steady"],
        duration=1200.0,
        arrivals=lambda seed: traces.poisson(3.0, 0.0, 1200.0, (1600, 300), seed=seed),
    )
    monkeypatch.setenv("STOKER_REPLAY_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(experiments, "measured", lambda *_: CAPACITY)
    prepare.cache_clear()
    monkeypatch.setitem(experiments.WORKLOADS, "short", replace(small, name="short"))
    return Case("short", start_up=60)


def test_runs_are_the_same_one_by_one_and_in_processes(short):
    jobs = [Job(short, "stoker, min and max only", 0.0), Job(short, "static at peak", 1.0)]
    told = []
    alone = experiments.run_all(jobs, 1, told.append)
    assert [r.job for r in told] == jobs
    assert [r.score for r in alone] == [experiments.play(j).score().as_json() for j in jobs]
    assert [r.score for r in alone] == [r.score for r in experiments.run_all(jobs, 2, told.append)]
    assert alone[0].score["requests"] == alone[1].score["requests"] > 1500


def test_stoker_moves_the_wrong_way_in_no_fault(short, monkeypatch):
    monkeypatch.setattr(experiments, "FAULT_START", 700.0)
    monkeypatch.setattr(fault_runs, "FAULT_START", 700.0)
    rows = fault_runs.fault_table([short], ["stoker utilization"])
    lost = {(r["policy"], r["fault"]): r["replicas_lost"] for r in rows}
    assert set(lost.values()) == {0}
    assert len(lost) == 6


def test_the_quick_check_is_content_with_stoker_and_names_what_is_violated(short, monkeypatch):
    monkeypatch.setattr(experiments, "FAULT_START", 700.0)
    monkeypatch.setattr(fault_runs, "FAULT_START", 700.0)
    monkeypatch.setattr(quick, "STOKER", ("stoker utilization",))
    assert list(quick.violations(short)) == []
    row = {"policy": "somebody", "fault": "half-300s", "wrong_way_moves": 2, "replicas_lost": 5}
    monkeypatch.setattr(quick, "fault_table", lambda *_, **__: [row])
    monkeypatch.setattr(quick, "_of_one", lambda *_: [])
    found = list(quick.violations(short))
    assert found == ["somebody: fault half-300s took 5 replicas away in 2 moves"]


def test_what_is_tuned_on_is_not_what_is_scored(tmp_path):
    hour = Case("burst", start_up=600, seed=2)
    assert tuning_case(hour) == replace(hour, seed=experiments.TUNING_SEED)
    servegen(tmp_path / "servegen-m-large")
    day = Case("servegen-day3", seed=1, traces=tmp_path)
    assert tuning_case(day).workload == "servegen-day1"
