"""Load as a gateway sends it: against real listeners, with pods from a list instead of a control plane."""

import asyncio
import contextlib
import itertools
import json
import os
from dataclasses import replace

import pytest
from aiohttp import web

from testbed.engine_pods import EngineOptions, Engines
from testbed.gateway import Gateway, NoEndpointError, ServicePods
from testbed.kubewatch import KubeReader
from testbed.pods import Pod, PodChange
from testbed.trace import TraceRequest
from testbed.traffic import Outcome, Traffic, TrafficOptions, _Exchange, _main, _parser, _stages, play
from testbed.traffic_report import Counters, Result, percentile, summarize

# 127.64.0.0/10 belongs to these tests: second byte by xdist worker, third by process, so nobody collides.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ADDRESSES = (f"127.{64 + WORKER % 64}.{os.getpid() % 250}.{n}" for n in itertools.count(100))
COMMAND = ("--served-model-name=m",)


def a_pod(name, **changes) -> Pod:
    pod = Pod(
        "ns", name, f"uid-{name}", next(ADDRESSES), started=True, ready=True, port=8000, command=COMMAND
    )
    return replace(pod, **changes)


@contextlib.asynccontextmanager
async def serving(*pods):
    engines = Engines(EngineOptions(stream_interval=1, tick=0.005))
    for pod in pods:
        await engines.apply(pod)
    try:
        yield engines
    finally:
        engines.close()
        await asyncio.sleep(0)


def traffic_to(*pods, requests, **gateway):
    chosen = Gateway(**gateway)
    for pod in pods:
        chosen.apply(PodChange(pod))
    return Traffic(requests, chosen, TrafficOptions("m"))


def burst(count, output=5, every=0.0):
    return [TraceRequest(i * every, 50, output) for i in range(count)]


async def eventually(check):
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.002)


# --- Which endpoint


@pytest.mark.parametrize(
    ("changes", "takes"),
    [({}, True), ({"ready": False}, False), ({"deleting": True}, False), ({"ip": None}, False)],
)
def test_only_ready_pods_that_are_not_being_deleted_take_requests(changes, takes):
    gateway = Gateway()
    gateway.apply(PodChange(a_pod("a")))
    gateway.apply(PodChange(a_pod("a", **changes)))
    assert bool(gateway.endpoints) is takes


async def test_the_endpoint_with_the_least_requests_in_flight_is_picked():
    gateway = Gateway()
    for name in "abc":
        gateway.apply(PodChange(a_pod(name)))
    held = []
    for _ in range(7):
        held.append(await gateway.pick())
        held[-1].in_flight += 1
    assert [one.pod for one in held] == ["ns/a", "ns/b", "ns/c"] * 2 + ["ns/a"]
    held[5].in_flight = 0
    assert (await gateway.pick()).pod == "ns/c"


async def test_a_request_counts_while_it_is_under_way_even_if_it_fails():
    gateway = Gateway()
    gateway.apply(PodChange(a_pod("a")))
    endpoint = await gateway.pick()
    with contextlib.suppress(ValueError), gateway.using(endpoint):
        assert endpoint.in_flight == 1
        raise ValueError
    assert endpoint.in_flight == 0


async def test_a_lone_request_goes_round_the_endpoints():
    gateway = Gateway()
    for name in "ab":
        gateway.apply(PodChange(a_pod(name)))
    assert [(await gateway.pick()).pod for _ in range(4)] == ["ns/a", "ns/b", "ns/a", "ns/b"]


async def test_news_of_a_pod_does_not_forget_its_requests_in_flight():
    gateway, pod = Gateway(), a_pod("a")
    gateway.apply(PodChange(pod))
    with gateway.using(await gateway.pick()):
        gateway.apply(PodChange(replace(pod, annotations={"x": "y"})))
        assert gateway.endpoints[0].in_flight == 1


async def test_requests_wait_in_order_until_there_is_an_endpoint():
    gateway, order = Gateway(), []

    async def wait(number):
        await gateway.pick()
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(wait(number))
        await eventually(lambda: gateway.queued == 3)
        gateway.apply(PodChange(a_pod("a")))
    assert order == [0, 1, 2]
    assert gateway.queued == 0


async def test_an_endpoint_that_goes_at_once_leaves_the_queue_waiting():
    gateway, pod = Gateway(), a_pod("a")
    waiting = asyncio.create_task(gateway.pick())
    await eventually(lambda: gateway.queued == 1)
    gateway.apply(PodChange(pod))
    gateway.apply(PodChange(pod, gone=True))
    await eventually(lambda: gateway.queued == 1)
    gateway.apply(PodChange(pod))
    assert (await waiting).pod == "ns/a"


