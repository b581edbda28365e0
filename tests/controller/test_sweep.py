"""Sweeping: what the watches missed is found, and nothing is forgotten on the word of a list alone."""

from __future__ import annotations

import pytest

from stoker.clients.errors import NotFound, Transient
from stoker.controller.store import Store
from stoker.controller.sweep import WATCHED, Sweeper
from stoker.core.readings import Key
from tests.factories import KEY, NAMESPACE, NOW, manifest

POD = Key(NAMESPACE, "llama-0")


def pod(uid: str = "p", *, version: str = "5", of: str = KEY.name, node: str = ""):
    labels = {"stoker.dev/model-deployment": of}
    metadata = {"namespace": NAMESPACE, "name": POD.name, "uid": uid, "resourceVersion": version}
    return {"metadata": {**metadata, "labels": labels}, "spec": {"nodeName": node}}


class Kube:
    """An API server of dictionaries: what a list shows, what a read finds, and what each raises."""

    def __init__(self, listed=(), found=(), errors=()) -> None:
        self.listed = dict(listed)
        self.found = dict(found)
        self.errors = dict(errors)
        self.lists: list[tuple] = []
        self.reads: list[Key] = []

    async def list(self, api_version, kind, namespace=None, *, label_selector=None, metadata_only=False):
        self.lists.append((kind, namespace, label_selector, metadata_only))
        if error := self.errors.get(kind):
            raise error
        for obj in self.listed.get(kind, ()):
            if namespace in (None, obj["metadata"]["namespace"]):
                yield {"metadata": obj["metadata"]}

    async def get(self, api_version, kind, namespace, name):
        self.reads.append(Key(namespace, name))
        if error := self.errors.get((kind, name)):
            raise error
        if (kind, name) not in self.found:
            raise NotFound(f"{kind} {name}")
        return self.found[kind, name]


@pytest.fixture
def store():
    known = Store(lambda: NOW)
    known.put("ModelDeployment", manifest())
    return known


async def sweep(store, **answers):
    """One sweep of an API server that has the ModelDeployment, and these answers beside it."""
    kube = Kube(**{"listed": {}, **answers})
    kube.listed.setdefault("ModelDeployment", [manifest()])
    return await Sweeper(kube, store).sweep(), kube


async def test_a_view_that_is_right_costs_a_list_per_kind_and_no_read(store):
    store.put("Pod", pod())
    wrong, kube = await sweep(store, listed={"Pod": [pod()]})

    assert wrong == set()
    assert kube.reads == []
    assert kube.lists == [(kind, None, selector, True) for _, kind, selector in WATCHED]


async def test_a_pod_whose_deletion_was_missed_is_forgotten(store):
    store.put("Pod", pod())
    wrong, _ = await sweep(store)

    assert wrong == {KEY}
    assert store.objects("Pod") == {}


async def test_a_pod_that_is_younger_than_the_list_stays(store):
    store.put("Pod", pod())
    wrong, kube = await sweep(store, found={("Pod", POD.name): pod()})

    assert wrong == set()
    assert kube.reads == [POD]
    assert store.objects("Pod") == {"p": POD}


async def test_a_pod_that_was_missed_is_taken_in_whole(store):
    wrong, _ = await sweep(store, listed={"Pod": [pod()]}, found={("Pod", POD.name): pod(node="n1")})

    assert wrong == {KEY}
    assert [p.node for p in store.pods(KEY)] == ["n1"]


async def test_a_namesake_takes_the_place_of_the_one_that_is_gone(store):
    store.put("Pod", pod("old"))
    new = pod("new", version="9")
    wrong, _ = await sweep(store, listed={"Pod": [new]}, found={("Pod", POD.name): new})

    assert wrong == {KEY}
    assert store.objects("Pod").keys() == {"new"}


async def test_what_is_listed_and_gone_when_it_is_read_is_nobodys_business(store):
    wrong, _ = await sweep(store, listed={"Pod": [pod()]})

    assert wrong == set()
    assert store.objects("Pod") == {}


@pytest.mark.parametrize("kind", ["ModelDeployment", "Service"])
async def test_other_kinds_are_swept_too(store, kind):
    service = {"metadata": pod("s")["metadata"], "kind": "Service", "spec": {}}
    store.put("Service", service)
    wrong, _ = await sweep(store, listed={kind: [], "ModelDeployment": [manifest()], "Pod": []} | {kind: []})

    assert KEY in wrong
    assert store.objects(kind) == {}


async def test_each_namespace_is_listed_by_itself(store):
    kube = Kube({"ModelDeployment": [manifest()]})
    await Sweeper(kube, store, ("a", NAMESPACE)).sweep()

    assert [n for kind, n, *_ in kube.lists if kind == "Pod"] == ["a", NAMESPACE]
    assert kube.reads == []


async def test_a_list_that_fails_forgets_nothing_and_keeps_what_was_found_before(store):
    store.put("Pod", pod())
    with pytest.raises(Transient):
        await sweep(store, listed={"ModelDeployment": []}, errors={"Pod": Transient("away")})

    assert store.deployments == {}
    assert store.objects("Pod") == {"p": POD}


async def test_a_read_that_fails_forgets_nothing(store):
    store.put("Pod", pod())
    with pytest.raises(Transient):
        await sweep(store, errors={("Pod", POD.name): Transient("away")})

    assert store.objects("Pod") == {"p": POD}
