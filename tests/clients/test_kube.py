"""The Kubernetes client over the wire: what is sent, what each fault becomes, and its limits."""

import asyncio
import json
from types import SimpleNamespace

import pytest
import yaml
from aiohttp import web

from stoker.clients import credentials
from stoker.clients.errors import (
    AlreadyExists,
    ClientError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    Rejected,
    Replaced,
    Transient,
)
from stoker.clients.kube import MAX_LIST_RESTARTS, Kube, Limits

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ml"}, "spec": {}}
CR = ("stoker.dev/v1alpha1", "ModelDeployment")


def kubeconfig_for(url, user):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }


@pytest.fixture
def write_kubeconfig(tmp_path):
    def write(url, **user):
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig_for(url, user or {"token": "secret"})))
        return file

    return write


@pytest.fixture
async def api(serve, write_kubeconfig):
    """A server that answers what the test puts into ``answers`` (else {}), and notes what it was asked."""
    state = SimpleNamespace(asked=[], answers=[], noted=[])

    async def handler(request):
        text = await request.text()
        state.asked.append(
            SimpleNamespace(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers=request.headers,
                body=json.loads(text) if text else None,
            )
        )
        answer = state.answers.pop(0) if state.answers else {}
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    state.kubeconfig = write_kubeconfig(await serve(handler))
    async with Kube(state.kubeconfig, on_request=lambda *a: state.noted.append(a)) as state.kube:
        yield state


def status(code, reason, message="no", **details):
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details}
    return web.json_response(body, status=code)


async def test_every_request_says_who_asks(api):
    await api.kube.get("v1", "Pod", "ml", "a")
    (asked,) = api.asked
    assert asked.headers["User-Agent"].startswith("stoker/")
    assert asked.headers["Authorization"] == "Bearer secret"


async def test_a_netrc_is_left_alone(api, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    await api.kube.get("v1", "Pod", "ml", "a")
    (asked,) = api.asked
    assert asked.headers["Authorization"] == "Bearer secret"


async def test_create(api):
    api.answers = [POD | {"spec": {"nodeName": "n"}}]
    made = await api.kube.create(POD)
    (asked,) = api.asked
    assert made["spec"]["nodeName"] == "n"
    assert (asked.method, asked.path, asked.body) == ("POST", "/api/v1/namespaces/ml/pods", POD)
    assert asked.query == {"fieldManager": "stoker", "fieldValidation": "Strict"}
    assert asked.headers["Content-Type"] == "application/json"


async def test_create_again(api):
    api.answers = [status(409, "AlreadyExists")]
    with pytest.raises(AlreadyExists, match="cannot create pods a in namespace ml"):
        await api.kube.create(POD)


@pytest.mark.parametrize(("force", "text"), [(True, "true"), (False, "false")])
async def test_apply(api, force, text):
    await api.kube.apply(POD, "stoker-x", force=force)
    (asked,) = api.asked
    assert (asked.method, asked.path, asked.body) == ("PATCH", "/api/v1/namespaces/ml/pods/a", POD)
    assert asked.query == {"fieldManager": "stoker-x", "force": text}
    assert asked.headers["Content-Type"] == "application/apply-patch+yaml"


async def test_apply_status_tests_the_uid(api):
    await api.kube.apply_status(*CR, "ml", "llama", "u-1", {"replicas": 2}, "stoker-status")
    (asked,) = api.asked
    assert asked.method == "PATCH"
    assert asked.path == "/apis/stoker.dev/v1alpha1/namespaces/ml/modeldeployments/llama/status"
    assert asked.query == {"fieldManager": "stoker-status"}
    assert asked.headers["Content-Type"] == "application/json-patch+json"
    assert asked.body == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        {"op": "add", "path": "/status", "value": {"replicas": 2}},
    ]


async def test_a_status_whose_uid_is_gone_is_replaced_and_a_wrong_one_is_rejected(api):
    cause = {"field": ".status.replicas", "message": "must be an integer"}
    api.answers = [status(422, "Invalid"), status(422, "Invalid", causes=[cause])]
    with pytest.raises(Replaced, match="uid u-1 is gone"):
        await api.kube.apply_status(*CR, "ml", "llama", "u-1", {}, "stoker-status")
    with pytest.raises(Rejected):
        await api.kube.apply_status(*CR, "ml", "llama", "u-1", {"replicas": "x"}, "stoker-status")


