"""The process: what a watch event does, what the gauges show, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from stoker import runtime
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.clients.credentials import UnconfiguredError
from stoker.controller.store import Store
from stoker.core.readings import Key
from stoker.settings import Settings
from stoker.telemetry.health import HealthState
from stoker.telemetry.metrics import Metrics
from tests.factories import KEY, NAMESPACE, NOW, manifest


def pod(uid: str, version: str = "1", *, drains: bool = False):
    annotations = {"stoker.dev/drain-started-at": "2027-01-15T07:59:00Z"} if drains else {}
    labels = {"stoker.dev/model-deployment": KEY.name}
    metadata = {"namespace": NAMESPACE, "name": uid, "uid": uid, "resourceVersion": version}
    return {"metadata": {**metadata, "labels": labels, "annotations": annotations}}


@pytest.fixture
def store():
    return Store(lambda: NOW)


class TestDelivery:
    @pytest.fixture
    def touched(self):
        return []

    @pytest.fixture
    def deliver(self, store, touched):
        return runtime._deliver(store, SimpleNamespace(touch=touched.append))

    @pytest.mark.parametrize("event", [None, "ADDED", "MODIFIED"], ids=["listed", "added", "modified"])
    def test_what_is_new_has_its_deployment_looked_at(self, store, deliver, touched, event):
        deliver("Pod", event, pod("p"))

        assert touched == [KEY]
        assert store.objects("Pod").keys() == {"p"}

    def test_what_changes_nothing_wakes_nobody(self, deliver, touched):
        deliver("Pod", "ADDED", pod("p"))
        deliver("Pod", "MODIFIED", pod("p", "2"))

        assert touched == [KEY]

    def test_what_is_not_stokers_wakes_nobody(self, store, deliver, touched):
        other = pod("p")
        other["metadata"]["labels"] = {}
        deliver("Pod", "ADDED", other)

        assert (touched, store.objects("Pod")) == ([], {})

    def test_a_deletion_forgets(self, store, deliver, touched):
        deliver("Pod", "ADDED", pod("p"))
        deliver("Pod", "DELETED", pod("p", "2"))

        assert touched == [KEY, KEY]
        assert store.objects("Pod") == {}

    def test_a_deletion_by_label_spares_what_is_newer(self, store, deliver):
        """A watch by label calls a pod deleted that merely lost the label; it has it again by now."""
        deliver("Pod", "ADDED", pod("p"))
        deliver("Pod", "DELETED", pod("p", "2"))
        deliver("Pod", "ADDED", pod("p", "3"))

        assert store.objects("Pod").keys() == {"p"}


def test_the_fleets_rows_have_status_and_who_drains(store):
    store.put("ModelDeployment", {**manifest(), "status": {"desiredReplicas": 3}})
    store.put("ModelDeployment", manifest("quiet"))
    for uid, drains in (("a", False), ("b", True), ("c", True)):
        store.put("Pod", pod(uid, drains=drains))

    rows = [(r.key, r.status.desired_replicas, r.draining) for r in runtime._fleet(store)]
    assert rows == [(KEY, 3, 2), (Key(NAMESPACE, "quiet"), None, 0)]


def test_rows_are_safe_from_a_change_of_the_fleet_meanwhile(store):
    store.put("ModelDeployment", manifest())
    rows = runtime._fleet(store)
    next(rows)
    store.put("ModelDeployment", manifest("new"))

    assert list(rows) == []


class Part:
    """Runs until it is cancelled, or ends as it is told to; notes its end."""

    def __init__(self, name: str, ended: list[str], error: Exception | None = None, *, ends: bool = False):
        self.name, self.ended, self.error, self.ends = name, ended, error, ends
        self.started = asyncio.Event()
        self.listed = asyncio.Event()

    async def run(self, *_):
        self.started.set()
        try:
            if self.error is not None:
                raise self.error
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            self.ended.append(self.name)


def operator(ended: list[str], **failing: dict) -> runtime._Operator:
    names = ("controller", "watcher", "recorder")
    parts = {name: Part(name, ended, **failing.get(name, {})) for name in names}
    return runtime._Operator(**parts, health=HealthState(), metrics=Metrics())


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    async def test_a_signal_ends_all_parts_with_zero_the_controller_first(self, number):
        ended: list[str] = []
        parts = operator(ended)
        running = asyncio.create_task(runtime._until_stopped(parts))
        await parts.watcher.started.wait()
        os.kill(os.getpid(), number)

        assert await running == 0
        assert ended == ["controller", "recorder", "watcher"]

    @pytest.mark.parametrize(
        "how",
        [
            {"watcher": {"error": RuntimeError("watching ended")}},
            {"watcher": {"ends": True}},
            {"controller": {"error": ValueError("boom")}},
            {"recorder": {"error": ValueError("boom")}},
        ],
        ids=["the watches fail", "the watches end", "the controller fails", "the events fail"],
    )
    async def test_a_part_that_ends_by_itself_ends_the_process_with_one(self, how):
        ended: list[str] = []

        assert await runtime._until_stopped(operator(ended, **how)) == 1
        assert sorted(ended) == ["controller", "recorder", "watcher"]

    def test_the_heartbeat_reaches_health_and_metrics(self):
        parts = operator([])
        runtime._heartbeat(parts)(12.5, 1000.0)

        assert not {c.name: c for c in parts.health.live(1000.0)}["event-loop"].ok
        assert any(s.value == 12.5 for m in parts.metrics.registry.collect() for s in m.samples)


class TestTheStart:
    @pytest.fixture(autouse=True)
    def logged(self, monkeypatch):
        """Neither this process's logging nor its garbage collector is changed."""
        lines: list[dict] = []
        note = lambda text, **values: lines.append({"text": text, **values})  # noqa: E731
        monkeypatch.setattr(runtime, "log", SimpleNamespace(info=note, warning=note, error=note))
        monkeypatch.setattr(runtime, "configure", lambda *_: None)
        monkeypatch.setattr(runtime.gc, "set_threshold", lambda *_: None)
        return lines

    async def test_it_cannot_start_without_a_kubeconfig(self, tmp_path, logged):
        assert await runtime.run(Settings(kubeconfig=tmp_path / "none"), {}) == 1
        assert logged[-1]["text"] == "cannot start"
        assert "STOKER_KUBECONFIG" in logged[-1]["error"]

    async def test_unknown_settings_are_told_with_what_was_probably_meant(self, monkeypatch, logged):
        async def assemble(*_):
            raise UnconfiguredError("no")

        monkeypatch.setattr(runtime, "_assemble", assemble)
        await runtime.run(Settings(), {"STOKER_WORKER": "STOKER_WORKERS"})

        assert {"text": "unknown setting", "variable": "STOKER_WORKER", "meant": "STOKER_WORKERS"} in logged

    async def test_everything_that_was_opened_is_closed_when_the_start_fails(self, monkeypatch):
        closed: list[str] = []

        async def assemble(stack: AsyncExitStack, settings: Settings):
            stack.callback(closed.append, "kube")
            raise UnconfiguredError("no")

        monkeypatch.setattr(runtime, "_assemble", assemble)

        assert await runtime.run(Settings(), {}) == 1
        assert closed == ["kube"]

    async def test_the_exit_code_is_that_of_the_parts(self, monkeypatch):
        async def assemble(*_):
            return operator([], watcher={"ends": True})

        monkeypatch.setattr(runtime, "_assemble", assemble)

        assert await runtime.run(Settings(), {}) == 1

    async def test_a_port_that_is_taken_names_the_setting(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            settings = Settings(listen_address="127.0.0.1", listen_port=taken.getsockname()[1])
            with pytest.raises(runtime.UnusableAddressError, match="STOKER_LISTEN_PORT"):
                async with runtime._server(settings, Metrics(), HealthState()):
                    pass


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(prometheus_url="http://p"), {"basic": None, "bearer_file": None, "verify": True}),
        (
            Settings(prometheus_username="me", prometheus_password_file=Path("/p")),
            {"basic": ("me", Path("/p"))},
        ),
        (Settings(prometheus_bearer_token_file=Path("/t")), {"bearer_file": Path("/t")}),
        (
            Settings(prometheus_ca_file=Path("/ca"), prometheus_headers={"X-Scope-OrgID": "a"}),
            {"ca_file": Path("/ca"), "headers": {"X-Scope-OrgID": "a"}},
        ),
        (Settings(prometheus_insecure_skip_verify=True), {"verify": False}),
    ],
    ids=["an address alone", "a password", "a token", "a tenant behind an own CA", "unverified"],
)
def test_prometheus_is_asked_as_the_settings_say(monkeypatch, settings, expected):
    asked = {}
    monkeypatch.setattr(runtime, "Prometheus", lambda url, **options: asked.update(url=url, **options))
    runtime._prometheus(settings, Metrics())

    assert (asked["url"], asked["timeout"]) == (settings.prometheus_url, settings.prometheus_timeout_seconds)
    assert {name: getattr(asked["access"], name) for name in expected} == expected


def test_a_status_that_is_not_known_yet_has_a_row_too(store):
    store.put("ModelDeployment", manifest())

    assert [r.status for r in runtime._fleet(store)] == [ModelDeploymentStatus()]
