"""Simulated engines over real HTTP, each at an address of its own; no control plane."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from testbed.engine import MetricsFault
from testbed.engine_pods import FAULT_ANNOTATION, MODEL_ANNOTATION, EngineOptions, Engines
from testbed.engines import EngineFleet, EngineFleetError, control_app
from testbed.openai_api import PROMPT_TOKENS_HEADER
from testbed.pods import Pod, PodChange

# 127.64.0.0/10 belongs to these tests: second byte by xdist worker, third by process, so nobody collides.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ADDRESSES = (f"127.{64 + WORKER % 64}.{os.getpid() % 250}.{n}" for n in itertools.count(1))
PORT = 8000
COMMAND = ("vllm", "serve", "org/model", "--served-model-name", "qwen")


def a_pod(name="p", **changes) -> Pod:
    pod = Pod(
        "ns",
        name,
        uid=f"uid-{name}",
        ip=next(ADDRESSES),
        started=True,
        ready=True,
        port=PORT,
        command=COMMAND,
    )
    return replace(pod, **changes)


@contextlib.asynccontextmanager
async def serving(*pods: Pod, **options) -> AsyncIterator[Engines]:
    engines = Engines(EngineOptions(**{"stream_interval": 1, "tick": 0.005, **options}))
    try:
        for pod in pods:
            await engines.apply(pod)
        yield engines
    finally:
        engines.close()
        await asyncio.sleep(0)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


def url(pod: Pod, path: str) -> str:
    return f"http://{pod.ip}:{pod.port}{path}"


def ask(session, pod, *, chat=False, prompt=100, output=5, **fields):
    """Post a completion."""
    body = {"model": "qwen", "max_tokens": output, **fields}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return session.post(url(pod, path), json=body, headers={PROMPT_TOKENS_HEADER: str(prompt)})


async def chunks(answer) -> list:
    """The data of every server-sent event."""
    events = (await answer.text()).split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [event[6:] if event[6:] == "[DONE]" else json.loads(event[6:]) for event in events]


async def metric(session, pod, name) -> float:
    """The sum of a metric's series."""
    async with session.get(url(pod, "/metrics")) as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


async def eventually(check):
    async with asyncio.timeout(10):
        while not (value := check()):  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)
    return value


async def test_a_completion(http):
    pod = a_pod()
    async with serving(pod), ask(http, pod, output=7) as answer:
        body = await answer.json()
    assert answer.status == 200
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == " tok" * 7
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}


async def test_a_chat_completion(http):
    pod = a_pod()
    async with serving(pod), ask(http, pod, chat=True, output=3) as answer:
        body = await answer.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": " tok" * 3}


async def test_a_stream_has_a_chunk_per_token_and_an_end(http):
    pod = a_pod()
    async with serving(pod), ask(http, pod, output=4, stream=True) as answer:
        *events, done = await chunks(answer)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert done == "[DONE]"
    assert [e["choices"][0]["finish_reason"] for e in events] == [None] * (len(events) - 1) + ["length"]
    assert "".join(e["choices"][0]["text"] for e in events) == " tok" * 4


async def test_a_chat_stream_starts_with_the_role_and_can_end_with_the_usage(http):
    pod = a_pod()
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with (
        serving(pod),
        ask(http, pod, chat=True, output=3, stream=True, stream_options=options) as answer,
    ):
        role, *events, usage, _ = await chunks(answer)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(e["choices"][0]["delta"]["content"] for e in events) == " tok" * 3
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103}