async def test_merge_metadata_names_the_uid_and_removes_with_none(api):
    await api.kube.merge_metadata("v1", "Pod", "ml", "a", "u-1", {"serving": "true"}, {"drain": None})
    (asked,) = api.asked
    assert asked.body == {
        "metadata": {"uid": "u-1", "labels": {"serving": "true"}, "annotations": {"drain": None}}
    }
    assert asked.headers["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize(("grace", "extra"), [(None, {}), (0, {"gracePeriodSeconds": 0})])
async def test_delete_names_the_uid(api, grace, extra):
    assert await api.kube.delete("v1", "Pod", "ml", "a", "u-1", grace_seconds=grace)
    (asked,) = api.asked
    assert (asked.method, asked.path) == ("DELETE", "/api/v1/namespaces/ml/pods/a")
    assert asked.body == {"preconditions": {"uid": "u-1"}, "propagationPolicy": "Background"} | extra


@pytest.mark.parametrize(
    "answer",
    [
        status(404, "NotFound"),
        status(409, "Conflict", "Precondition failed: UID in precondition: u-1, UID in object meta: u-2"),
    ],
    ids=["gone", "replaced"],
)
async def test_deleting_what_is_gone_is_success(api, answer):
    api.answers = [answer]
    assert not await api.kube.delete("v1", "Pod", "ml", "a", "u-1")


async def test_another_conflict_of_a_deletion_is_told(api):
    api.answers = [status(409, "Conflict", "the object has been modified")]
    with pytest.raises(Conflict):
        await api.kube.delete("v1", "Pod", "ml", "a", "u-1")


# --- Lists ---------------------------------------------------------------------------------------


def page(*names, token=""):
    return {"metadata": {"continue": token}, "items": [{"metadata": {"name": n}} for n in names]}


async def names(listing):
    return [item["metadata"]["name"] async for item in listing]


async def test_a_list_is_read_page_by_page(api):
    api.answers = [page("a", "b", token="next"), page("c")]
    listing = api.kube.list("v1", "Pod", "ml", label_selector="app=x", limit=2)
    assert await names(listing) == ["a", "b", "c"]
    assert [asked.query for asked in api.asked] == [
        {"limit": "2", "labelSelector": "app=x"},
        {"limit": "2", "labelSelector": "app=x", "continue": "next"},
    ]


@pytest.mark.parametrize("metadata_only", [False, True])
async def test_listed_objects_carry_their_kind(api, metadata_only):
    api.answers = [{"items": [{"metadata": {"name": "a"}, "kind": "PartialObjectMetadata"}]}]
    (item,) = [item async for item in api.kube.list("v1", "Pod", metadata_only=metadata_only)]
    assert (item["apiVersion"], item["kind"]) == ("v1", "Pod")
    assert ("PartialObjectMetadataList" in api.asked[0].headers["Accept"]) is metadata_only
    assert api.asked[0].path == "/api/v1/pods"


async def test_an_expired_token_starts_the_list_again(api):
    api.answers = [page("a", token="old"), status(410, "Expired"), page("a", token="new"), page("b")]
    assert await names(api.kube.list("v1", "Pod")) == ["a", "a", "b"]
    assert [asked.query.get("continue") for asked in api.asked] == [None, "old", None, "new"]


async def test_a_list_does_not_start_again_for_ever(api):
    for _ in range(MAX_LIST_RESTARTS + 2):
        api.answers += [page("a", token="old"), status(410, "Expired")]
    with pytest.raises(Expired):
        await names(api.kube.list("v1", "Pod"))
    assert len(api.asked) == 2 * (MAX_LIST_RESTARTS + 1)


async def test_an_empty_list(api):
    api.answers = [{"items": None, "metadata": {}}]
    assert await names(api.kube.list("v1", "Pod")) == []


# --- Faults --------------------------------------------------------------------------------------


async def test_forbidden_says_verb_resource_and_namespace(api):
    message = (
        'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "ml"'
    )
    api.answers = [status(403, "Forbidden", message)]
    with pytest.raises(Forbidden, match=r"create pods a in namespace ml.*allow the verb 'create' on 'pods'"):
        await api.kube.create(POD)


async def test_the_wait_that_the_server_asks_for(api):
    api.answers = [web.Response(status=429, text="too many", headers={"Retry-After": "3"})]
    with pytest.raises(Transient, match="too many") as caught:
        await api.kube.get("v1", "Pod", "ml", "a")
    assert caught.value.retry_after == 3


@pytest.mark.parametrize("text", ["", "no json", "[1]", "null", "[" * 100_000, '{"a": NaN}'])
async def test_an_answer_that_is_no_object(api, text):
    api.answers = [web.Response(text=text)]
    with pytest.raises(Transient, match="no JSON object"):
        await api.kube.get("v1", "Pod", "ml", "a")


async def test_nobody_there(refused, write_kubeconfig):
    noted = []
    async with Kube(write_kubeconfig(refused), on_request=lambda *a: noted.append(a)) as kube:
        with pytest.raises(Transient, match=r"cannot get pods a in namespace ml: .*Connect") as caught:
            await kube.get("v1", "Pod", "ml", "a")
    assert caught.value.status is None
    assert [n[:3] for n in noted] == [("get", "pods", "unreachable")]


async def test_a_silent_server_costs_the_timeout(serve, write_kubeconfig):
    done = asyncio.Event()
    noted = []

    async def handler(request):
        await done.wait()
        return web.json_response({})

    file = write_kubeconfig(await serve(handler))
    async with Kube(file, limits=Limits(timeout_seconds=0.2), on_request=lambda *a: noted.append(a)) as kube:
        with pytest.raises(Transient, match=r"no answer within 0\.2 s"):
            await kube.get("v1", "Pod", "ml", "a")
    done.set()
    assert [n[:3] for n in noted] == [("get", "pods", "timeout")]


async def test_each_request_is_noted(api):
    api.answers = [{}, status(404, "NotFound")]
    await api.kube.apply_status(*CR, "ml", "llama", "u-1", {}, "m")
    with pytest.raises(NotFound):
        await api.kube.get("v1", "Pod", "ml", "a")
    assert [n[:3] for n in api.noted] == [("apply", "modeldeployments/status", "200"), ("get", "pods", "404")]
    assert all(n[3] >= 0 for n in api.noted)


async def test_no_more_requests_at_a_time_than_allowed(serve, write_kubeconfig):
    inside, most = 0, 0

    async def handler(request):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1
        return web.json_response({})

    async with Kube(write_kubeconfig(await serve(handler)), limits=Limits(concurrency=3)) as kube:
        await asyncio.gather(*(kube.get("v1", "Pod", "ml", f"p{i}") for i in range(12)))
    assert most == 3


async def test_each_request_waits_for_its_turn(api, monkeypatch):
    turns = []

    class Pace:
        def __init__(self, *limits):
            turns.append(limits)

        async def wait(self):
            turns.append(len(api.asked))

    monkeypatch.setattr("stoker.clients.kube.Pace", Pace)
    async with Kube(api.kubeconfig, limits=Limits(qps=10, burst=7)) as kube:
        for _ in range(3):
            await kube.get("v1", "Pod", "ml", "a")
    assert turns == [(10, 7), 0, 1, 2]


async def test_a_client_that_is_not_open(tmp_path):
    with pytest.raises(RuntimeError, match="async with"):
        await Kube(tmp_path / "x").get("v1", "Pod", "ml", "a")


# --- Credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [None, "", "a: [", "[]", "{}", "contexts: 7", "current-context: x\ncontexts: []"]
)
async def test_an_unusable_kubeconfig_says_what_to_do(tmp_path, content):
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)
    with pytest.raises(credentials.UnconfiguredError, match=r"kubeconfig cannot be used .*STOKER_KUBECONFIG"):
        async with Kube(file):
            pass


