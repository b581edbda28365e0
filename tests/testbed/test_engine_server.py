"""The HTTP API of a simulated engine, over real connections."""

import asyncio
import json

import aiohttp
import pytest

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


async def chunks(answer) -> list:
    """The data of every server-sent event."""
    events = (await answer.text()).split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [event[6:] if event[6:] == "[DONE]" else json.loads(event[6:]) for event in events]


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
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["aborted"] == 1)
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["running"] == 0)
        async with http.get(url(pod, "/metrics")) as answer:
            text = await answer.text()
        assert 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="qwen"} 1.0' in text
        assert 'vllm:num_requests_running{engine="0",model_name="qwen"} 0.0' in text


async def test_a_client_that_stops_waiting_for_a_whole_answer_frees_its_place_too(http):
    pod = a_pod()
    async with serving(pod) as engines:
        waiting = asyncio.create_task(read(ask(http, pod, output=5000)))
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["accepted"] == 1)
        waiting.cancel()
        await eventually(lambda: engines.stats()["pods"]["ns/p"]["aborted"] == 1)


async def test_many_streams_share_the_batch(http):
    pod = a_pod()
    async with serving(pod) as engines:
        answers = await asyncio.gather(
            *(read(ask(http, pod, prompt=10, output=20, stream=True)) for _ in range(40))
        )
        assert all(body.endswith(b"[DONE]\n\n") for body in answers)
        assert engines.stats()["totals"]["served"] == 40
