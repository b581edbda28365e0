"""Lists, as kopf's thread hands them over. The watches run against a real API server in tests/cluster."""

import asyncio
import json
import threading

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from stoker.controller.sweep import WATCHED
from stoker.handlers import EVENTS_PER_TURN, Watcher

PODS = URL("https://server/api/v1/pods?limit=500")
SERVICES = URL("https://server/api/v1/services?limit=500")
MODELS = URL("https://server/apis/stoker.dev/v1alpha1/modeldeployments?limit=500")


def page(*names, token="", api_version="v1"):
    items = [{"metadata": {"name": name}} for name in names]
    metadata = {"resourceVersion": "7", "continue": token}
    return {"apiVersion": api_version, "metadata": metadata, "items": items}


@pytest.fixture
async def other_loop():
    """An event loop in a thread of its own, as kopf's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(thread.join)
    loop.close()


@pytest.fixture
def take_in(other_loop):
    """Give a watcher an answer of the API server, in kopf's thread; what kopf is to go on with."""

    async def take(watcher, url, answer):
        watcher._loop = asyncio.get_running_loop()
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(watcher._take_in(url, answer), other_loop)
        )

    return take


@pytest.fixture
def delivered():
    return []


@pytest.fixture
def watcher(delivered):
    return Watcher(lambda *event: delivered.append(event), lambda _: None)


async def test_a_page_is_delivered_whole_and_kopf_gets_an_empty_one(take_in, watcher, delivered):
    left = await take_in(watcher, PODS, page("a", "b", token="next"))
    assert left == page(token="next")
    expected = [{"metadata": {"name": name}, "apiVersion": "v1", "kind": "Pod"} for name in "ab"]
    assert delivered == [("Pod", None, obj) for obj in expected]


async def test_a_long_page_is_delivered_in_order_and_lets_others_run(take_in, watcher, delivered):
    names = [f"pod-{number}" for number in range(2 * EVENTS_PER_TURN)]
    seen = []

    async def look():
        while len(delivered) < len(names):
            seen.append(len(delivered))
            await asyncio.sleep(0)

    await asyncio.gather(take_in(watcher, PODS, page(*names)), look())
    assert [obj["metadata"]["name"] for _, _, obj in delivered] == names
    assert EVENTS_PER_TURN in seen


async def test_listed_when_the_last_page_of_every_kind_was_delivered(take_in, watcher):
    await take_in(watcher, PODS, page("a", token="next"))
    await take_in(watcher, SERVICES, page())
    await take_in(watcher, MODELS, page("m", api_version="stoker.dev/v1alpha1"))
    assert not watcher.listed.is_set()
    await take_in(watcher, PODS, page("b"))
    assert watcher.listed.is_set()


async def test_each_namespace_has_lists_of_its_own(take_in, delivered):
    watcher = Watcher(lambda *event: delivered.append(event), lambda _: None, namespaces=["x", "y"])
    for namespace in ("x", "y"):
        assert not watcher.listed.is_set()
        for kind in ("pods", "services", "modeldeployments"):
            await take_in(watcher, URL(f"https://server/namespaces/{namespace}/{kind}"), page("a"))
    assert watcher.listed.is_set()
    assert len(delivered) == 2 * len(WATCHED)


async def test_the_same_list_again_is_no_other_list(take_in, watcher):
    for _ in WATCHED:
        await take_in(watcher, PODS, page("a"))
    assert not watcher.listed.is_set()


async def test_an_object_that_cannot_be_taken_in_costs_only_itself(take_in):
    names = []

    def deliver(kind, event, obj):
        names.append(obj["metadata"]["name"])
        if obj["metadata"]["name"] == "bad":
            raise KeyError("uid")

    await take_in(Watcher(deliver, lambda _: None), PODS, page("bad", "good"))
    assert names == ["bad", "good"]


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        (URL("https://server/apis/stoker.dev/v1alpha1"), {"kind": "APIResourceList", "resources": []}),
        (PODS, {"kind": "Status", "reason": "Forbidden", "code": 403}),
        (URL("https://server/api/v1/namespaces"), page("default")),
        (PODS, ["no object"]),
    ],
)
async def test_other_answers_are_kopfs(take_in, watcher, delivered, url, answer):
    assert await take_in(watcher, url, answer) == answer
    assert not delivered


@pytest.fixture
async def asked(other_loop, watcher):
    """Have a session like kopf's ask an API server that sends this text; the JSON that kopf gets."""
    watcher._loop = asyncio.get_running_loop()

    async def in_kopfs_thread(url):
        async with aiohttp.ClientSession(response_class=watcher._response()) as session:
            return await (await session.get(url)).json()

    async def ask(text):
        async def answer(_):
            return web.json_response(text=text)

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        async with TestServer(app) as server:
            url = server.make_url("/api/v1/pods")
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(in_kopfs_thread(url), other_loop)
            )

    return ask


async def test_a_page_from_the_wire_is_decoded_and_delivered(asked, delivered):
    left = await asked(json.dumps(page("ä", token="next")))
    assert left == page(token="next")
    assert delivered == [("Pod", None, {"metadata": {"name": "ä"}, "apiVersion": "v1", "kind": "Pod"})]


@pytest.mark.parametrize("text", ["<html>", '{"items": [NaN]}', "[" * 100_000])
async def test_what_is_no_json_is_an_error_that_kopf_knows(asked, delivered, text):
    with pytest.raises(json.JSONDecodeError):  # kopf's own: kopf/_cogs/clients/errors.py
        await asked(text)
    assert not delivered