async def test_an_unknown_context_is_named(refused, write_kubeconfig):
    with pytest.raises(ClientError, match="context 'prod'"):
        async with Kube(write_kubeconfig(refused), context="prod"):
            pass


async def test_a_pod_without_a_service_account_says_what_to_do(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(credentials.UnconfiguredError, match="automountServiceAccountToken"):
        async with Kube():
            pass


async def test_a_rotated_token_file_is_read_again(serve, write_kubeconfig, tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "RELOAD_SECONDS", 0.01)
    token = tmp_path / "token"
    token.write_text("one")
    seen = set()
    both = asyncio.Event()

    async def handler(request):
        seen.add(request.headers["Authorization"])
        if seen == {"Bearer one", "Bearer two"}:
            both.set()
        return web.json_response({})

    file = write_kubeconfig(await serve(handler), tokenFile=str(token))
    async with Kube(file) as kube:
        await kube.get("v1", "Pod", "ml", "a")
        token.write_text("two")
        async with asyncio.timeout(20):
            while not both.is_set():
                await kube.get("v1", "Pod", "ml", "a")
                await asyncio.sleep(0.02)


async def test_an_unreadable_kubeconfig_keeps_the_last_credentials(api, monkeypatch, caplog):
    monkeypatch.setattr(credentials, "RELOAD_SECONDS", 0.0)
    async with Kube(api.kubeconfig) as kube:
        api.kubeconfig.write_text("broken: [")
        async with asyncio.timeout(20):
            while "last credentials stay in use" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.01)
        await kube.get("v1", "Pod", "ml", "a")
    assert api.asked[-1].headers["Authorization"] == "Bearer secret"
