"""Act: one plan to the API server, in order.

Rules of this module:

* Actions run in the order of the plan, neighbours of one kind at once; a failure ends it there. Whatever
  was done by then is a safe place to stop.
* The answer to a write goes into the store, so that the next decision sees it.
* Status is published first: a decision is on record before it is carried out. An operator that dies in
  between goes on with it, even blind; it would else take what it had added for too much. Where status cannot
  be published the plan is carried out all the same. Events come last and never fail a plan.
* What the API server refuses outright (Rejected, Forbidden) becomes an obstacle that status shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, Protocol

import structlog

from stoker.api import meta
from stoker.api.conditions import Reason
from stoker.api.v1alpha1 import ModelDeploymentStatus
from stoker.clients.errors import AlreadyExists, ClientError, Conflict, Forbidden, NotFound, Rejected
from stoker.controller.store import Store
from stoker.core import refusals
from stoker.core.observed import Obstacle
from stoker.core.parse import pod_from
from stoker.core.plan import Action, Apply, CreatePod, DeletePod, DrainPod, Event, Plan, RestorePod
from stoker.core.readings import Key

REFUSED_RETRY_SECONDS = 60.0
"""A write that was refused is tried again after this long, or at once when the spec changes."""

log = structlog.get_logger(__name__)

Object = Mapping[str, Any]


class Writer(Protocol):
    """The part of the Kubernetes client that acting needs."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """Read an object."""

    async def create(self, manifest: Object) -> Object:
        """Create an object."""

    async def apply(self, manifest: Object, field_manager: str) -> Object:
        """Apply an object."""

    async def apply_status(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        status: Object,
        field_manager: str,
    ) -> Object:
        """Publish a status."""

    async def merge_metadata(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        labels: Mapping[str, str | None],
        annotations: Mapping[str, str | None],
    ) -> Object:
        """Change labels and annotations."""

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> bool:
        """Delete an object; False when it was gone already."""


class Recorder(Protocol):
    """Where Events go."""

    def record(self, key: Key, uid: str, event: Event) -> None:
        """Take an Event; never fails."""


class Outcome(StrEnum):
    """How a plan ended."""

    DONE = "done"
    AGAIN = "again"
    """The view was out of date: decide again at once."""
    REFUSED = "refused"
    FAILED = "failed"
    """Something is wrong for now: try again with back-off."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a plan ended, and what the API server refused, if it did."""

    outcome: Outcome
    obstacle: Obstacle | None = None
    error: str = ""


