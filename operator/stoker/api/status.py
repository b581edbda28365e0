"""The status of a ModelDeployment: what Stoker knows, as an admin reads it.

Every field can be absent, which means "not known yet", never zero. Lists are bounded, and texts are cut
rather than refused: writing a status must not fail because a fleet is large or a message is long. Times are
RFC 3339 in UTC, in whole seconds, so that what is written equals what is read back and a quiet fleet writes
nothing.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from stoker.api.fields import ApiModel, Message, Timestamp
from stoker.api.scalars import ATOMIC, map_by

MAX_HISTORY: Final = 10
MAX_REPLICA_STATES: Final = 50
MAX_SCHEDULES: Final = 16
MAX_FACES: Final = 32
"""More than there are targets, with the forecast of each, and signals."""

Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=253)]


class ConditionStatus(StrEnum):
    """A condition holds, does not, or cannot be known; the last two are different things."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class CapacitySource(StrEnum):
    """Where a capacity comes from."""

    STATED = "Stated"
    LEARNED = "Learned"
    PRIOR = "Prior"


class Freshness(StrEnum):
    """How far a reading can be trusted: only a fresh one can lower a replica count."""

    FRESH = "Fresh"
    STALE = "Stale"
    MISSING = "Missing"


class ReplicaPhase(StrEnum):
    """Where a replica is in its life."""

    PENDING = "Pending"
    LOADING = "Loading"
    SERVING = "Serving"
    DRAINING = "Draining"
    FAILED = "Failed"
    STOPPING = "Stopping"


class Condition(ApiModel):
    """One aspect of the object's state, as Kubernetes' own `metav1.Condition`."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Which aspect: Accepted, CapacityGranted, Progressing, Available, ScalingActive or Ready."""
    status: ConditionStatus
    """True, False, or Unknown when it cannot be told."""
    observed_generation: Count | None = None
    """`metadata.generation` that the condition was made from."""
    last_transition_time: Timestamp
    """When `status` last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """The cause in one word; each is explained in the reference of conditions."""
    message: Message = ""
    """What is wrong, where, and what to do."""


Cost = Annotated[float, Field(ge=0)]


class LearnedCosts(ApiModel):
    """How long an iteration of the engine takes, from one token of a request to its next, and what for."""

    revision: Text
    """Revision of the replicas that it was learned from."""
    iteration_milliseconds: Cost
    """Of an iteration with nothing in it."""
    sequence_microseconds: Cost
    """For each request in the batch, in addition."""
    full_cache_milliseconds: Cost
    """For a full KV cache, in addition; of one in part use its share."""
    prompt_token_microseconds: Cost
    """For each prompt token that it computes, in addition."""
    prompt_tokens_per_generated_token: Cost
    """The mix of requests that was seen last: computed prompt tokens per generated token."""
    cache_share_per_sequence: Cost
    """Likewise: share of the KV cache that a request in the batch takes."""


class CapacityStatus(ApiModel):
    """What one replica can do on one type of accelerator, at the objective and for the present mix."""

    accelerator: Text
    """Name of the accelerator in the spec."""
    tokens_per_second: Count
    """Capacity of one replica: generated tokens per second, plus `promptTokenWeight` of each computed prompt
    token."""
    concurrent_requests: Cost | None = None
    """Requests in the batch of one replica at its capacity."""
    prompt_token_weight: Cost | None = None
    """Cost of a computed prompt token relative to a generated one."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """0 to 1. It grows with the samples and with how busy the fleet has been, and falls when replicas are not
    as expected; at 0.5 the capacity is right within about 15 %."""
    samples: Count | None = None
    """How many readings of replicas, one per rate window each, it was learned from."""
    source: CapacitySource
    """Where `tokensPerSecond` comes from: `Stated` in the spec, `Learned` from the fleet's own metrics, or
    `Prior`: published measurements of such a model on such a GPU, until enough has been learned."""
    message: Message = ""
    """What a prior is taken from, or why the objective cannot be kept."""
    learned: LearnedCosts | None = None
    """What the fleet's own metrics have taught; a restarted operator goes on from it. Absent: nothing yet."""


