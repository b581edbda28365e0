"""Against a real Prometheus with a past of one day: a wave, an outage, counters that begin anew."""

import json
import shlex
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from stoker.__main__ import app
from stoker.backtest.decider import serving_pod
from stoker.backtest.history import History, Scope
from stoker.backtest.replay import Replay
from stoker.clients.answers import Span
from stoker.clients.prometheus import Prometheus
from stoker.core.observed import Memory, Snapshot
from stoker.core.promql import queries
from stoker.core.reconcile import reconcile
from stoker.core.signals import gathered
from tests.backtest.made_up import REVISION, Past, Replica, prometheus_with, wave
from tests.docs.markdown import ROOT, blocks, commands
from tests.factories import deployment, vllm

pytestmark = pytest.mark.built

HOUR, DAY = 3600.0, 86_400.0
START = 485_784 * HOUR
END = START + DAY
OUTAGE = (START + 15 * HOUR, START + 15 * HOUR + 1200.0)
RESET = START + 9 * HOUR
SPEC = {
    "model": {"uri": "hf://org/name"},
    # A stated capacity that is never reached: the targets decide, whatever is learned.
    "accelerators": [{"count": 2, "tokensPerSecond": 9000}],
    "scaling": {
        "maxReplicas": 12,
        "targets": {"concurrentRequests": 40, "generatedTokensPerSecond": 1200},
        "windows": {"up": "30s", "down": "10m"},
    },
}