async def test_stream_interval_coalesces_tokens_after_the_first(http):
    pod = a_pod(command=(*COMMAND, "--stream-interval=8"))
    async with serving(pod, tick=0.002), ask(http, pod, output=20, stream=True) as answer:
        *events, _ = await chunks(answer)
    lengths = [len(e["choices"][0]["text"]) // 4 for e in events]
    assert sum(lengths) == 20
    assert len(lengths) <= 4
    assert all(length >= 8 for length in lengths[1:-1])


async def test_the_prompt_s_length_comes_from_its_text_without_the_header(http):
    pod = a_pod()
    body = {"model": "qwen", "prompt": "x" * 41, "max_tokens": 1}
    async with serving(pod), http.post(url(pod, "/v1/completions"), json=body) as answer:
        assert (await answer.json())["usage"]["prompt_tokens"] == 11


async def test_models_health_and_version(http):
    pod = a_pod()
    async with serving(pod):
        async with http.get(url(pod, "/v1/models")) as answer:
            assert [m["id"] for m in (await answer.json())["data"]] == ["qwen"]
        async with http.get(url(pod, "/health")) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with http.get(url(pod, "/version")) as answer:
            assert (await answer.json())["version"].startswith("0.33")


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": "other"}, 404, "`other` does not exist; this engine serves `qwen`"),
        ({"max_tokens": 0}, 400, "max_tokens must be an integer of at least 1"),
        ({"max_tokens": 400_000}, 400, "KV cache"),
        ({"prompt": ["a", "b"]}, 400, "prompt must be one string"),
        ({"n": 2}, 400, "n must be 1"),
    ],
)
async def test_a_bad_request_is_refused_with_the_field_and_the_remedy(http, fields, status, message):
    pod = a_pod()
    body = {"model": "qwen", "prompt": "hi", "max_tokens": 1, **fields}
    async with serving(pod) as engines:
        async with http.post(url(pod, "/v1/completions"), json=body) as answer:
            assert answer.status == status
            assert message in (await answer.json())["error"]["message"]
        assert engines.stats()["pods"]["ns/p"]["refused"] == 1
        assert engines.stats()["pods"]["ns/p"]["accepted"] == 0


async def test_a_body_that_is_no_json_and_a_path_that_is_none(http):
    pod = a_pod()
    async with serving(pod):
        async with http.post(url(pod, "/v1/completions"), data=b"{") as answer:
            assert answer.status == 400
        async with http.get(url(pod, "/sleep")) as answer:
            assert answer.status == 404
        async with http.get(url(pod, "/v1/completions")) as answer:
            assert answer.status == 405


async def test_connections_are_refused_until_the_engine_has_loaded(http):
    pod = a_pod(started=False)
    async with serving(pod) as engines:
        for path in ("/health", "/metrics", "/v1/models"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.get(url(pod, path))
        await engines.apply(replace(pod, started=True))
        async with http.get(url(pod, "/health")) as answer:
            assert answer.status == 200


async def test_a_pod_without_an_address_waits_for_one(http):
    pod = a_pod()
    async with serving(replace(pod, ip=None)) as engines:
        await engines.apply(pod)
        async with http.get(url(pod, "/health")) as answer:
            assert answer.status == 200


async def test_streams_are_cut_and_counted_when_the_pod_is_gone(http):
    pod = a_pod()
    async with serving(pod) as engines:
        answer = await ask(http, pod, output=1000, stream=True)
        await answer.content.readany()
        await engines.apply(pod, gone=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.text()
        stats = engines.stats()
        assert stats["pods"] == {}
        assert (stats["gone"]["cut"], stats["gone"]["aborted"], stats["gone"]["served"]) == (1, 0, 0)
        assert stats["totals"]["generated_tokens"] > 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url(pod, "/health"))


async def test_an_answer_that_does_not_stream_is_cut_as_well(http):
    pod = a_pod()
    async with serving(pod) as engines:
        waiting = asyncio.create_task(_read(ask(http, pod, output=1000)))
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["accepted"])
        await engines.apply(pod, gone=True)
        with pytest.raises(aiohttp.ClientError):
            await waiting
        assert engines.stats()["gone"]["cut"] == 1


async def _read(request):
    async with request as answer:
        return await answer.read()


async def test_a_pod_that_is_being_deleted_serves_until_its_object_is_gone(http):
    pod = a_pod()
    async with serving(pod) as engines:
        async with ask(http, pod, output=30, stream=True) as answer:
            await answer.content.readany()
            await engines.apply(replace(pod, deleting=True, ready=False))
            assert (await answer.text()).endswith("data: [DONE]\n\n")
        assert engines.stats()["totals"]["cut"] == 0


async def test_a_restarted_container_is_a_new_engine(http):
    pod = a_pod()
    async with serving(pod) as engines:
        await _read(ask(http, pod, output=2))
        assert await metric(http, pod, "vllm:generation_tokens_total") == 2
        await engines.apply(replace(pod, restarts=1, started=False))
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url(pod, "/health"))
        await engines.apply(replace(pod, restarts=1))
        assert await metric(http, pod, "vllm:generation_tokens_total") == 0
        assert engines.stats()["totals"]["generated_tokens"] == 2


async def test_a_restart_is_noticed_even_if_its_loading_was_missed(http):
    pod = a_pod()
    async with serving(pod) as engines:
        await _read(ask(http, pod, output=2))
        await engines.apply(replace(pod, restarts=1))
        assert await metric(http, pod, "vllm:generation_tokens_total") == 0