class StartupPart(ApiModel):
    """How long one part of the start took."""

    p50_seconds: Annotated[float, Field(ge=0)]
    """Half of the starts took at most this many seconds for it."""
    p90_seconds: Annotated[float, Field(ge=0)]
    """Nine of ten starts took at most this many seconds for it."""


class StartupStatus(ApiModel):
    """How long replicas take from creation to serving on one type of accelerator, as measured.

    Replicas whose container restarted are left out; one that waited for a GPU counts from the moment it had
    a place.
    """

    accelerator: Text
    """Name of the accelerator in the spec."""
    p50_seconds: Annotated[float, Field(ge=0)]
    """Half of the starts took at most this many seconds."""
    p90_seconds: Annotated[float, Field(ge=0)]
    """Nine of ten starts took at most this many seconds: how far ahead the number of replicas is planned."""
    samples: Count
    """How many starts these numbers are made of: the latest 30 at most."""
    scheduling: StartupPart | None = None
    """From creation to a place on a node, of those that did not wait for one. Absent: not known."""
    image_pull: StartupPart | None = None
    """From there until the engine's container ran: images, volumes, init containers. Absent: not known."""
    load: StartupPart | None = None
    """From there to serving: loading weights, compiling, warming up. Absent: not known."""


class DemandStatus(ApiModel):
    """One signal of the traffic, as the last decision saw it."""

    signal: Text
    """Which signal: the name of its target."""
    value: float | None = None
    """Its value over the whole fleet, in `unit`. Absent: it could not be read."""
    unit: Text
    """Unit of `value`."""
    freshness: Freshness
    """Fresh, Stale or Missing; only a fresh value can lower the number of replicas."""
    covered: Count
    """How many serving replicas answered; of a signal of your own, 1 when its query was answered."""
    expected: Count
    """How many serving replicas should have answered; of a signal of your own, 1."""
    proposes: Count | None = None
    """How many replicas this signal alone asks for. Absent: it cannot say."""
    message: Message = ""
    """What is odd about the reading."""


class Decision(ApiModel):
    """A change of the number of replicas, and why."""

    time: Timestamp
    """When it was decided."""
    from_: Annotated[int, Field(ge=0, alias="from")]
    """Replicas before."""
    to: Count
    """Replicas after."""
    limited_by: Text
    """What set the number: a target, a window or a bound."""
    reason: Annotated[str, Field(max_length=64)]
    """The cause in one word."""
    message: Message = ""
    """The numbers behind it."""


class BoundsStatus(ApiModel):
    """The bounds that hold now, and the schedules that they come from."""

    min_replicas: Count
    """Never fewer replicas at present."""
    max_replicas: Count
    """Never more replicas at present."""
    schedules: Annotated[tuple[Text, ...], Field(max_length=MAX_SCHEDULES, json_schema_extra=ATOMIC)] = ()
    """The schedules that are open, by name. Absent: none is."""
    until: Timestamp | None = None
    """When a schedule opens or closes next. Absent: none ever does."""
    message: Message = ""
    """How schedules that contradict each other were settled."""


class Season(StrEnum):
    """What a forecast is made from."""

    TREND = "Trend"
    DAILY = "Daily"
    WEEKLY = "Weekly"


class ForecastOutcome(ApiModel):
    """What was expected, and what came."""

    at: Timestamp
    """The moment that the forecast was for."""
    expected: float
    """What was expected."""
    actual: float
    """What came."""


