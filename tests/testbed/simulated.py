"""Simulated pods and engines for tests: real listeners, no control plane."""

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from testbed.engine_pods import EngineOptions, Engines
from testbed.kubewatch import KubeReader
from testbed.openai_api import PROMPT_TOKENS_HEADER
from testbed.pods import Pod

# 127.64.0.0/10 belongs to these tests: second byte by xdist worker, third by process, so nobody collides.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ADDRESSES = (f"127.{64 + WORKER % 64}.{os.getpid() % 250}.{n}" for n in itertools.count(1))
PORT = 8000
COMMAND = ("vllm", "serve", "org/model", "--served-model-name", "qwen")


def a_pod(name: str = "p", **changes: Any) -> Pod:
    """A pod whose engine has loaded, at an address of its own."""
    ip = next(ADDRESSES)
    pod = Pod("ns", name, uid=f"uid-{name}", ip=ip, started=True, ready=True, port=PORT, command=COMMAND)
    return replace(pod, **changes)


@contextlib.asynccontextmanager
async def serving(*pods: Pod, **options: Any) -> AsyncIterator[Engines]:
    """Engines that serve these pods."""
    engines = Engines(EngineOptions(**{"stream_interval": 1, "tick": 0.005, **options}))
    try:
        for pod in pods:
            await engines.apply(pod)
        yield engines
    finally:
        engines.close()
        await asyncio.sleep(0)


async def eventually(check: Callable[[], object]) -> None:
    """Wait until `check` is true."""
    async with asyncio.timeout(30):
        while not check():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.002)


def kubeconfig(directory: Path, server: str = "http://127.0.0.1:9") -> Path:
    """Write a kubeconfig for an API server."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = directory / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@contextlib.asynccontextmanager
async def reading(directory: Path, server: "ApiServer") -> AsyncIterator[KubeReader]:
    """A reader of a stand-in API server."""
    async with KubeReader(kubeconfig(directory, server.url)) as reader:
        yield reader


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
    """A ready pod."""
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": name},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 8000}]}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def url(pod: Pod, path: str) -> str:
    """Of a path of a pod's engine."""
    return f"http://{pod.ip}:{pod.port}{path}"


def ask(session, pod, *, chat=False, prompt=100, output=5, **fields):
    """Post a completion."""
    body = {"model": "qwen", "max_tokens": output, **fields}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return session.post(url(pod, path), json=body, headers={PROMPT_TOKENS_HEADER: str(prompt)})


async def metric(session, pod, name) -> float:
    """The sum of a metric's series."""
    async with session.get(url(pod, "/metrics")) as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


async def read(request):
    """The body of an answer."""
    async with request as answer:
        return await answer.read()
