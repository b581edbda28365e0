"""Bulk requests and the watch, against a small server."""

import asyncio
import json
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from bench.controller import bulk
from testbed.access import PlaneError


def obj(name, version="1"):
    return {"metadata": {"namespace": "ml", "name": name, "uid": name, "resourceVersion": version}}


@pytest.fixture
async def api():
    """Answers GETs with what the test lists in ``answers``, a list as a watch; everything else with 200."""
    state = SimpleNamespace(asked=[], answers=[], refuse=False)

    async def handler(request):
        state.asked.append((request.method, request.path, dict(request.query), await request.text()))
        if request.method != "GET":
            return web.Response(status=409, text="taken") if state.refuse else web.json_response({})
        answer = state.answers.pop(0) if state.answers else await asyncio.Event().wait()
        if isinstance(answer, int):
            return web.Response(status=answer)
        if isinstance(answer, list):
            return web.Response(text="".join(json.dumps(event) + "\n" for event in answer))
        return web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(url) as state.client:
        yield state
    await runner.cleanup()


def page(*objects, version="7", token=""):
    return {"metadata": {"resourceVersion": version, "continue": token}, "items": list(objects)}


def event(kind, name, version):
    return {"type": kind, "object": obj(name, version)}


async def first(api, count, **selectors):
    found = []
    async for change in bulk.watch(api.client, "/api/v1/pods", **selectors):
        found.append((change.obj["metadata"]["name"], change.gone))
        if len(found) == count:
            return found
    return found


async def test_a_watch_begins_with_what_exists_page_by_page(api):
    api.answers = [
        page(obj("a"), token="next"),
        page(obj("b")),
        [event("MODIFIED", "a", "8"), event("DELETED", "b", "9")],
    ]
    assert await first(api, 4, labels="x=y") == [("a", False), ("b", False), ("a", False), ("b", True)]
    assert all(query["labelSelector"] == "x=y" for _, _, query, _ in api.asked)
    assert api.asked[1][2]["continue"] == "next"
    assert api.asked[2][2]["resourceVersion"] == "7"


async def test_a_watch_that_ends_goes_on_from_the_last_version(api):
    api.answers = [
        page(),
        [event("ADDED", "a", "8"), event("BOOKMARK", "", "12")],
        [event("ADDED", "b", "13")],
    ]
    assert await first(api, 2) == [("a", False), ("b", False)]
    assert api.asked[2][2]["resourceVersion"] == "12"


@pytest.mark.parametrize("expired", [410, [{"type": "ERROR", "object": {"code": 410}}]])
async def test_a_watch_whose_history_is_gone_lists_again(api, expired):
    api.answers = [page(), expired, page(obj("a"))]
    assert await first(api, 1) == [("a", False)]


async def test_a_request_is_sent_as_it_is(api):
    await bulk.send(api.client, bulk.Request("PATCH", "/x", {"a": 1}, bulk.MERGE_PATCH))
    assert api.asked == [("PATCH", "/x", {}, '{"a": 1}')]


async def test_a_refusal_says_what_was_refused_and_why(api):
    api.refuse = True
    with pytest.raises(PlaneError, match="POST /x: taken"):
        await bulk.send(api.client, bulk.Request("POST", "/x", {}))