async def test_the_queue_is_bounded_in_length_and_in_time():
    gateway = Gateway(queue_limit=1, queue_seconds=0.05)
    waiting = asyncio.create_task(gateway.pick())
    await eventually(lambda: gateway.queued == 1)
    with pytest.raises(NoEndpointError, match="1 requests wait already"):
        await gateway.pick()
    with pytest.raises(NoEndpointError, match=r"no endpoint within 0\.05 s"):
        await waiting
    assert gateway.queued == 0


# --- What becomes of requests


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
        await eventually(lambda: traffic.counters.generated_tokens > 5)
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


# --- The Service's pods


class ApiServer:
    """Serves one Service and pods by label; every watch stays open and sends what the test pushes."""

    def __init__(self):
        self.selector = {"app": "m"}
        self.listed = None
        self.watches: dict[str, asyncio.Queue] = {}

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/ns/services", self.services)
        app.router.add_get("/api/v1/namespaces/ns/pods", self.pods)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def services(self, request):
        return await self.answer(request, "services", [self.service()])

    async def pods(self, request):
        label = request.query["labelSelector"]
        listed = [manifest(f"pod-of-{label.replace('=', '-')}")] if self.listed is None else self.listed
        return await self.answer(request, label, listed)

    async def answer(self, request, name, items):
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        queue = self.watches[name] = asyncio.Queue()
        while True:
            kind, item = await queue.get()
            await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")

    def service(self):
        return {
            "metadata": {"namespace": "ns", "name": "svc", "uid": "s"},
            "spec": {"selector": self.selector},
        }


def manifest(name, ip="127.0.0.1"):
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": name},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 8000}]}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


@contextlib.asynccontextmanager
async def reading(tmp_path, server):
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    async with KubeReader(tmp_path / "kubeconfig") as reader:
        yield reader


async def test_the_pods_of_a_service_follow_its_selector(tmp_path):
    async with ApiServer() as server, reading(tmp_path, server) as reader:
        changes = ServicePods(reader, namespace="ns", service="svc").changes()

        async def next_change():
            change = await asyncio.wait_for(anext(changes), 10)
            return change.pod.name, change.gone

        assert await next_change() == ("pod-of-app-m", False)
        await eventually(lambda: {"services", "app=m"} <= server.watches.keys())
        server.watches["app=m"].put_nowait(("DELETED", manifest("pod-of-app-m")))  # its label was taken off
        assert await next_change() == ("pod-of-app-m", True)
        server.watches["app=m"].put_nowait(("ADDED", manifest("b")))
        assert await next_change() == ("b", False)
        server.selector = {"app": "n", "serving": "true"}
        server.watches["services"].put_nowait(("MODIFIED", server.service()))
        assert await next_change() == ("b", True)
        assert await next_change() == ("pod-of-app-n,serving-true", False)
        server.watches["services"].put_nowait(("DELETED", server.service()))
        assert await next_change() == ("pod-of-app-n,serving-true", True)
        await changes.aclose()


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
        arguments = {"kubeconfig": tmp_path / "kubeconfig", "namespace": "ns", "service": "svc", "model": "m"}
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


# --- The report


def a_result(outcome=Outcome.SERVED, **changes):
    return replace(Result(0.0, 10, 4, 4, outcome, "ns/a", 0.0, 0.5, 0.02, 1.0), **changes)


def test_percentiles_are_values_that_occurred():
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile([1, 2, 3, 4], 99) == 4
    assert percentile([7], 1) == 7
    assert percentile([], 50) is None


def test_the_summary_counts_outcomes_and_knows_no_zero_for_nothing():
    refused = a_result(Outcome.REFUSED, ttft=None, tpot=None, tokens=0, pod=None, detail="no endpoint")
    summary = summarize(
        [a_result(), a_result(ttft=1.5), a_result(Outcome.CUT, tokens=2, detail="broken"), refused]
    )
    assert (summary["requests"], summary["served"], summary["cut"], summary["refused"]) == (4, 2, 1, 1)
    assert summary["ttft_seconds"] == {
        "mean": 2.5 / 3,
        "p50": 0.5,
        "p90": 1.5,
        "p95": 1.5,
        "p99": 1.5,
        "max": 1.5,
    }
    assert summary["generated_tokens"] == 10
    assert summary["prompt_tokens"] == 20
    assert summary["served_by_pod"] == {"ns/a": 2}
    assert summary["failures"] == {"broken": 1, "no endpoint": 1}
    assert summarize([refused])["ttft_seconds"]["p50"] is None
    assert json.dumps(summary)


def test_stages_are_read_from_the_command_line():
    assert [(s.start, s.copies) for s in _stages("0:2,60:8")] == [(0, 2), (60, 8)]