async def test_news_of_an_earlier_pod_of_that_name_changes_nothing(http):
    pod = a_pod()
    async with serving(pod) as engines:
        await engines.apply(replace(pod, uid="earlier"), gone=True)
        async with http.get(url(pod, "/health")) as answer:
            assert answer.status == 200


async def test_two_pods_with_one_port_are_two_engines(http):
    a, b = a_pod("a"), a_pod("b", command=("--model=other",))
    async with serving(a, b) as engines:
        await _read(ask(http, a, output=4))
        assert await metric(http, a, "vllm:generation_tokens_total") == 4
        assert await metric(http, b, "vllm:generation_tokens_total") == 0
        assert engines.stats()["pods"]["ns/b"]["model"] == "other"


async def test_metrics_move_while_a_request_runs(http):
    pod = a_pod()
    async with serving(pod), ask(http, pod, prompt=3000, output=1000, stream=True) as answer:
        await answer.content.readany()
        first = await metric(http, pod, "vllm:generation_tokens_total")
        assert await metric(http, pod, "vllm:prompt_tokens_total") == 3000
        assert await metric(http, pod, "vllm:num_requests_running") == 1
        assert await metric(http, pod, "vllm:e2e_request_latency_seconds_count") == 0
        for _ in range(3):
            await answer.content.readany()
        assert first < await metric(http, pod, "vllm:generation_tokens_total") < 1000


async def test_a_client_that_goes_away_frees_its_place(http):
    pod = a_pod()
    async with serving(pod) as engines:
        answer = await ask(http, pod, output=5000, stream=True)
        await answer.content.readany()
        answer.close()
        stats = await eventually(
            lambda: engines.stats()["pods"]["ns/p"]["aborted"] and engines.stats()["pods"]["ns/p"]
        )
        assert (stats["served"], stats["cut"]) == (0, 0)
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["running"] == 0)
        assert (
            await metric(
                http, pod, 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="qwen"}'
            )
            == 0
        )
        assert await metric(http, pod, "vllm:num_requests_running") == 0


async def test_a_client_that_stops_waiting_for_a_whole_answer_frees_its_place_too(http):
    pod = a_pod()
    async with serving(pod) as engines:
        waiting = asyncio.create_task(_read(ask(http, pod, output=5000)))
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["accepted"] == 1)
        waiting.cancel()
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["aborted"] == 1)


async def test_many_streams_share_the_batch(http):
    pod = a_pod()
    async with serving(pod) as engines:
        answers = await asyncio.gather(
            *(_read(ask(http, pod, prompt=10, output=20, stream=True)) for _ in range(40))
        )
        assert all(body.endswith(b"[DONE]\n\n") for body in answers)
        assert engines.stats()["totals"]["served"] == 40


async def test_the_pod_chooses_its_coefficients_and_limits(http):
    pod = a_pod(
        annotations={MODEL_ANNOTATION: "llama-3.1-70b-fp8-1xh200"}, command=(*COMMAND, "--max-num-seqs", "1")
    )
    async with serving(pod) as engines:
        async with http.get(url(pod, "/metrics")) as answer:
            assert 'kv_cache_size_tokens="160000"' in await answer.text()
        both = [await ask(http, pod, output=50, stream=True) for _ in range(2)]
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["running"] == 1)
        assert engines.stats()["pods"]["ns/p"]["waiting"] == 1
        for answer in both:
            await answer.read()


@pytest.mark.parametrize("changes", [{"annotations": {MODEL_ANNOTATION: "none"}}, {"ip": "192.0.2.1"}])
async def test_an_engine_that_cannot_start_is_reported_and_the_others_serve(http, caplog, changes):
    bad, good = a_pod("bad", **changes), a_pod("good")
    async with serving(bad, good), http.get(url(good, "/health")) as answer:
        assert answer.status == 200
    assert "pod ns/bad: no engine" in caplog.text


async def test_an_address_that_is_taken_is_tried_again(http, monkeypatch):
    monkeypatch.setattr("testbed.engine_pods._RETRY_SECONDS", 0.02)
    first = a_pod("first")
    second = a_pod("second", ip=first.ip)
    async with serving(first, second) as engines:
        assert list(engines.stats()["pods"]) == ["ns/first"]
        await engines.apply(first, gone=True)
        await eventually(lambda: list(engines.stats()["pods"]) == ["ns/second"])


