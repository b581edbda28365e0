"""The reasons of conditions: one stable word each, with what it means, what to check and what to do.

Alerts and scripts match on these words, so a word is never renamed or given a second meaning; a case that no
word fits gets a new one here. `docs/reference/conditions.md` is made of this table.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Reason(StrEnum):
    """Why a condition has its status."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    RESERVED_ARGUMENT = "ReservedArgument"
    GRANTED = "Granted"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    NO_SUCH_NODE = "NoSuchNode"
    QUOTA_EXCEEDED = "QuotaExceeded"
    STARTING = "Starting"
    SCALING = "Scaling"
    ROLLING_OUT = "RollingOut"
    DRAINING = "Draining"
    ROLLOUT_STUCK = "RolloutStuck"
    COMPLETE = "Complete"
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    NO_READY_REPLICA = "NoReadyReplica"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASH_LOOP = "CrashLoop"
    NEVER_READY = "NeverReady"
    UNSCHEDULABLE = "Unschedulable"
    CONFIG_MISSING = "ConfigMissing"
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    REPLICA_FAILED = "ReplicaFailed"
    METRICS_FRESH = "MetricsFresh"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    WAITING_FOR_METRICS = "WaitingForMetrics"
    PROMETHEUS_UNREACHABLE = "PrometheusUnreachable"
    FIXED = "Fixed"
    SHADOW = "Shadow"
    APPLY_REJECTED = "ApplyRejected"
    APPLY_FORBIDDEN = "ApplyForbidden"
    INTERNAL_ERROR = "InternalError"
    NOT_OBSERVED = "NotObserved"


class Guide(NamedTuple):
    """What an admin needs to know about a reason."""

    means: str
    check: str = "Nothing: all is well."
    do: str = "Nothing."


_PODS = "`kubectl get pods -l stoker.dev/model-deployment=<name>`"
_LOGS = "`kubectl logs <pod> --previous`, and `status.replicaStates`, which names the pod"

