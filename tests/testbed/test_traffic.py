"""Load as a gateway sends it: against real listeners, with pods from a list."""

import asyncio
import json

import pytest

from testbed.gateway import Gateway
from testbed.pods import PodChange
from testbed.trace import TraceRequest
from testbed.traffic import Traffic, TrafficOptions, _Exchange, _main, _parser, _stages, play
from testbed.traffic_report import Counters, Outcome
from tests.testbed.simulated import (
    ApiServer,
    a_pod,
    eventually,
    manifest,
    reading,
    serving,
)


def traffic_to(*pods, requests, **gateway):
    chosen = Gateway(**gateway)
    for pod in pods:
        chosen.apply(PodChange(pod))
    return Traffic(requests, chosen, TrafficOptions("qwen"))


def burst(count, output=5, every=0.0):
    return [TraceRequest(i * every, 50, output) for i in range(count)]


async def test_requests_are_served_and_measured():
    pods = [a_pod("a"), a_pod("b")]
    async with serving(*pods) as engines:
        traffic = traffic_to(*pods, requests=burst(10, output=8, every=0.01))
        results = await traffic.run()
        totals = engines.stats()["totals"]
    assert [r.outcome for r in results] == [Outcome.SERVED] * 10
    assert {r.pod for r in results} == {"ns/a", "ns/b"}
    assert all(r.tokens == 8 and 0 < r.ttft < r.duration and r.tpot > 0 for r in results)
    # A prefill and seven decode steps of Qwen3-32B on two H100: never faster than the engine computes.
    assert min(r.ttft for r in results) > 0.014
    assert min(r.duration for r in results) > 8 * 0.014
    assert totals["served"] == 10
    assert totals["generated_tokens"] == 80
    counters = traffic.counters
    assert (counters.arrivals, counters.served, counters.in_flight) == (10, 10, 0)
    assert (counters.prompt_tokens, counters.generated_tokens) == (500, 80)
    assert (counters.asked_prompt_tokens, counters.asked_output_tokens) == (500, 80)


async def test_arrivals_keep_their_times():
    pod = a_pod("a")
    async with serving(pod):
        traffic = traffic_to(pod, requests=[TraceRequest(0.0, 5, 1), TraceRequest(0.3, 5, 1)])
        playing = asyncio.create_task(traffic.run())
        await eventually(lambda: traffic.counters.served == 1)
        assert traffic.counters.arrivals == 1
        results = await playing
    assert [r.arrival for r in results] == [0.0, 0.3]


async def test_a_stream_that_breaks_off_is_a_cut():
    pod = a_pod("a")
    async with serving(pod) as engines:
        traffic = traffic_to(pod, requests=burst(3, output=2000))
        playing = asyncio.create_task(traffic.run())
        await eventually(lambda: 0 < traffic.counters.asked_prompt_tokens == traffic.counters.prompt_tokens)
        assert traffic.counters.in_flight == 3
        await engines.apply(pod, gone=True)
        results = await playing
        assert engines.stats()["totals"]["cut"] == 3
    assert [r.outcome for r in results] == [Outcome.CUT] * 3
    assert all(r.ttft is not None and 0 < r.tokens < 2000 for r in results)
    assert "ns/a: Client" in results[0].detail


async def test_a_pod_out_of_routing_finishes_what_it_has():
    pods = [a_pod("a"), a_pod("b")]
    async with serving(*pods):
        traffic = traffic_to(
            *pods, requests=[*burst(2, output=60), TraceRequest(0.4, 5, 1), TraceRequest(0.41, 5, 1)]
        )
        playing = asyncio.create_task(traffic.run())
        await eventually(lambda: traffic.counters.in_flight == 2)
        traffic.gateway.apply(PodChange(pods[0], gone=True))
        results = await playing
    assert [r.outcome for r in results] == [Outcome.SERVED] * 4
    assert sorted(r.pod for r in results) == ["ns/a", "ns/b", "ns/b", "ns/b"]


async def test_a_connection_that_is_refused_is_tried_elsewhere():
    dead, alive = a_pod("dead"), a_pod("alive")
    async with serving(alive):
        results = await traffic_to(dead, alive, requests=burst(4)).run()
    assert {(r.outcome, r.pod) for r in results} == {(Outcome.SERVED, "ns/alive")}


async def test_an_endpoint_that_is_a_little_late_gets_the_request_all_the_same():
    pod = a_pod("a")
    async with serving() as engines:
        traffic = traffic_to(pod, requests=burst(2))
        playing = asyncio.create_task(traffic.run())
        await eventually(lambda: traffic.counters.arrivals == 2)
        await engines.apply(pod)
        results = await playing
    assert [r.outcome for r in results] == [Outcome.SERVED] * 2


async def test_refused_everywhere_is_refused(monkeypatch):
    monkeypatch.setattr("testbed.traffic._BACK_OFF_SECONDS", (0.01,))
    (result,) = await traffic_to(a_pod("dead"), requests=burst(1)).run()
    assert result.outcome is Outcome.REFUSED
    assert "ns/dead: Cannot connect" in result.detail
    assert result.ttft is None


