"""The spec of a ModelDeployment: the single source of the CRD and of what the operator parses.

A default here is a default of the API server too, so an object that was stored and one that is still a file
parse to equal values. What one replica is stands in `workload.py`, status in `status.py`; all their names can
be imported from here.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from stoker.api.fields import ApiModel, Between, Duration, FieldError, Rule
from stoker.api.queries import MAX_SIGNALS, CustomSignal
from stoker.api.scalars import MAX_REPLICAS, Rate, map_by
from stoker.api.schedules import Schedule
from stoker.api.status import (
    MAX_SCHEDULES,
    BoundsStatus,
    CapacitySource,
    CapacityStatus,
    Condition,
    ConditionStatus,
    Decision,
    DemandStatus,
    ForecastOutcome,
    ForecastStatus,
    Freshness,
    ModelDeploymentStatus,
    ReplicaPhase,
    ReplicaState,
    ScalingStatus,
    Season,
    StartupPart,
    StartupStatus,
)
from stoker.api.workload import (
    Accelerator,
    Cache,
    CustomMetrics,
    EngineSpec,
    EngineType,
    EnvVar,
    EnvVarSource,
    FieldSelector,
    KeySelector,
    ModelSource,
    Storage,
    TaintEffect,
    Template,
    TemplateMetadata,
    TokensCounted,
    Toleration,
    TolerationOperator,
)

__all__ = [
    "MAX_REPLICAS",
    "Accelerator",
    "BoundsStatus",
    "Cache",
    "CapacitySource",
    "CapacityStatus",
    "Condition",
    "ConditionStatus",
    "CustomMetrics",
    "CustomSignal",
    "Decision",
    "DemandStatus",
    "Drain",
    "Duration",
    "EngineSpec",
    "EngineType",
    "EnvVar",
    "EnvVarSource",
    "FieldError",
    "FieldSelector",
    "Forecast",
    "ForecastOutcome",
    "ForecastStatus",
    "Freshness",
    "KeySelector",
    "ModelDeploymentSpec",
    "ModelDeploymentStatus",
    "ModelSource",
    "OnMissingMetrics",
    "ReplicaPhase",
    "ReplicaState",
    "Scaling",
    "ScalingMode",
    "ScalingStatus",
    "Schedule",
    "Season",
    "StartupPart",
    "StartupStatus",
    "Storage",
    "TaintEffect",
    "Targets",
    "Template",
    "TemplateMetadata",
    "TokensCounted",
    "Toleration",
    "TolerationOperator",
    "Windows",
]


class ScalingMode(StrEnum):
    """What becomes of a decision."""

    ACTIVE = "Active"
    SHADOW = "Shadow"


class OnMissingMetrics(StrEnum):
    """What a decision may do when a signal cannot be read."""

    HOLD = "Hold"
    SCALE_UP_ONLY = "ScaleUpOnly"


class Forecast(StrEnum):
    """Whether replicas are also started for a demand that is expected."""

    AUTO = "Auto"
    DISABLED = "Disabled"


class Targets(ApiModel):
    """What one replica should carry. Several can be set: the one that asks for most replicas wins."""

    utilization: Annotated[float, Field(ge=0.05, le=1)] = 0.8
    """Share of a replica's capacity to use, in tokens and in requests in flight, stated or learned. Room for
    the usual fluctuations of the load is kept beside it."""
    generated_tokens_per_second: Rate | None = None
    """Generated tokens per second and replica. Unset: not a target."""
    prompt_tokens_per_second: Rate | None = None
    """Computed prompt tokens per second and replica. Unset: not a target."""
    requests_per_second: Annotated[float, Field(ge=0.001, le=100_000)] | None = None
    """Requests per second and replica. Unset: not a target."""
    concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests in flight per replica, running and waiting together. Unset: not a target."""
    time_per_output_token: Annotated[Duration, Between("1ms", "10s")] = Duration("50ms")
    """Objective for the time per output token. The load of a replica at which tokens take so long in the mean
    is its capacity: learned from the fleet's own metrics, and shown in `status.capacity`."""
    time_to_first_token: Annotated[Duration, Between("10ms", "10m")] | None = None
    """Objective for the 95th percentile of the time to the first token: replicas are added while it is
    exceeded, and none is ever removed on its account. Unset: no objective."""


class Windows(ApiModel):
    """How long the traffic has to ask for a change before it is made."""

    up: Annotated[Duration, Between("0s", "1h")] = Duration("0s")
    """How long a higher demand has to last before replicas are added; a burst far above capacity does not
    wait. With 0 nothing waits: head-room for fluctuations is part of the demand already."""
    down: Annotated[Duration, Between("0s", "24h")] = Duration("3m")
    """How far back the highest demand counts when replicas are removed. They go when a tenth of the load
    stays free on the rest."""
    to_zero: Annotated[Duration, Between("1m", "168h")] = Duration("1h")
    """How long there must be no traffic at all before the last replica is removed, where `minReplicas` is
    0."""


