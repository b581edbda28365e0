"""Acting: the order of a plan, what a failed write means, and what the store learns."""

from dataclasses import replace

import pytest

from stoker.api.conditions import Reason
from stoker.clients.errors import AlreadyExists, Conflict, Forbidden, Rejected, Transient
from stoker.controller.executor import Executor, Outcome
from stoker.controller.store import Store
from stoker.core.plan import CreatePod, DeletePod, DrainPod, Event, Plan
from stoker.core.readings import Key
from stoker.core.reconcile import reconcile
from tests import factories

NOW = factories.NOW


class Kube:
    """Records what is asked; raises what it is told to, by verb."""

    def __init__(self, **errors):
        self.errors = errors
        self.calls = []
        self.found = {}

    async def _do(self, verb, answer):
        self.calls.append(verb)
        if error := self.errors.get(verb):
            raise error
        return answer

    async def get(self, api_version, kind, namespace, name):
        return await self._do("get", self.found)

    async def create(self, manifest):
        return await self._do("create", {**manifest, "metadata": {**manifest["metadata"], "uid": "made"}})

    async def apply(self, manifest, field_manager):
        return await self._do("apply", {**manifest, "metadata": {**manifest["metadata"], "uid": "applied"}})

    async def apply_status(self, api_version, kind, namespace, name, uid, status, field_manager):
        self.status = status
        metadata = {"namespace": namespace, "name": name, "uid": uid, "generation": 1}
        return await self._do("status", {"metadata": metadata, "spec": {}, "status": status})

    async def merge_metadata(self, api_version, kind, namespace, name, uid, labels, annotations):
        self.labels, self.annotations = labels, annotations
        labels = {"stoker.dev/model-deployment": "chat", **labels}
        return await self._do(
            "merge", {"metadata": {"namespace": namespace, "name": name, "uid": uid, "labels": labels}}
        )

    async def delete(self, api_version, kind, namespace, name, uid):
        return await self._do("delete", True)


class Recorder:
    def __init__(self):
        self.events = []

    def record(self, key, uid, event):
        self.events.append(event.reason)


@pytest.fixture
def plan():
    """The plan of a new ModelDeployment: its Service, its first pods, its status and Events."""
    deployment = factories.deployment(replicas=2)
    return reconcile(factories.snapshot(deployment))[deployment.key]


def executor(kube):
    store, recorder = Store(lambda: NOW), Recorder()
    return Executor(kube, store, recorder, lambda: NOW), store, recorder


async def test_a_decision_is_on_record_before_it_is_carried_out(plan):
    kube = Kube()
    acting, store, recorder = executor(kube)

    result = await acting.execute(plan)

    assert result.outcome is Outcome.DONE
    assert kube.calls == ["status", "apply", "create", "create"]
    assert "Started" in recorder.events
    assert store.objects("Service").keys() == {"applied"}


async def test_status_is_published_without_empty_fields(plan):
    kube = Kube()
    await executor(kube)[0].execute(plan)

    assert "replicaStates" not in kube.status
    assert kube.status["readyReplicas"] == 0


async def test_a_status_that_comes_back_before_the_answer_wakes_nobody(plan):
    """The watch is often the quicker one, and each wake-up is a decision."""
    woken = []

    class Watched(Kube):
        async def _do(self, verb, answer):
            if verb == "status":
                woken.append(store.put("ModelDeployment", answer))
            return await super()._do(verb, answer)

    acting, store, _ = executor(Watched())
    metadata = {"namespace": plan.key.namespace, "name": plan.key.name, "uid": plan.uid, "generation": 1}
    store.put("ModelDeployment", {"metadata": metadata, "spec": {}})
    await acting.execute(plan)

    assert woken == [None]
    assert store.deployments[plan.key].status == plan.status


async def test_status_is_published_also_when_acting_failed(plan):
    kube = Kube(create=Transient("refused"))

    result = await executor(kube)[0].execute(plan)

    assert result.outcome is Outcome.FAILED
    assert kube.calls.count("status") == 1


async def test_a_plan_is_carried_out_even_if_its_status_cannot_be_published(plan):
    kube = Kube(status=Forbidden("modeldeployments/status is forbidden"))

    result = await executor(kube)[0].execute(plan)

    assert result.outcome is Outcome.FAILED
    assert kube.calls == ["status", "apply", "create", "create"]