async def test_metrics_faults(http):
    pod = a_pod()
    async with serving(pod) as engines:
        healthy = "vllm:generation_tokens_total"
        await _read(ask(http, pod, output=3))

        async def scrape(fault):
            engines.inject(["ns/p"], fault)
            async with http.get(url(pod, "/metrics")) as answer:
                return answer.status, await answer.text()

        assert (await scrape(MetricsFault.ERROR))[0] == 500
        status, text = await scrape(MetricsFault.MISSING)
        assert status == 200
        assert "vllm:" not in text
        assert f'{healthy}{{engine="0",model_name="qwen"}} NaN' in (await scrape(MetricsFault.NAN))[1]
        stale = (await scrape(MetricsFault.STALE))[1]
        await _read(ask(http, pod, output=3))
        assert (await scrape(MetricsFault.STALE))[1] == stale
        assert f'{healthy}{{engine="0",model_name="qwen"}} 6.0' in (await scrape(MetricsFault.NONE))[1]


async def test_an_annotation_breaks_metrics_and_its_removal_mends_them(http, caplog):
    pod = a_pod(annotations={FAULT_ANNOTATION: "error"})
    async with serving(pod) as engines:
        async with http.get(url(pod, "/metrics")) as answer:
            assert answer.status == 500
        await engines.apply(replace(pod, annotations={}))
        async with http.get(url(pod, "/metrics")) as answer:
            assert answer.status == 200
        await engines.apply(replace(pod, annotations={FAULT_ANNOTATION: "bogus"}))
    assert "'bogus', not one of none, error, missing, nan, stale" in caplog.text


async def test_the_control_port(http):
    pod = a_pod()
    async with serving(pod, a_pod("q")) as engines:
        runner = aiohttp.web.AppRunner(control_app(engines))
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        control = f"http://127.0.0.1:{runner.addresses[0][1]}/testbed"
        async with http.post(f"{control}/faults", json={"pods": ["ns/p"], "metrics": "error"}) as answer:
            assert answer.status == 200
        async with http.get(url(pod, "/metrics")) as answer:
            assert answer.status == 500
        async with http.post(f"{control}/faults", json={"metrics": "gone"}) as answer:
            assert "must be one of none, error" in (await answer.json())["error"]
        async with http.get(f"{control}/stats") as answer:
            assert set((await answer.json())["pods"]) == {"ns/p", "ns/q"}
        await runner.cleanup()


class ListedPods:
    """A pod source without a control plane."""

    def __init__(self, *changes: PodChange) -> None:
        self.changes_ = changes

    async def changes(self):
        for change in self.changes_:
            yield change


async def test_a_source_is_followed_in_order(http):
    a, b = a_pod("a"), a_pod("b")
    engines = Engines(EngineOptions())
    await engines.follow(ListedPods(PodChange(a), PodChange(b), PodChange(a, gone=True)))
    assert list(engines.stats()["pods"]) == ["ns/b"]
    engines.close()


def kubeconfig(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(
        textwrap.dedent("""
        current-context: c
        contexts: [{name: c, context: {cluster: k, user: u}}]
        clusters: [{name: k, cluster: {server: "http://127.0.0.1:9"}}]
        users: [{name: u, user: {token: t}}]
        """)
    )
    return path


def test_the_fleet_s_process_starts_answers_and_ends(tmp_path):
    with EngineFleet(kubeconfig(tmp_path), log=tmp_path / "log") as fleet:
        assert fleet.stats()["totals"]["served"] == 0
        fleet.break_metrics(MetricsFault.NAN)
        pid = fleet.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EngineFleetError, match="not running"):
        fleet.stats()


def test_a_fleet_that_cannot_start_says_where_to_look(tmp_path):
    with pytest.raises(EngineFleetError, match=r"ended at once; see .*log"):
        EngineFleet(tmp_path / "missing", log=tmp_path / "log").start()
    assert "missing" in (tmp_path / "log").read_text()


def test_the_fleet_s_process_ends_with_a_parent_that_is_killed(tmp_path):
    script = f"""
        import os, pathlib, time
        from testbed.engines import EngineFleet
        fleet = EngineFleet(pathlib.Path({str(kubeconfig(tmp_path))!r}))
        fleet.start()
        print(fleet.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    child = os.pidfd_open(pid)
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert_ends(child)
    finally:
        os.close(child)
        parent.stdout.close()


def assert_ends(pidfd, timeout=20):
    import select

    assert select.select([pidfd], [], [], timeout)[0], "the process outlived its parent"
