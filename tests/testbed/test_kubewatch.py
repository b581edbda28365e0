"""The watch against a small API server of the test's own, which can lie, break off and forget."""

import asyncio
import base64
import json

import pytest
from aiohttp import web

from testbed.kubewatch import KubeconfigError, KubeReader
from testbed.pods import KubePods, Pod, PodChange, flag

PATH = "/api/v1/pods"


def manifest(name, uid="u", **status):
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": uid},
        "spec": {"containers": [{"name": "engine"}]},
        "status": status,
    }


class ApiServer:
    """Lists `objects`; each watch plays one script from `watches`, then the connection ends.

    Once a script is played the list is `afterwards`; without a script left a watch stays silent.
    """

    def __init__(self):
        self.objects, self.watches, self.requests = [], [], []
        self.afterwards = None
        self.fail_next = 0

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get(PATH, self.answer)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def answer(self, request):
        self.requests.append(request)
        if self.fail_next:
            self.fail_next -= 1
            return web.Response(status=500)
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": self.objects})
        response = web.StreamResponse()
        await response.prepare(request)
        if not self.watches:
            await asyncio.Event().wait()
        for line in self.watches.pop(0):
            await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        self.objects = self.afterwards or self.objects
        return response


def kubeconfig(tmp_path, server="https://127.0.0.1:1", **user):
    path = tmp_path / "kubeconfig"
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
    }
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("testbed.kubewatch._BACK_OFF_SECONDS", (0.01, 0.02))


async def first(count, tmp_path, server, **selectors):
    """The first changes of a watch, as (name, gone)."""
    async with KubeReader(kubeconfig(tmp_path, server.url)) as reader, asyncio.timeout(10):
        changes = reader.watch(PATH, **selectors)
        seen = [await anext(changes) for _ in range(count)]
        await changes.aclose()
    return [(change.manifest["metadata"]["name"], change.gone) for change in seen]


async def test_what_exists_comes_first_then_what_changes(tmp_path):
    async with ApiServer() as server:
        server.objects = [manifest("a")]
        added, deleted = ({"type": t, "object": manifest("b")} for t in ("ADDED", "DELETED"))
        server.watches = [[added, {"type": "BOOKMARK", "object": {}}, deleted]]
        assert await first(3, tmp_path, server) == [("a", False), ("b", False), ("b", True)]
        listed, watched = server.requests[:2]
    assert listed.headers["Authorization"] == "Bearer secret"
    assert watched.query["resourceVersion"] == "7"


async def test_selectors_are_passed_on(tmp_path):
    async with ApiServer() as server:
        server.objects = [manifest("a")]
        await first(1, tmp_path, server, labels="x=y", fields="metadata.name=a")
        assert dict(server.requests[0].query) == {"labelSelector": "x=y", "fieldSelector": "metadata.name=a"}


@pytest.mark.parametrize(
    "ending",
    [
        [],  # the server closed the watch
        [{"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}],
        [b'{"type": "ADDED", "obj'],  # cut in the middle of a line
    ],
    ids=["closed", "expired", "cut"],
)
async def test_a_deletion_that_the_watch_missed_is_found_by_listing_again(tmp_path, ending):
    async with ApiServer() as server:
        server.objects = [manifest("a"), manifest("b")]

        server.watches, server.afterwards = [ending], [manifest("a")]
        assert await first(3, tmp_path, server) == [("a", False), ("b", False), ("b", True)]


async def test_what_only_the_watch_brought_is_remembered_until_it_is_gone(tmp_path):
    async with ApiServer() as server:
        server.watches = [[{"type": "ADDED", "object": manifest("b")}]]
        assert await first(2, tmp_path, server) == [("b", False), ("b", True)]


async def test_an_object_replaced_by_one_of_its_name_is_gone_and_there(tmp_path):
    async with ApiServer() as server:
        server.objects, server.watches, server.afterwards = [manifest("a", "1")], [[]], [manifest("a", "2")]
        assert await first(3, tmp_path, server) == [("a", False), ("a", True), ("a", False)]


async def test_what_did_not_change_is_not_reported_again(tmp_path):
    async with ApiServer() as server:
        server.objects, server.watches = [manifest("a")], [[]]
        server.afterwards = [manifest("a"), manifest("b")]
        assert await first(2, tmp_path, server) == [("a", False), ("b", False)]


async def test_a_failing_server_is_asked_again(tmp_path, caplog):
    async with ApiServer() as server:
        server.objects, server.fail_next = [manifest("a")], 2
        assert await first(1, tmp_path, server) == [("a", False)]
    assert "watch of /api/v1/pods: ClientResponseError: 500" in caplog.text


async def test_a_line_may_be_longer_than_any_buffer(tmp_path):
    async with ApiServer() as server:
        server.watches = [[{"type": "ADDED", "object": {**manifest("big"), "x": "y" * 1_000_000}}]]
        assert await first(1, tmp_path, server) == [("big", False)]


async def test_pods_are_read_from_the_collection_of_their_namespace(tmp_path):
    async with ApiServer() as server:
        server.objects = [manifest("a", podIP="127.0.0.9")]
        async with KubeReader(kubeconfig(tmp_path, server.url)) as reader:
            changes = KubePods(reader, selector="l").changes()
            assert await anext(changes) == PodChange(Pod("ns", "a", "u", ip="127.0.0.9"))
            await changes.aclose()
        assert KubePods(reader, namespace="n")._path == "/api/v1/namespaces/n/pods"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "no 'contexts'"), ("", "NoneType"), ('{"contexts": [], "current-context": "x"}', "no 'x'")],
)
def test_a_kubeconfig_without_a_context_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=f"kubeconfig: .*{message}"):
        KubeReader(path)


def test_a_broken_certificate_authority_is_not_ignored(tmp_path):
    config = json.loads(kubeconfig(tmp_path).read_text())
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(
        broken.encode()
    ).decode()
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(OSError):  # noqa: PT011 - an SSLError, whose text is OpenSSL's
        KubeReader(tmp_path / "kubeconfig")


def test_a_pod_is_read_as_the_api_server_sends_it():
    pod = Pod.of(
        {
            "metadata": {
                "namespace": "ns",
                "name": "p",
                "uid": "u",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"a": "b"},
            },
            "spec": {
                "containers": [
                    {
                        "name": "engine",
                        "command": ["vllm"],
                        "args": ["serve"],
                        "ports": [{"containerPort": 9000}],
                    },
                    {"name": "sidecar", "ports": [{"containerPort": 1}]},
                ]
            },
            "status": {
                "podIP": "127.0.0.9",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "sidecar", "started": False, "restartCount": 9},
                    {"name": "engine", "started": True, "restartCount": 2},
                ],
            },
        }
    )
    assert pod == Pod(
        "ns", "p", "u", "127.0.0.9", started=True, ready=True, deleting=True, restarts=2, port=9000,
        command=("vllm", "serve"), annotations={"a": "b"},
    )  # fmt: skip


def test_the_port_can_come_from_the_scrape_annotation():
    pod = manifest("p")
    pod["metadata"]["annotations"] = {"prometheus.io/port": "8081"}
    assert Pod.of(pod).port == 8081


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (("--name", "a"), "a"),
        (("--name=a=b",), "a=b"),
        (("--name", "a", "--name=b"), "b"),
        (("--names", "a"), None),
        (("--name",), None),
        ((), None),
    ],
)
def test_flags(command, value):
    assert flag(command, "--name") == value
