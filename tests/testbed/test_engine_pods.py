"""Engines come and go with their pods; faults of metrics."""

import asyncio
from dataclasses import replace

import aiohttp
import pytest

from testbed.engine import MetricsFault
from testbed.engine_pods import FAULT_ANNOTATION, MODEL_ANNOTATION, EngineOptions, Engines
from testbed.pods import PodChange
from tests.testbed.simulated import (
    COMMAND,
    a_pod,
    ask,
    eventually,
    metric,
    read,
    serving,
    url,
)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        yield session


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
        waiting = asyncio.create_task(read(ask(http, pod, output=1000)))
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["accepted"])
        await engines.apply(pod, gone=True)
        with pytest.raises(aiohttp.ClientError):
            await waiting
        assert engines.stats()["gone"]["cut"] == 1


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
        await read(ask(http, pod, output=2))
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
        await read(ask(http, pod, output=2))
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
        await read(ask(http, a, output=4))
        assert await metric(http, a, "vllm:generation_tokens_total") == 4
        assert await metric(http, b, "vllm:generation_tokens_total") == 0
        assert engines.stats()["pods"]["ns/b"]["model"] == "other"


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
        await read(ask(http, pod, output=3))

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
        await read(ask(http, pod, output=3))
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


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((), "p"),
        (("--port=8000",), "p"),
        (("vllm", "serve", "org/model"), "org/model"),
        (("org/model", "--port=8000"), "org/model"),
        (("serve", "org/model", "--served-model-name=short"), "short"),
    ],
)
async def test_the_served_name_is_read_from_the_command_line(command, name):
    async with serving(a_pod(command=command)) as engines:
        assert engines.stats()["pods"]["ns/p"]["model"] == name
