"""Which endpoint gets a request, and where endpoints come from."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from testbed.gateway import Gateway, NoEndpointError, ServicePods
from testbed.pods import PodChange
from tests.testbed.simulated import (
    ApiServer,
    a_pod,
    eventually,
    manifest,
    reading,
)


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


async def test_a_request_given_up_in_the_moment_of_its_turn_harms_no_other():
    gateway = Gateway()
    waiting = [asyncio.create_task(gateway.pick()) for _ in range(2)]
    await eventually(lambda: gateway.queued == 2)
    waiting[0].cancel()
    gateway.apply(PodChange(a_pod("a")))
    assert (await waiting[1]).pod == "ns/a"


async def test_the_queue_is_bounded_in_length_and_in_time():
    gateway = Gateway(queue_limit=1, queue_seconds=0.05)
    waiting = asyncio.create_task(gateway.pick())
    await eventually(lambda: gateway.queued == 1)
    with pytest.raises(NoEndpointError, match="1 requests wait already"):
        await gateway.pick()
    with pytest.raises(NoEndpointError, match=r"no endpoint within 0\.05 s"):
        await waiting
    assert gateway.queued == 0


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
