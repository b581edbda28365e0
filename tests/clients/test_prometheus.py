"""Asking Prometheus over the wire: what is sent, and that a faulty server costs the timeout at most."""

import asyncio
import gzip
import threading

import pytest
from aiohttp import web

from stoker.clients.answers import Matrix, Span
from stoker.clients.prometheus import Access, Prometheus, _Connection
from stoker.core.signals import Failed, Samples


def vector(*values, **extra):
    result = [{"metric": {"pod": f"p{i}"}, "value": [100.5, v]} for i, v in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}, **extra}


async def ask(url, query="up", *, at=None, **options):
    async with Prometheus(url, **options) as prometheus:
        return (await prometheus.query_all({"q": query}, at))["q"]


async def test_a_query_is_a_form_and_never_in_the_url(serve):
    seen = {}

    async def handler(request):
        seen.update(path=request.path_qs, method=request.method, form=dict(await request.post()))
        seen["agent"] = request.headers["User-Agent"]
        return web.json_response(vector("1"))

    query = "sum(" + "x" * 20_000 + ")"
    url = await serve(handler)
    assert isinstance(await ask(f"{url}/", query, at=12.5), Samples)
    assert (seen["method"], seen["path"]) == ("POST", "/api/v1/query")
    assert seen["form"]["query"] == query
    assert seen["form"]["time"] == "12.500"
    assert 0 < float(seen["form"]["timeout"]) <= 8
    assert seen["agent"].startswith("stoker/")


async def test_a_stretch_of_time_is_a_form_of_its_own(serve):
    seen = {}

    async def handler(request):
        seen.update(path=request.path_qs, form=dict(await request.post()))
        points = [[100, "1"], [120, "3"]]
        data = {"resultType": "matrix", "result": [{"metric": {"pod": "p"}, "values": points}]}
        return web.json_response({"status": "success", "data": data})

    async with Prometheus(await serve(handler)) as prometheus:
        answer = (await prometheus.query_range_all({"q": "up"}, Span(100, 120, 10)))["q"]
    assert isinstance(answer, Matrix)
    assert [dict(course.values) for course in answer.courses] == [{0: 1.0, 2: 3.0}]
    assert seen["path"] == "/api/v1/query_range"
    del seen["form"]["timeout"]
    assert seen["form"] == {"query": "up", "start": "100.000", "end": "120.000", "step": "10.000"}


async def test_a_path_prefix_is_kept(serve):
    async def handler(request):
        return web.json_response(vector("1" if request.path == "/select/0/prometheus/api/v1/query" else "0"))

    answer = await ask(await serve(handler) + "/select/0/prometheus/")
    assert isinstance(answer, Samples)
    assert answer.samples[0].value == 1


async def test_headers_and_credentials_are_sent(serve, tmp_path):
    async def handler(request):
        return web.json_response(
            vector("1", warnings=[request.headers.get("Authorization", ""), request.headers["X-Scope-OrgID"]])
        )

    url = await serve(handler)
    headers = {"X-Scope-OrgID": "team-a"}
    token = tmp_path / "token"
    async with Prometheus(url, access=Access(headers, bearer_file=token)) as prometheus:
        unreadable = (await prometheus.query_all({"q": "up"}))["q"]
        token.write_text("one\n")
        first = (await prometheus.query_all({"q": "up"}))["q"]
        token.write_text("two\n")
        second = (await prometheus.query_all({"q": "up"}))["q"]
    basic = await ask(url, access=Access(headers, basic=("user", "pass")))
    token.write_text("pass\n")
    filed = await ask(url, access=Access(headers, basic=("user", token)))
    assert isinstance(unreadable, Failed)
    assert "credentials cannot be read" in unreadable.why
    assert [first.warnings, second.warnings] == [("Bearer one", "team-a"), ("Bearer two", "team-a")]
    assert basic.warnings == filed.warnings == ("Basic dXNlcjpwYXNz", "team-a")


def test_a_password_is_not_shown():
    assert "secret" not in repr(Access(basic=("user", "secret")))


async def test_queries_run_at_the_same_time_and_answer_by_name(serve):
    arrived = asyncio.Event()
    waiting = 0

    async def handler(request):
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            arrived.set()
        await arrived.wait()  # nobody is answered before all three are here
        return web.json_response(vector((await request.post())["query"]))

    async with Prometheus(await serve(handler)) as prometheus:
        answers = await prometheus.query_all({"a": "1", "b": "2", "c": "3"})
        assert await prometheus.query_all({}) == {}
    assert {name: answer.samples[0].value for name, answer in answers.items()} == {"a": 1, "b": 2, "c": 3}


async def test_nobody_there(refused):
    failed = await ask(refused)
    assert isinstance(failed, Failed)
    assert failed.unreachable
    assert "refused" in failed.why
    assert refused in failed.why


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "http://host.invalid:1"])
async def test_an_address_that_cannot_be_asked(url):
    failed = await ask(url)
    assert isinstance(failed, Failed)
    assert failed.unreachable


async def test_no_address_at_all_says_what_to_set():
    failed = await ask("")
    assert isinstance(failed, Failed)
    assert "set STOKER_PROMETHEUS_URL" in failed.why