class Scaling(ApiModel):
    """How the number of replicas follows the traffic."""

    mode: ScalingMode = ScalingMode.ACTIVE
    """`Active` carries decisions out. `Shadow` makes and records them in status, and changes nothing."""
    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    """Never fewer replicas than this. With 0 the last one goes after `windows.toZero` without traffic; a
    signal, or a request that waits in an inference gateway, brings it back, and so does setting 1."""
    max_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    """Never more replicas than this."""
    schedules: Annotated[
        tuple[Schedule, ...], Field(max_length=MAX_SCHEDULES, json_schema_extra=map_by("name"))
    ] = ()
    """Recurring windows of time with bounds of their own, in place of `minReplicas` and `maxReplicas`. Where
    several are open each keeps its word: the highest minimum and the lowest maximum hold, and where these
    contradict each other, the minimum. Unset: the same bounds at all times."""
    targets: Targets = Targets()
    """What one replica should carry. Several can be set: the one that asks for most replicas wins. Tokens and
    requests in flight always count: where no number is stated, against what Stoker has learned that a
    replica carries (`status.capacity`)."""
    signals: Annotated[
        tuple[CustomSignal, ...], Field(max_length=MAX_SIGNALS, json_schema_extra=map_by("name"))
    ] = ()
    """Numbers of your own from Prometheus that count as demand like `targets` do. The one that asks for most
    replicas wins, and a missing one keeps replicas from being removed. Unset: none."""
    windows: Windows = Windows()
    """How long the traffic has to ask for a change before it is made."""
    forecast: Forecast = Forecast.AUTO
    """`Auto` also starts replicas for the demand that is expected when they could serve, as far as earlier
    forecasts came true, and where replicas start so slowly that it gains something. It never removes any.
    `Disabled` looks at the present alone."""
    on_missing_metrics: OnMissingMetrics = OnMissingMetrics.HOLD
    """When a signal is missing or stale: `Hold` keeps the number of replicas; `ScaleUpOnly` lets the signals
    that are left add replicas. Neither ever removes one."""

    rules: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is greater than maxReplicas: lower minReplicas or raise maxReplicas",
            ".minReplicas",
        ),
        Rule(
            "!has(self.schedules) || self.schedules.all(s,"
            " !has(s.minReplicas) || has(s.maxReplicas) || s.minReplicas <= self.maxReplicas)",
            "minReplicas of a schedule is greater than scaling.maxReplicas: set maxReplicas in that"
            " schedule too, or raise scaling.maxReplicas",
            ".schedules",
        ),
        Rule(
            "!has(self.schedules) || self.schedules.all(s,"
            " has(s.minReplicas) || !has(s.maxReplicas) || self.minReplicas <= s.maxReplicas)",
            "maxReplicas of a schedule is less than scaling.minReplicas: set minReplicas in that"
            " schedule too, or lower scaling.minReplicas",
            ".schedules",
        ),
    )


class Drain(ApiModel):
    """How a replica leaves: out of routing first, then it finishes its requests, then its pod is deleted."""

    timeout: Annotated[Duration, Between("0s", "24h")] = Duration("10m")
    """Longest wait for the requests of a leaving replica; those that still run after it are cut."""


class ModelDeploymentSpec(ApiModel):
    """What to serve, on what, and how many of it."""

    model: ModelSource
    """The model to serve and where its weights come from."""
    engine: EngineSpec = EngineSpec()
    """The program that serves the model."""
    accelerators: Annotated[
        tuple[Accelerator, ...], Field(min_length=1, max_length=8, json_schema_extra=map_by("name"))
    ] = (Accelerator(),)
    """The types of GPU that replicas can run on, in order of preference; this release uses the first."""
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = None
    """A fixed number of replicas, for a hand or another autoscaler to set through `/scale`, which needs a
    number to start from. Not together with `scaling`. Unset, with `scaling` unset too: 1."""
    scaling: Scaling | None = None
    """Lets the number of replicas follow the traffic: within bounds, as many as it takes to keep every
    target. `status.scaling` explains each change. Unset: `replicas` is the number."""
    drain: Drain = Drain()
    """How a replica leaves."""
    storage: Storage = Storage()
    """Disk and memory that a replica mounts."""
    template: Template = Template()
    """Labels, annotations and fields of the pods that Stoker has no field for."""

    rules: ClassVar = (
        Rule(
            "!(has(self.replicas) && has(self.scaling))",
            "replicas and scaling exclude each other: remove replicas and use scaling.minReplicas and"
            " scaling.maxReplicas, or remove scaling to set the number by hand",
            ".replicas",
        ),
    )