GUIDES: Final[Mapping[Reason, Guide]] = {
    Reason.ACCEPTED: Guide("The spec can be acted on."),
    Reason.INVALID_SPEC: Guide(
        "The API server stored the spec, but it cannot be acted on; replicas that exist stay as they are.",
        "The message: it names each field and what is wrong with it.",
        "Correct the fields and apply again.",
    ),
    Reason.RESERVED_ARGUMENT: Guide(
        "`engine.args` or `accelerators[].args` holds a flag that Stoker sets itself.",
        "The message: it names the flag and the field of the spec that sets it.",
        "Remove the flag and set the field instead.",
    ),
    Reason.GRANTED: Guide("Every replica that is asked for has its GPUs."),
    Reason.INSUFFICIENT_GPUS: Guide(
        "Fewer GPUs are free than the replicas need. One replica waits and keeps asking the scheduler; others"
        " that wait are withdrawn.",
        "The message names the resource and counts the nodes; `kubectl describe node` shows who has it.",
        "Add GPU nodes, lower `minReplicas` or `replicas`, or make another fleet smaller. Stoker goes on by"
        " itself when GPUs become free.",
    ),
    Reason.NO_SUCH_NODE: Guide(
        "No node has the resource and the labels that the accelerator asks for.",
        "`kubectl get nodes --show-labels`, against `accelerators[].resource` and `nodeSelector`.",
        "Correct the selector, add such a node, or check that the GPU device plugin runs.",
    ),
    Reason.QUOTA_EXCEEDED: Guide(
        "A ResourceQuota of the namespace refuses further pods.",
        "`kubectl describe resourcequota -n <namespace>`.",
        "Raise the quota, or lower `maxReplicas` or `replicas`.",
    ),
    Reason.STARTING: Guide(
        "Replicas are on their way: image, weights, warm-up. Large models take minutes.",
        "`status.replicaStates` for the phase of each, `status.startup` for how long it usually takes.",
        "Wait; if it lasts, the reason changes to what stands in the way.",
    ),
    Reason.SCALING: Guide(
        "Replicas are being added or removed to follow the traffic or `spec.replicas`.",
        "`status.scaling.lastDecision` says why.",
    ),
    Reason.ROLLING_OUT: Guide(
        "The spec changed what a pod looks like, and replicas are being replaced by new ones.",
        "`status.replicaStates` shows the revision of each.",
        "Wait.",
    ),
    Reason.DRAINING: Guide(
        "Replicas that leave are out of routing and finish their requests.",
        "`status.replicaStates`, phase Draining.",
        "Wait; `drain.timeout` bounds it.",
    ),
    Reason.ROLLOUT_STUCK: Guide(
        "Replicas of the new revision do not come to serve, so the old ones are kept.",
        "`status.replicaStates`: the reason of the newest revision.",
        "Correct the spec, or apply the former one again.",
    ),
    Reason.COMPLETE: Guide("As many replicas of the current revision serve as should."),
    Reason.SERVING: Guide("At least the minimum of replicas serves."),
    Reason.SCALED_TO_ZERO: Guide(
        "There was no traffic for `scaling.windows.toZero`, and `minReplicas` is 0: no replica runs.",
        "`status.scaling.lastDecision` says since when.",
        "Set `minReplicas` to 1 to have a replica again.",
    ),
    Reason.NO_READY_REPLICA: Guide(
        "No replica serves, and no single cause stands out.",
        f"{_PODS}, and `status.replicaStates`.",
        "Follow the reason of each replica.",
    ),
    Reason.IMAGE_PULL_FAILED: Guide(
        "A node cannot pull the engine's image, or the image that holds the model.",
        "`kubectl describe pod <pod>`: the registry's answer is in the events.",
        "Correct `engine.image` or the `oci://` address, or add `template.spec.imagePullSecrets`.",
    ),
    Reason.OUT_OF_MEMORY: Guide(
        "The kernel ended the engine because it used more memory than its limit or its node has.",
        f"{_LOGS}.",
        "Use a larger node or more GPUs per replica (`accelerators[].count`), or give the engine less to"
        " hold, for instance a shorter context in `engine.args`.",
    ),
    Reason.CRASH_LOOP: Guide(
        "The engine ends soon after each start; Stoker tries again, ever more slowly.",
        f"{_LOGS}.",
        "Correct what the engine complains about: often an argument, a model it cannot load, or GPU memory.",
    ),
    Reason.NEVER_READY: Guide(
        "The engine runs, but has not answered its health check within the start-up budget.",
        "`kubectl logs <pod>`: is it still downloading, or stuck?",
        "Keep the weights in a cache (`storage.cache.claimName`), or correct what it waits for.",
    ),
    Reason.UNSCHEDULABLE: Guide(
        "No node fits a pod, and GPUs are not the cause: memory, taints, affinity or a volume is.",
        "`kubectl describe pod <pod>`: the event FailedScheduling.",
        "Correct `accelerators[].tolerations` or `template.spec`, or free what is short.",
    ),
    Reason.CONFIG_MISSING: Guide(
        "A Secret, ConfigMap or PersistentVolumeClaim that the pod mounts or reads does not exist.",
        "The message names it.",
        "Create it, or correct the name in the spec; the pod starts by itself then.",
    ),
    Reason.NODE_LOST: Guide(
        "The node of a replica stopped answering; the replica is replaced.",
        "`kubectl describe node <node>`.",
        "Repair or delete the node.",
    ),
    Reason.EVICTED: Guide(
        "The node evicted a replica, for instance for want of disk; the replica is replaced.",
        "`kubectl describe pod <pod>` and the pressure conditions of the node.",
        "Give the node more disk or memory, or bound `storage.cache.sizeLimit`.",
    ),
    Reason.REPLICA_FAILED: Guide(
        "A replica's pod failed in a way that no other reason describes; the replica is replaced.",
        f"{_LOGS}.",
        "Follow what the log says.",
    ),
    Reason.METRICS_FRESH: Guide("All signals of scaling are fresh and decisions are made on them."),
    Reason.METRICS_MISSING: Guide(
        "Prometheus answers, but has no series, or not those of every serving replica. The fleet is not made"
        " smaller meanwhile.",
        "The targets page of Prometheus: are the pods scraped? `status.scaling.demand` counts the answers.",
        "Let Prometheus scrape the pods: by their annotations, or by the PodMonitor of the manifests.",
    ),
    Reason.METRICS_STALE: Guide(
        "The newest samples are too old to act on. The fleet is not made smaller meanwhile.",
        "Prometheus' own health and its scrape interval; the clocks of both machines.",
        "Repair the scraping.",
    ),
    Reason.WAITING_FOR_METRICS: Guide(
        "Replicas have just started, and their first rates cannot be there yet.",
        "Nothing, unless it lasts for minutes.",
        "Wait for two scrapes.",
    ),
    Reason.PROMETHEUS_UNREACHABLE: Guide(
        "Prometheus does not answer the operator. The fleet is not made smaller meanwhile.",
        "The address of Prometheus in the operator's settings, its pods, and network policies.",
        "Bring it back; nothing else is needed.",
    ),
    Reason.FIXED: Guide(
        "`scaling` is not set: `spec.replicas`, or another autoscaler through `/scale`, sets the number.",
        "Nothing.",
        "Set `scaling` to let the number follow the traffic.",
    ),
    Reason.SHADOW: Guide(
        "Decisions are made and shown, but not carried out.",
        "`status.scaling.history`: would you have wanted these?",
        "Set `scaling.mode` to Active to carry them out.",
    ),
    Reason.APPLY_REJECTED: Guide(
        "The API server refused an object that Stoker made, usually for a field of `template.spec`.",
        "The message: it is the API server's own.",
        "Correct the field; Stoker tries again with the next change, and now and then without one.",
    ),
    Reason.APPLY_FORBIDDEN: Guide(
        "The operator's ServiceAccount, or an admission policy, does not allow what has to be done.",
        "`kubectl auth can-i --list --as=system:serviceaccount:<namespace>:<account>`; admission webhooks.",
        "Install the roles that come with this release, or change the policy.",
    ),
    Reason.INTERNAL_ERROR: Guide(
        "Stoker failed on this object; others go on. What it last knew is left as it was.",
        "The operator's log: `deciding failed`, with this object's name and the traceback.",
        "Please report it, with the log and the object.",
    ),
    Reason.NOT_OBSERVED: Guide(
        "Stoker has not looked at this aspect yet.",
        "Does the operator run? `kubectl get pods -A -l app.kubernetes.io/name=stoker`.",
        "Wait a moment.",
    ),
}