async def test_a_silent_server_costs_the_timeout_and_no_more(serve):
    done = asyncio.Event()

    async def handler(request):
        await done.wait()
        return web.json_response(vector("1"))

    failed = await ask(await serve(handler), timeout=0.2)
    done.set()
    assert isinstance(failed, Failed)
    assert failed.unreachable


async def test_the_loop_runs_on_while_a_query_waits(serve):
    done = asyncio.Event()

    async def handler(request):
        await done.wait()
        return web.json_response(vector("1"))

    async with Prometheus(await serve(handler)) as prometheus:
        asking = asyncio.create_task(prometheus.query_all({"q": "up"}))
        await asyncio.sleep(0)
        done.set()  # would never be reached if the loop waited for the answer
        assert isinstance((await asking)["q"], Samples)


async def test_a_thread_that_hangs_does_not_hold_the_answer(monkeypatch):
    """As in a name look-up, which no time-out of the socket ends."""
    release = threading.Event()
    monkeypatch.setattr(_Connection, "ask", lambda *_: release.wait(20))
    async with Prometheus("http://prometheus.example", timeout=0.1) as prometheus:
        failed = (await prometheus.query_all({"q": "up"}))["q"]
        assert not release.is_set()
        release.set()
    assert isinstance(failed, Failed)
    assert "no answer from http://prometheus.example within 0.1 s" in failed.why


async def test_late_queries_fail_and_the_others_answer(serve):
    done = asyncio.Event()

    async def handler(request):
        query = (await request.post())["query"]
        if query == "slow":
            await done.wait()
        return web.json_response(vector("1"))

    async with Prometheus(await serve(handler), timeout=0.5) as prometheus:
        answers = await prometheus.query_all({"fast": "fast", "slow": "slow"})
        done.set()
    assert isinstance(answers["fast"], Samples)
    assert isinstance(answers["slow"], Failed)


async def test_a_dripping_server_lets_the_thread_go(serve):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    url = await serve(handler)
    async with Prometheus(url, timeout=0.3, threads=1) as prometheus:
        assert isinstance((await prometheus.query_all({"q": "up"}))["q"], Failed)
        # The only thread must come free again by itself, or this never runs.
        free = asyncio.get_running_loop().run_in_executor(prometheus._pool, lambda: "free")
        assert await asyncio.wait_for(free, 10) == "free"


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
async def test_a_huge_body_is_not_read_to_its_end(serve, compress):
    sent = 0

    async def handler(request):
        nonlocal sent
        headers = {"Content-Encoding": "gzip"} if compress else {}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        chunk = b" " * 1024 * 1024
        packed = gzip.compress(chunk) if compress else chunk
        for _ in range(512):
            await response.write(packed)
            sent += 1
        return response

    failed = await ask(await serve(handler), max_bytes=4 * 1024 * 1024)
    assert isinstance(failed, Failed)
    assert "longer than 4 MiB" in failed.why
    assert compress or sent < 512  # packed, all of it fits into the socket's buffers


async def test_redirects_are_not_followed(serve):
    async def handler(request):
        raise web.HTTPTemporaryRedirect("http://169.254.169.254/latest")

    failed = await ask(await serve(handler))
    assert isinstance(failed, Failed)
    assert "redirects to 'http://169.254.169.254/latest'" in failed.why


@pytest.mark.parametrize("cut", [0, 20])
async def test_a_connection_that_breaks(serve, cut):
    async def handler(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b" " * cut)
        request.transport.close()
        return response

    failed = await ask(await serve(handler))
    assert isinstance(failed, Failed)
    assert failed.unreachable


async def test_broken_compression(serve):
    async def handler(request):
        return web.Response(body=b"no gzip at all", headers={"Content-Encoding": "gzip"})

    assert isinstance(await ask(await serve(handler)), Failed)


async def test_each_query_is_counted_once_by_outcome(serve, refused):
    counted = []

    async def handler(request):
        query = (await request.post())["query"]
        if query == "bad":
            return web.json_response({"status": "error", "errorType": "bad_data", "error": "x"}, status=400)
        return web.json_response(vector("1", warnings=["half"] if query == "partial" else None))

    def note(name, outcome, seconds):
        assert seconds >= 0
        counted.append((name, outcome))

    async with Prometheus(await serve(handler), on_query=note) as prometheus:
        await prometheus.query_all({"ok": "ok", "partial": "partial", "failed": "bad"})
    async with Prometheus(refused, on_query=note) as prometheus:
        await prometheus.query_all({"unreachable": "up"})
    assert sorted(counted) == [(n, n) for n in ("failed", "ok", "partial", "unreachable")]


async def test_closing_does_not_wait_for_a_silent_server(serve):
    done = asyncio.Event()

    async def handler(request):
        await done.wait()
        return web.json_response(vector("1"))

    async with Prometheus(await serve(handler), timeout=3600) as prometheus:
        asking = asyncio.create_task(prometheus.query_all({"q": "up"}))
        await asyncio.sleep(0.05)
        asking.cancel()
    done.set()  # is only reached when closing did not wait for the answer