async def test_a_failure_ends_the_plan_there():
    kube = Kube(delete=Transient("refused"))
    pod = Key("ml", "chat-1")
    plan = Plan(pod, "u", (DeletePod(pod, "p", "drained"), DrainPod(pod, "q", NOW, "scale-in")))

    await executor(kube)[0].execute(plan)

    assert kube.calls == ["delete"]


async def test_events_are_not_told_when_status_could_not_be_published(plan):
    kube = Kube(status=Transient("refused"))
    acting, _, recorder = executor(kube)

    assert (await acting.execute(plan)).outcome is Outcome.FAILED
    assert recorder.events == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Rejected("spec.containers[0].image: Required value"), Reason.APPLY_REJECTED),
        (Forbidden("pods is forbidden: User cannot create"), Reason.APPLY_FORBIDDEN),
        (Forbidden("pods is forbidden: exceeded quota: gpus"), Reason.QUOTA_EXCEEDED),
    ],
)
async def test_a_refused_create_is_an_obstacle(plan, error, reason):
    result = await executor(Kube(create=error))[0].execute(plan)

    assert result.outcome == Outcome.REFUSED
    assert result.obstacle.reason == reason
    assert result.obstacle.retry_at > NOW


async def test_a_refused_delete_is_tried_with_back_off_since_nothing_else_holds_it_back():
    pod = Key("ml", "chat-1")
    plan = Plan(pod, "u", (DeletePod(pod, "p", "drained"),))

    result = await executor(Kube(delete=Forbidden("no")))[0].execute(plan)

    assert (result.outcome, result.obstacle) == (Outcome.FAILED, None)


async def test_a_conflict_asks_for_a_new_decision():
    pod = Key("ml", "chat-1")
    plan = Plan(pod, "u", (DrainPod(pod, "p", NOW, "scale-in"),))

    assert (await executor(Kube(merge=Conflict("changed")))[0].execute(plan)).outcome is Outcome.AGAIN


async def test_a_drain_is_written_on_the_pod():
    kube = Kube()
    pod = Key("ml", "chat-1")
    await executor(kube)[0].execute(Plan(pod, "u", (DrainPod(pod, "p", 1.5, "scale-in"),)))

    assert kube.labels == {"stoker.dev/serving": "false"}
    assert kube.annotations["stoker.dev/drain-started-at"] == "1970-01-01T00:00:01.500Z"


async def test_a_deleted_pod_counts_as_deleting_before_the_watch_says_so():
    kube = Kube()
    acting, store, _ = executor(kube)
    pod = replace(factories.pod(), uid="p")
    manifest = {
        "metadata": {
            "namespace": "ml",
            "name": "chat-1",
            "uid": "p",
            "labels": {"stoker.dev/model-deployment": "chat"},
        }
    }
    store.put("Pod", manifest)

    await acting.execute(Plan(pod.key, "u", (DeletePod(Key("ml", "chat-1"), "p", "drained"),)))

    assert [p.deleting for p in store.pods(Key("ml", "chat"))] == [True]


async def test_a_name_that_is_taken_is_learnt(plan):
    kube = Kube(create=AlreadyExists("exists"))
    create = next(a for a in plan.actions if isinstance(a, CreatePod))
    kube.found = {**create.manifest, "metadata": {**create.manifest["metadata"], "uid": "there"}}
    acting, store, _ = executor(kube)

    assert (await acting.execute(replace(plan, actions=(create,)))).outcome is Outcome.AGAIN
    assert "there" in store.objects("Pod")


async def test_a_name_that_somebody_elses_pod_holds_is_an_obstacle_that_names_it(plan):
    kube = Kube(create=AlreadyExists("exists"))
    create = next(a for a in plan.actions if isinstance(a, CreatePod))
    kube.found = {"metadata": {"namespace": "ml", "name": "foreign", "uid": "there"}}

    result = await executor(kube)[0].execute(replace(plan, actions=(create,)))

    assert result.outcome is Outcome.REFUSED
    assert "is not Stoker's" in result.obstacle.message


async def test_an_event_alone_is_recorded():
    acting, _, recorder = executor(Kube())
    await acting.execute(Plan(Key("ml", "chat"), "u", events=(Event("Normal", "Hello", "world"),)))

    assert recorder.events == ["Hello"]