class ForecastStatus(ApiModel):
    """The demand that is expected for when a replica could serve that is started now. It only ever adds."""

    horizon_seconds: Count
    """How far ahead it looks: the measured time to ready, the up window, and the delay of the metrics."""
    value: float | None = None
    """The demand that is expected, in `unit`. Absent: no growth is expected, or it cannot be told."""
    unit: Text
    """Unit of `value`."""
    at: Timestamp | None = None
    """The moment that it is expected for."""
    part: Season | None = None
    """What it is made from: `Trend` (the last minutes), `Daily` (the same time of the days before) or
    `Weekly`. Absent: no growth is expected."""
    weight: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much of the expected growth counts: nothing while less than a tenth of earlier ones came, all of it
    from half on."""
    skill: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the changes of the last hours that such forecasts explained; 0 is no better than expecting no
    change."""
    last: ForecastOutcome | None = None
    """The last forecast of a growth whose moment has come, and what came."""
    message: Message = ""
    """In words; also why there is no forecast, or no daily shape."""


class ScalingStatus(ApiModel):
    """What the traffic asks for and what was made of it."""

    mode: Text
    """`Active`: decisions are carried out; `Shadow`: they are only shown; `Fixed`: `spec.replicas` counts."""
    bounds: BoundsStatus | None = None
    """The bounds that hold now. Absent: there are no schedules, and those of the spec hold."""
    demand: Annotated[tuple[DemandStatus, ...], Field(max_length=MAX_FACES, json_schema_extra=ATOMIC)] = ()
    """The signals as of `demandObservedAt`, and what each asks for."""
    demand_observed_at: Timestamp | None = None
    """When the inputs were read."""
    forecast: ForecastStatus | None = None
    """What is expected. Absent: `spec.scaling.forecast` is `Disabled`."""
    last_decision: Decision | None = None
    """The last change."""
    history: Annotated[tuple[Decision, ...], Field(max_length=MAX_HISTORY, json_schema_extra=ATOMIC)] = ()
    """The last changes, newest first."""


class ReplicaState(ApiModel):
    """One replica."""

    name: Text
    """Name of its pod."""
    accelerator: Text
    """Name of the accelerator in the spec."""
    revision: Text
    """Revision of the pod template that it was made from."""
    phase: ReplicaPhase
    """Pending, Loading, Serving, Draining, Failed or Stopping."""
    node: Text = ""
    """Node it runs on; empty until it has one."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why it does not serve, in one word; empty when it does."""
    message: Message = ""
    """Why it does not serve and what to do."""
    since: Timestamp | None = None
    """When it entered this phase."""


class ModelDeploymentStatus(ApiModel):
    """What Stoker knows about the fleet of one model."""

    observed_generation: Count | None = None
    """`metadata.generation` of the spec that this status was made from."""
    replicas: Count | None = None
    """Replicas that exist, whatever their phase."""
    ready_replicas: Count | None = None
    """Replicas that serve."""
    desired_replicas: Count | None = None
    """Replicas that the traffic, or `spec.replicas`, asks for."""
    granted_replicas: Count | None = None
    """Replicas that the GPUs allow, of those."""
    ready: Text | None = None
    """Serving and wanted replicas, such as `3/4`."""
    selector: Annotated[str, Field(max_length=512)] | None = None
    """Label selector of the replicas, for `/scale` and for disruption budgets."""
    accelerator: Text | None = None
    """The accelerator in use."""
    tokens_per_second: Count | None = None
    """Tokens that the whole fleet generates now, per second."""
    capacity: Annotated[
        tuple[CapacityStatus, ...],
        Field(max_length=8, json_schema_extra=map_by("accelerator")),
    ] = ()
    """What one replica can do, by accelerator."""
    startup: Annotated[
        tuple[StartupStatus, ...],
        Field(max_length=8, json_schema_extra=map_by("accelerator")),
    ] = ()
    """Measured time from creation to serving, by accelerator."""
    scaling: ScalingStatus | None = None
    """The last scaling decisions and what they were made from."""
    replica_states: Annotated[
        tuple[ReplicaState, ...], Field(max_length=MAX_REPLICA_STATES, json_schema_extra=ATOMIC)
    ] = ()
    """Replicas one by one; those that do not serve come first."""
    replica_states_omitted: Count | None = None
    """How many replicas `replicaStates` had no room for."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=map_by("type"))] = ()
    """Accepted, CapacityGranted, Progressing, Available, ScalingActive, and Ready, which sums them up."""