def fleet(name, load):
    """Replicas by hand: the tenth part of 36 requests less than they carry, and an hour late."""
    times = range(int(START - HOUR), int(END), 60)
    replicas = [
        Replica(f"{name}-{REVISION}-0", START - HOUR, END),
        Replica(f"{name}-{REVISION}-1", START - HOUR, END),
    ]
    for number in range(2, 9):
        wanted = [at for at in times if load(at - HOUR) / 36 > number - 0.5]
        restarts = (RESET,) if number == 3 else ()
        replicas.append(Replica(f"{name}-{REVISION}-{number}", wanted[0], wanted[-1], restarts=restarts))
    return replicas


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    load = wave(START, DAY, 30.0, 330.0)
    past = Past(fleet("llama", load), load, gaps=(OUTAGE,))
    # Another fleet, of the namespace and with almost the same name, that must not be counted.
    past.add(Past([Replica(f"llama-8b-{REVISION}-0", START, END)], lambda at: 500.0))
    with prometheus_with(past, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "llama.yaml"
    metadata = {"name": "llama", "namespace": "models"}
    kind = {"apiVersion": "stoker.dev/v1alpha1", "kind": "ModelDeployment"}
    path.write_text(yaml.safe_dump({**kind, "metadata": metadata, "spec": SPEC}))
    return path


def backtest(file, server, *options, since="2025-06-02T00:00:00Z", until="2025-06-03T00:00:00Z"):
    arguments = ["backtest", "-f", str(file), "--prometheus", server.url, "--from", since, "--to", until]
    return CliRunner().invoke(app, [*arguments, *options])


def test_a_day_in_numbers(file, server):
    result = backtest(file, server, "--json", "--step", "60s", "--start-up", "4m", "--cost-per-gpu-hour", "2")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    ours, real = found["simulated"], found["recorded"]

    assert (ours["replicasMax"], real["replicasMax"]) == (9, 9)
    # The wave's mean is 180 requests, 4.5 of 40; rounding up, windows and start-up come on top.
    assert 2 * 24 * 4.5 < ours["gpuHours"] < 2 * 24 * 6
    assert ours["gpuHours"] < real["gpuHours"]
    assert ours["cost"] == pytest.approx(2 * ours["gpuHours"], abs=0.02)
    assert found["scrapeIntervalSeconds"] == 15.0
    assert found["capacity"]["samples"] > 100

    (gap,) = found["gaps"]
    assert (gap["from"][:16], gap["to"][:16]) == ("2025-06-02T14:59", "2025-06-02T15:20")
    assert 18 < found["unknownMinutes"] < 23
    inside = [d for d in found["decisions"] if "2025-06-02T15:00:30" < d["time"] < "2025-06-02T15:20"]
    assert inside == []
    at_reset = [d for d in found["decisions"] if d["to"] < d["from"] and d["time"] < "2025-06-02T12:00"]
    assert [d["time"] for d in at_reset if "T08:" < d["time"][10:14] < "T11:"] == []
    assert len(found["decisions"]) >= 10
    assert all(d["limitedBy"] and d["message"] for d in found["decisions"])


def test_the_guide_shows_what_is_printed(server, tmp_path, monkeypatch):
    """The command of the page, on its spec and on the history that it was written from."""
    page = (ROOT / "docs" / "how-to" / "backtest.md").read_text()
    (command,) = commands(page)
    typed = command.text.replace("\\\n", " ")
    (spec,) = blocks(page, "yaml")
    (tmp_path / "llama.yaml").write_text(spec)
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(typed.replace("http://localhost:9090", server.url))
    assert program == "stoker"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert command.missing(result.stdout) is None


async def test_decisions_are_those_of_the_operator_at_the_same_instants(server):
    """In the rise, around the reset and the outage: instant queries and all of ``reconcile`` beside it."""
    llama, changes = deployment(**SPEC), 0
    for begin in (START + 2.75 * HOUR, RESET - 1200, OUTAGE[0] - 600):
        span = Span(begin, begin + 2400, 30.0)
        scope = Scope(llama.key, "llama-[0-9a-z]+-[0-9]+")
        async with Prometheus(server.url, timeout=60) as client:
            history = History(client, scope, scope.narrowed(vllm()), latency=False)
            found = await history.survey(replace(span, start=span.start - 600))
            present = [there for _, there in found.present(span.at(n) for n in range(span.count))]
            replay = Replay(llama, history.metrics, 240.0, 60.0)
            number = 0
            async for answers in history.instants(span, 10):
                replay.step(span.at(number), present[number], answers)
                number += 1
            live = [n async for n in lived(client, llama, span, present)]
        assert [m.wanted for m in replay.outcome.moments] == live
        changes += len(set(live)) - 1
    assert changes > 0


async def lived(client, llama, span, present):
    """The replica counts that the operator publishes when it looks at each instant."""
    memory, current = Memory(), llama
    for number, lives in enumerate(present):
        at = span.at(number)
        answers = await client.query_all(queries([vllm()]), at=at)
        pods = tuple(serving_pod(x.pod, llama, created=x.start - 240.0, ready=x.start) for x in lives)
        snapshot = Snapshot(
            now=at,
            deployments={llama.key: current},
            pods={llama.key: pods},
            metrics=gathered(answers, [(pod.key, vllm()) for pod in pods], at, 60.0),
            memory={llama.key: memory},
        )
        plan = reconcile(snapshot)[llama.key]
        assert plan.error is None
        memory, current = plan.memory, replace(current, status=plan.status or current.status)
        yield current.status.desired_replicas


def test_a_namespace_without_data(file, server):
    result = backtest(file, server, "--namespace", "elsewhere")
    assert result.exit_code == 2
    assert (
        'no series vllm:num_requests_running{namespace="elsewhere",pod=~"llama-[0-9a-z]+-[0-9]+"}'
        in result.stderr
    )
    assert "It has vllm:num_requests_running in models: set --namespace" in result.stderr


def test_pods_of_other_names(file, server):
    result = backtest(file, server, "--pods", "engine-.*")
    assert result.exit_code == 2
    assert f"In that namespace it has llama-{REVISION}-0, llama-{REVISION}-1" in result.stderr
    assert "say with --pods" in result.stderr


def test_pods_that_stoker_did_not_name(file, server):
    result = backtest(file, server, "--pods", r"llama-8b-\w+-\d", "--step", "60s", "--json")
    assert result.exit_code == 0, result.stderr
    assert {m["recorded"] for m in json.loads(result.stdout)["replicas"]} == {1}


@pytest.mark.parametrize(
    ("since", "until", "why"),
    [
        ("2025-05-01", "2025-05-02", "It has no vllm:num_requests_running at all then"),
        ("2025-06-01", "2025-06-03", "nothing was recorded from 2025-06-01 00:00 UTC to 2025-06-01 23:00"),
        ("2025-06-02", "2025-06-04", "write --to 2025-06-03T00:00:"),
    ],
)
def test_a_time_without_data(file, server, since, until, why):
    result = backtest(file, server, since=since, until=until)
    assert result.exit_code == 2
    assert why in result.stderr


def test_a_target_whose_series_are_missing(file, server):
    spec = yaml.safe_load(file.read_text())
    spec["spec"]["scaling"]["signals"] = [{"name": "jobs", "query": "sum(jobs_waiting)", "target": 5}]
    file.write_text(yaml.safe_dump(spec))
    result = backtest(file, server, "--step", "60s")
    assert result.exit_code == 2
    assert "the demand for signals[jobs] was not known for 100% of the time" in result.stderr
    assert "the query gives no element" in result.stderr


def test_a_query_that_prometheus_refuses(file, server):
    spec = yaml.safe_load(file.read_text())
    spec["spec"]["scaling"]["signals"] = [{"name": "jobs", "query": "sum(jobs", "target": 5}]
    file.write_text(yaml.safe_dump(spec))
    result = backtest(file, server)
    assert result.exit_code == 2
    assert "did not answer query 'signal: sum(jobs'" in result.stderr
    assert "parse error" in result.stderr