class Executor:
    """Executes plans.

    Args:
        kube: Writes go here.
        store: Answers go here.
        recorder: Events go here.
        clock: Unix seconds.
    """

    def __init__(self, kube: Writer, store: Store, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._store = store
        self._recorder = recorder
        self._clock = clock

    async def execute(self, plan: Plan) -> Result:
        """Carry out a plan; never raises what the API server said."""
        published = await self._publish(plan) if plan.status is not None else Result(Outcome.DONE)
        result = await self._act(plan)
        for event in plan.events if published.outcome is Outcome.DONE else ():
            self._recorder.record(plan.key, plan.uid, event)
        return result if result.outcome is not Outcome.DONE else published

    async def _act(self, plan: Plan) -> Result:
        for kind, alike in groupby(plan.actions, type):
            creating = issubclass(kind, CreatePod | Apply)
            done = await asyncio.gather(*(self._do(action) for action in alike), return_exceptions=True)
            for error in done:
                if isinstance(error, ClientError):
                    return self._judge(plan, error, creating=creating)
                if error is not None:
                    raise error
        return Result(Outcome.DONE)

    async def _publish(self, plan: Plan) -> Result:
        assert plan.status is not None  # noqa: S101 - the caller has looked
        try:
            await self._put_status(plan.key, plan.uid, plan.status)
        except ClientError as error:
            return self._judge(plan, error, creating=False)
        return Result(Outcome.DONE)

    def _judge(self, plan: Plan, error: ClientError, *, creating: bool) -> Result:
        """What a failed write means. Only what creates can be held back; the rest is tried with back-off."""
        logged = log.bind(model_deployment=str(plan.key), error=str(error))
        if isinstance(error, NotFound | Conflict | AlreadyExists):
            logged.debug("view out of date")
            return Result(Outcome.AGAIN, error=str(error))
        going = (
            isinstance(error, Forbidden) and error.namespace_terminating
        )  # and the ModelDeployment with it
        if isinstance(error, Rejected | Forbidden) and creating and not going:
            logged.warning("write refused")
            return Result(Outcome.REFUSED, self._obstacle(plan, error), str(error))
        logged.warning("write failed")
        return Result(Outcome.FAILED, error=str(error))

    def _obstacle(self, plan: Plan, error: Rejected | Forbidden) -> Obstacle:
        reason = Reason.APPLY_REJECTED
        if isinstance(error, Forbidden):
            reason = Reason.QUOTA_EXCEEDED if error.quota_exceeded else Reason.APPLY_FORBIDDEN
        deployment = self._store.deployments.get(plan.key)
        generation = deployment.generation if deployment is not None else 0
        refused = next((a.manifest for a in plan.actions if isinstance(a, CreatePod)), None)
        message = refusals.explain(str(error), refused)
        return Obstacle(reason, message, generation, self._clock() + REFUSED_RETRY_SECONDS)

    # --- One action ------------------------------------------------------------------------------

    async def _do(self, action: Action) -> None:
        match action:
            case CreatePod():
                await self._create(action)
            case DeletePod():
                await self._delete(action)
            case DrainPod():
                await self._route(action, serving=False)
            case RestorePod():
                await self._route(action, serving=True)
            case Apply():
                await self._apply(action)

    async def _create(self, action: CreatePod) -> None:
        metadata = action.manifest["metadata"]
        log.info("create pod", namespace=metadata["namespace"], pod=metadata["name"], reason=action.reason)
        try:
            self._store.put("Pod", await self._kube.create(action.manifest))
        except AlreadyExists:
            await self._learn(metadata["namespace"], metadata["name"])
            raise

    async def _learn(self, namespace: str, name: str) -> None:
        """A pod that Stoker did not know of holds the name: know it from now on.

        Raises:
            Rejected: It is not a replica, so the name stays taken until somebody removes it.
        """
        found = await self._kube.get("v1", "Pod", namespace, name)
        if pod_from(found) is None:
            message = f"pod {namespace}/{name} is not Stoker's and has a replica's name: delete or rename it"
            raise Rejected(message)
        self._store.put("Pod", found)

    async def _delete(self, action: DeletePod) -> None:
        log.info("delete pod", namespace=action.pod.namespace, pod=action.pod.name, reason=action.reason)
        there = await self._kube.delete("v1", "Pod", action.pod.namespace, action.pod.name, action.uid)
        if there:
            self._store.mark_deleting(action.uid, self._clock())
        else:
            self._store.remove(action.uid)

    async def _route(self, action: DrainPod | RestorePod, *, serving: bool) -> None:
        verb = "restore pod" if serving else "drain pod"
        log.info(verb, namespace=action.pod.namespace, pod=action.pod.name, reason=action.reason)
        started = _rfc3339(action.at) if isinstance(action, DrainPod) else None
        changed = await self._kube.merge_metadata(
            "v1",
            "Pod",
            action.pod.namespace,
            action.pod.name,
            action.uid,
            {meta.LABEL_SERVING: "true" if serving else "false"},
            {
                meta.ANNOTATION_DRAIN_STARTED: started,
                meta.ANNOTATION_DRAIN_REASON: action.reason if started else None,
            },
        )
        self._store.put("Pod", changed)

    async def _apply(self, action: Apply) -> None:
        metadata = action.manifest["metadata"]
        log.info(
            "apply", kind=action.manifest["kind"], namespace=metadata["namespace"], name=metadata["name"]
        )
        applied = await self._kube.apply(action.manifest, meta.FIELD_MANAGER)
        self._store.put(action.manifest["kind"], applied)

    async def _put_status(self, key: Key, uid: str, status: ModelDeploymentStatus) -> None:
        self._store.expect(key, status)
        body = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        written = await self._kube.apply_status(
            meta.API_VERSION, meta.KIND, key.namespace, key.name, uid, body, meta.FIELD_MANAGER_STATUS
        )
        self._store.put(meta.KIND, written)


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