async def test_no_endpoint_is_refused_after_the_wait():
    (result,) = await traffic_to(requests=burst(1), queue_seconds=0.02).run()
    assert (result.outcome, result.pod) == (Outcome.REFUSED, None)


async def test_an_http_error_is_refused_with_its_text():
    pod = a_pod("a", command=("--served-model-name=other",))
    async with serving(pod):
        (result,) = await traffic_to(pod, requests=burst(1)).run()
    assert result.outcome is Outcome.REFUSED
    assert "HTTP 404" in result.detail
    assert "serves `other`" in result.detail


async def test_queued_requests_are_served_when_the_first_pod_is_ready():
    pod = a_pod("a")
    async with serving(pod):
        traffic = traffic_to(requests=burst(5))
        playing = asyncio.create_task(traffic.run())
        await eventually(lambda: traffic.counters.queued == 5)
        traffic.gateway.apply(PodChange(pod))
        results = await playing
    assert [r.outcome for r in results] == [Outcome.SERVED] * 5
    assert all(0 < r.queued < r.ttft for r in results)


async def test_stopping_abandons_what_is_under_way():
    pod = a_pod("a")
    async with serving(pod):
        traffic = traffic_to(pod, requests=burst(2, output=3000))
        playing = asyncio.create_task(traffic.run())
        await eventually(lambda: traffic.counters.generated_tokens > 0)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
    assert [r.outcome for r in traffic.results] == [Outcome.ABANDONED] * 2
    assert traffic.counters.abandoned == 2


def test_markers_are_found_across_the_borders_of_blocks():
    stream = b'data: {"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
    stream += b'data: {"usage":{"prompt_tokens":5,"completion_tokens":12}}\n\ndata: [DONE]\n\n'
    for size in range(1, len(stream)):
        counters = Counters()
        exchange = _Exchange(TraceRequest(0.0, 5, 12), counters)
        for at in range(0, len(stream), size):
            exchange.received(stream[at : at + size], 1.0 + at)
        exchange.finish("pod")
        result = exchange.result(9.0)
        assert (result.outcome, result.tokens, counters.generated_tokens) == (Outcome.SERVED, 12, 12)


def test_a_stream_without_its_end_mark_is_a_cut():
    exchange = _Exchange(TraceRequest(0.0, 5, 12), Counters())
    exchange.received(b'data: {"usage":{"completion_tokens":3}}\n\n', 1.0)
    exchange.finish("ns/a")
    assert exchange.result(2.0).outcome is Outcome.CUT


async def test_traffic_plays_at_a_service(tmp_path):
    pod = a_pod("a")
    async with ApiServer() as server, serving(pod), reading(tmp_path, server) as reader:
        server.listed = []
        traffic = traffic_to(requests=burst(3))
        playing = asyncio.create_task(play(traffic, reader, namespace="ns", service="svc"))
        await eventually(lambda: traffic.counters.queued == 3 and "app=m" in server.watches)
        server.watches["app=m"].put_nowait(("ADDED", manifest("a", pod.ip)))
        results = await playing
    assert [(r.outcome, r.pod) for r in results] == [(Outcome.SERVED, "ns/a")] * 3


async def test_the_command_plays_a_trace_and_reports_every_request(tmp_path, capsys):
    pod = a_pod("a")
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.0,20,3\n2023-11-16 18:15:47.0,9,2\n"
    )
    async with ApiServer() as server, serving(pod), reading(tmp_path, server):
        server.listed = [manifest("a", pod.ip)]
        arguments = {
            "kubeconfig": tmp_path / "kubeconfig",
            "namespace": "ns",
            "service": "svc",
            "model": "qwen",
        }
        arguments |= {"trace": trace, "stages": "0:2", "duration": 1.0}
        arguments |= {"report": tmp_path / "report", "results": tmp_path / "results"}
        await _main(_parser().parse_args([f"--{key}={value}" for key, value in arguments.items()]))
    report = json.loads((tmp_path / "report").read_text())
    assert json.loads(capsys.readouterr().out) == report
    results = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert len(results) == report["requests"] == report["served"] > 0
    assert all(
        r["outcome"] == "served" and r["tokens"] == r["output_tokens"] and r["ttft"] > 0 for r in results
    )


async def test_a_bug_in_following_pods_ends_the_play(tmp_path):
    async with ApiServer() as server, reading(tmp_path, server) as reader:
        server.listed = [{"metadata": {"namespace": "ns", "name": "no-spec", "uid": "u"}}]
        traffic = traffic_to(requests=burst(1))
        with pytest.raises(KeyError, match="spec"):
            await play(traffic, reader, namespace="ns", service="svc")


def test_stages_are_read_from_the_command_line():
    assert [(s.start, s.copies) for s in _stages("0:2,60:8")] == [(0, 2), (60, 8)]
