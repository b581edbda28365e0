"""The checks of a replica that does not serve, most actionable first.

Rules of this module:

* A check reads one case, a pod at a time. It returns a cause or None; `diagnose.py` takes the first one.
* Only what lasts is trusted. A crash is seen by exit codes and restarts: `CrashLoopBackOff` itself is shown
  for a fraction of a second only (Kubernetes 1.37 `pkg/kubelet/pod_workers.go`), except after a failed probe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from stoker.api.conditions import Reason
from stoker.core import causes
from stoker.core.causes import Cause, quote
from stoker.core.engines.engine import CONTAINER, STARTUP_BUDGET_SECONDS
from stoker.core.observed import ContainerStatus, Pod

NEVER_READY_SECONDS: Final = float(STARTUP_BUDGET_SECONDS)
"""A replica that has not served when its kubelet gives up on a container is not going to."""
MOUNT_SECONDS: Final = 120.0
"""How long volumes and network may take to be set up; a cloud disk is attached within a minute or so."""
SETTLING_SECONDS: Final = 10.0
"""A pod's first `Ready=False` follows its scheduling this soon; a later one says that it was ready before."""


@dataclass(frozen=True, slots=True)
class End:
    """How a container last ended."""

    container: ContainerStatus
    code: int
    reason: str
    message: str

    @property
    def story(self) -> str:
        """The end in words, with the last ones of the program itself."""
        words = causes.last_words(self.message)
        restarts = self.container.restarts
        times = f", restarted {restarts} time{'s' if restarts > 1 else ''}" if restarts else ""
        return f"{self.container.name} ended with exit code {self.code}{times}" + (
            f": {words}" if words else ""
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One pod at one moment (`now` in Unix seconds)."""

    pod: Pod
    now: float

    def containers(self) -> list[ContainerStatus]:
        """Init containers in their order, then the engine, then the others by name."""
        return [*self.pod.init_containers, *self.main_containers()]

    def main_containers(self) -> list[ContainerStatus]:
        """The engine, then the others by name."""
        return sorted(self.pod.containers, key=lambda c: (c.name != CONTAINER, c.name))

    def ends(self) -> Iterator[End]:
        """The last end of each container that is not up again."""
        for container in self.pod.init_containers:
            yield from _end(container)
        for container in self.main_containers():
            # `started`: its start-up probe has passed. Init containers have none, so there it says nothing.
            if not (container.state == "running" and container.started):
                yield from _end(container)

    def served(self) -> bool:
        """Whether Ready became False long enough after scheduling to have been True in between."""
        ready, scheduled = self.pod.condition("Ready"), self.pod.condition("PodScheduled")
        if ready is None or ready.since is None or scheduled is None or scheduled.since is None:
            return False
        return ready.status != "True" and ready.since - scheduled.since > SETTLING_SECONDS


def _end(container: ContainerStatus) -> Iterator[End]:
    if container.state == "terminated" and container.exit_code is not None:
        yield End(container, container.exit_code, container.reason, container.message)
    elif container.last_exit_code is not None:
        yield End(container, container.last_exit_code, container.last_reason, container.last_message)


# --- The pod was refused, taken away, or lost ----------------------------------------------------


def _rejected(case: Case) -> Cause | None:
    """The kubelet refused a pod that was assigned to its node."""
    if case.pod.phase != "Failed":
        return None
    said = f"its node refused it: {quote(case.pod.message)}"
    if case.pod.reason.startswith("OutOf"):
        short = case.pod.reason.removeprefix("OutOf")
        reason = Reason.INSUFFICIENT_GPUS if "/" in short else Reason.UNSCHEDULABLE
        return Cause(reason, said, f"check what else on the node uses {short}; Stoker replaces the pod")
    if case.pod.reason == "UnexpectedAdmissionError":
        devices = re.search(r"devices unavailable for (\S+?)\.? ", f"{case.pod.message} ")
        reason = Reason.INSUFFICIENT_GPUS if devices else Reason.REPLICA_FAILED
        return Cause(reason, said, "check the health of the node's devices; Stoker replaces the pod")
    if case.pod.reason == "NodeAffinity":
        return Cause(Reason.UNSCHEDULABLE, said, "the node's labels changed; Stoker replaces the pod")
    return None


_EVICTIONS: Final = frozenset({"Evicted", "Preempting", "Terminated", "NodeShutdown", "Shutdown"})
_FULL_VOLUMES: Final = {
    '"cache"': "raise storage.cache.sizeLimit, or use a claim",
    '"shared-memory"': "raise storage.sharedMemory",
}


def _evicted(case: Case) -> Cause | None:
    """The kubelet ended the pod: for want of disk or memory, or because the node shuts down."""
    if case.pod.phase != "Failed" or case.pod.reason not in _EVICTIONS:
        return None
    remedy = next((do for volume, do in _FULL_VOLUMES.items() if volume in case.pod.message), None)
    said = f"its node ended it ({case.pod.reason}): {quote(case.pod.message)}"
    return Cause(Reason.EVICTED, said, remedy or "check the node's disk and memory; Stoker replaces the pod")


_DISRUPTIONS: Final = {
    "PreemptionByScheduler": "a pod of higher priority takes its place",
    "EvictionByEvictionAPI": "somebody evicts it: a drain of its node, or a cluster autoscaler",
    "DeletionByTaintManager": "its node has a taint that it does not tolerate",
    "TerminationByKubelet": "its node ends it, for want of memory or disk or because it shuts down",
}


def _disrupted(case: Case) -> Cause | None:
    """The control plane takes the pod away."""
    disruption = case.pod.condition("DisruptionTarget")
    if disruption is None or disruption.status != "True":
        return None
    if disruption.reason == "DeletionByPodGC":
        return Cause(Reason.NODE_LOST, "its node is gone", "nothing: Stoker replaces it")
    why = _DISRUPTIONS.get(disruption.reason) or quote(disruption.message or disruption.reason)
    return Cause(Reason.EVICTED, why, "nothing, if that was meant: Stoker replaces it")


def _node_lost(case: Case) -> Cause | None:
    """The node's heartbeat stopped: the control plane then sets Ready=False and gives no reason for it.

    All else in the status is the kubelet's last word, and its containers may well go on serving.
    """
    ready = case.pod.condition("Ready")
    if (
        ready is None
        or ready.reason
        or ready.status == "True"
        or not any(c.ready for c in case.pod.containers)
    ):
        return None
    node = case.pod.node or "its node"
    since = f" for {_span(case.now - ready.since)}" if ready.since is not None else ""
    return Cause(Reason.NODE_LOST, f"{node} has not answered{since}", "repair or delete the node")


def _unschedulable(case: Case) -> Cause | None:
    scheduled = case.pod.condition("PodScheduled")
    if scheduled is None or scheduled.status == "True":
        return None
    if scheduled.reason == "SchedulingGated":
        return Cause(
            Reason.UNSCHEDULABLE, "a scheduling gate holds it", "find out who set spec.schedulingGates"
        )
    return causes.scheduling(scheduled.message)


# --- A container cannot start --------------------------------------------------------------------

_PULL_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_START_REASONS: Final = frozenset({"RunContainerError", "CreateContainerError", "StartError"})


def _image_pull(case: Case) -> Cause | None:
    for container in case.containers():
        if container.state == "waiting" and container.reason in _PULL_REASONS:
            return causes.image_pull(container.message or container.reason)
    return None


def _misconfigured(case: Case) -> Cause | None:
    for container in case.containers():
        if container.state == "waiting" and container.reason == "CreateContainerConfigError":
            said = quote(container.message)
            if re.search(r"not found|find key|non-existent", said):
                do = "create it, or correct its name in the spec; the pod starts by itself then"
                return Cause(Reason.CONFIG_MISSING, f"{container.name} cannot start: {said}", do)
            what = f"{container.name} cannot start: {said}"
            return Cause(Reason.REPLICA_FAILED, what, "correct template.spec")
    return None


def _unmounted(case: Case) -> Cause | None:
    """Volumes or network are not there; which one is only in the pod's Events."""
    sandbox = case.pod.condition("PodReadyToStartContainers")
    if case.pod.phase != "Pending" or sandbox is None or sandbox.status == "True":
        return None
    waited = case.now - (sandbox.since if sandbox.since is not None else case.pod.created_at)
    if waited < MOUNT_SECONDS:
        return None
    what = f"its volumes or its network are not set up after {_span(waited)}"
    return Cause(
        Reason.CONFIG_MISSING,
        what,
        "often a Secret or claim that it mounts does not exist: read the events in kubectl describe pod",
    )


def _cannot_start(case: Case) -> Cause | None:
    for container in case.containers():
        failed = _START_REASONS & {container.reason, container.last_reason}
        if container.state != "running" and failed:
            message = container.message if container.reason in _START_REASONS else container.last_message
            said = quote(message.rpartition("unable to start container process: ")[2])
            what = f"{container.name} cannot be started: {said}"
            return Cause(Reason.CRASH_LOOP, what, "correct the image, or the command that it is started with")
    return None


# --- A container ended ---------------------------------------------------------------------------


def _out_of_memory(case: Case) -> Cause | None:
    for end in case.ends():
        if end.reason == "OOMKilled":
            what = f"{end.container.name} used more memory than its limit or its node has: {end.story}"
            return Cause(Reason.OUT_OF_MEMORY, what, "raise its memory in template.spec, or use larger nodes")
        if end.code and causes.gpu_memory(end.message):
            do = "use more GPUs per replica (accelerators[].count), or lower --max-model-len in engine.args"
            return Cause(Reason.OUT_OF_MEMORY, f"the model does not fit into GPU memory: {end.story}", do)
    return None


def _ended(case: Case) -> Cause | None:
    """The whole pod is over, or is about to be."""
    ready = case.pod.condition("Ready")
    over = ready is not None and ready.reason in {"PodFailed", "PodCompleted"}
    if not (case.pod.terminal or over):
        return None
    if case.pod.reason == "DeadlineExceeded":
        do = "remove activeDeadlineSeconds from template.spec; Stoker replaces the pod"
        return Cause(Reason.REPLICA_FAILED, "it ran longer than its activeDeadlineSeconds", do)
    end = max(case.ends(), key=lambda e: e.code != 0, default=None)
    said = f"{case.pod.reason} {case.pod.message}".strip() or "its containers gave no word"
    what = f"it is over: {end.story if end is not None else quote(said)}"
    return Cause(Reason.REPLICA_FAILED, what, "nothing, if it stays a single one: Stoker replaces it")


def _init_failed(case: Case) -> Cause | None:
    initialized = case.pod.condition("Initialized")
    if initialized is None or initialized.status == "True":
        return None
    for end in case.ends():
        if end.code and end.container in case.pod.init_containers:
            what = f"init container {end.story}"
            return Cause(Reason.CRASH_LOOP, what, causes.crash_remedy(end.message, end.code))
    return None


def _gave_up(case: Case) -> Cause | None:
    """An engine never ends by itself with 0: its start-up probe ran out, or its command is no server."""
    for end in case.ends():
        if not end.code and end.container not in case.pod.init_containers:
            what = f"{end.story}, before it was ready"
            do = "if it was still loading, keep the weights in storage.cache; else correct its command"
            return Cause(Reason.NEVER_READY, what, do)
    return None


def _crashed(case: Case) -> Cause | None:
    for end in case.ends():
        if end.code and end.container not in case.pod.init_containers:
            return Cause(Reason.CRASH_LOOP, end.story, causes.crash_remedy(end.message, end.code))
    return None


# --- It runs and does not serve ------------------------------------------------------------------


def _fell_silent(case: Case) -> Cause | None:
    """It was ready, its containers run, and it does not answer its health check any more."""
    silent = [c for c in case.main_containers() if not c.ready]
    if not case.served() or not silent or any(c.state != "running" or not c.started for c in silent):
        return None
    ready = case.pod.condition("Ready")
    since = f" for {_span(case.now - ready.since)}" if ready is not None and ready.since is not None else ""
    what = f"{silent[0].name} has not answered its health check{since}, after having served"
    return Cause(Reason.REPLICA_FAILED, what, "if it does not recover, its node restarts it; read its log")


def _never_ready(case: Case) -> Cause | None:
    ready = case.pod.condition("Ready")
    if ready is None and case.pod.phase == "Running":
        return None  # A kubelet that has just restarted publishes a status without conditions first.
    since = ready.since if ready is not None and ready.since is not None else case.pod.created_at
    if not since or case.now - since < NEVER_READY_SECONDS:
        return None
    doing = (f"{c.name} is {c.state} {c.reason}".rstrip() for c in case.containers() if not c.ready)
    what = f"not ready after {_span(case.now - since)} ({next(doing, 'no container has a status')})"
    return Cause(Reason.NEVER_READY, what, "read its log to see whether it still loads or is stuck")


Check = Callable[[Case], Cause | None]
CHECKS: Final[tuple[Check, ...]] = (
    _rejected,
    _evicted,
    _disrupted,
    _node_lost,
    _unschedulable,
    _image_pull,
    _misconfigured,
    _unmounted,
    _cannot_start,
    _out_of_memory,
    _ended,
    _init_failed,
    _gave_up,
    _crashed,
    _fell_silent,
    _never_ready,
)

DEPARTURES: Final[tuple[Check, ...]] = (_evicted, _disrupted)
"""Those that say why a pod is being deleted, when it was not Stoker that asked."""


def _span(seconds: float) -> str:
    """A length of time, in the unit that says enough."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
