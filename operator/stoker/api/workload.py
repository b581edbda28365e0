"""The part of the spec that says what one replica is: model, engine, accelerator, storage, template.

What is set here ends up in the pod, so a change to it replaces replicas; how many there are is in
`v1alpha1.py`. Every field has its text beneath it: that text is what `kubectl explain` shows. A field with no
default says what it means to leave it out.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from stoker.api.fields import ApiModel, Rule
from stoker.api.scalars import (
    ATOMIC,
    AcceleratorName,
    Argument,
    CacheSize,
    EnvName,
    EnvValue,
    HttpPath,
    ImageReference,
    MetricName,
    ModelUri,
    NodeLabels,
    ObjectKey,
    ObjectName,
    PodAnnotations,
    PodField,
    PodLabels,
    PodSpecFields,
    Rate,
    ResourceName,
    ServedName,
    SharedMemory,
    TaintKey,
    TaintValue,
    map_by,
)


class EngineType(StrEnum):
    """The inference engines that Stoker can run."""

    VLLM = "vLLM"
    CUSTOM = "Custom"


class TolerationOperator(StrEnum):
    """How a toleration compares the value of a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class ModelSource(ApiModel):
    """The model to serve and where its weights come from."""

    uri: ModelUri
    """Where the weights are: `hf://org/name[@revision]` on the Hugging Face Hub, `pvc://claim/path` in a
    PersistentVolumeClaim of this namespace, `oci://image-reference` mounted as an image volume, or
    `file:///path` inside the engine's image."""
    name: ServedName | None = None
    """The name that clients ask for in the `model` field of a request. Unset: `metadata.name`."""
    secret_name: ObjectName | None = None
    """Secret of this namespace whose key `HF_TOKEN` holds a token of the Hugging Face Hub. Unset: no
    token."""

    @property
    def scheme(self) -> str:
        """`hf`, `pvc`, `oci` or `file`."""
        return self.uri.partition("://")[0]

    @property
    def location(self) -> str:
        """What follows `scheme://`; for `file` an absolute path."""
        return self.uri.partition("://")[2]


class KeySelector(ApiModel):
    """One key of a Secret or ConfigMap of this namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: ObjectKey
    """The key to take."""
    optional: bool = False
    """Whether the pod starts all the same when the object or the key does not exist."""


class FieldSelector(ApiModel):
    """One field of the pod itself."""

    field_path: PodField
    """Path of the field, such as `status.podIP`."""


class EnvVarSource(ApiModel):
    """Where the value of an environment variable comes from; exactly one."""

    secret_key_ref: KeySelector | None = None
    """A key of a Secret. Unset: not from a Secret."""
    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap. Unset: not from a ConfigMap."""
    field_ref: FieldSelector | None = None
    """A field of the pod. Unset: not from the pod."""

    rules: ClassVar = (
        Rule(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].exists_one(x, x)",
            "set exactly one of secretKeyRef, configMapKeyRef and fieldRef",
        ),
    )


class EnvVar(ApiModel):
    """An environment variable of the engine."""

    name: EnvName
    """Name of the variable."""
    value: EnvValue | None = None
    """Its value. Unset: that of `valueFrom`, or empty."""
    value_from: EnvVarSource | None = None
    """Where to take the value from. Unset: `value` is the value."""

    rules: ClassVar = (
        Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both", ".valueFrom"),
    )


class TokensCounted(StrEnum):
    """When an engine's token counters move."""

    AT_END = "AtEnd"
    LIVE = "Live"


class CustomMetrics(ApiModel):
    """The metrics of an engine that Stoker does not know."""

    path: HttpPath = "/metrics"
    """HTTP path, on the engine's port, of its Prometheus metrics."""
    running: MetricName
    """Gauge of the requests that the engine works on now; a draining replica is kept until it is zero."""
    waiting: MetricName | None = None
    """Gauge of the requests that wait inside the engine. Unset: none ever wait."""
    generated_tokens: MetricName | None = None
    """Counter of generated tokens. Unset: no scaling on generated tokens."""
    prompt_tokens: MetricName | None = None
    """Counter of prompt tokens that were computed. Unset: no scaling on prompt tokens."""
    requests: MetricName | None = None
    """Counter of finished requests. Unset: no scaling on requests per second."""
    time_to_first_token: MetricName | None = None
    """Histogram of the seconds to the first token, by its base name, without `_bucket`. Unset: no latency
    guard."""
    inter_token_latency: MetricName | None = None
    """Histogram of the seconds between the tokens of a request, by its base name: it teaches what a replica
    can carry. Unset: the requests in the batch per generated token and second."""
    cache_usage: MetricName | None = None
    """Gauge of the share of the KV cache in use, 0 to 1. Unset: long contexts are not told from short
    ones."""
    tokens_counted: TokensCounted = TokensCounted.AT_END
    """When the token counters move. `AtEnd`, as most engines do it, adds a request's tokens when it ends, so
    rates are taken over five minutes; `Live` adds them while it runs, and one minute will do."""


class EngineSpec(ApiModel):
    """The program that serves the model."""

    type: EngineType = EngineType.VLLM
    """Which engine. `Custom` is any image that serves an OpenAI-style API on `port`, answers `GET /health`
    with 200 once it has loaded, and whose metric names are given in `metrics`."""
    image: ImageReference | None = None
    """Container image. Unset: the version of the engine that this release of Stoker was written for; `Custom`
    has to set it."""
    command: Annotated[tuple[Argument, ...], Field(max_length=64, json_schema_extra=ATOMIC)] = ()
    """Entry point of a `Custom` engine, not run in a shell. Unset: that of the image."""
    args: Annotated[tuple[Argument, ...], Field(max_length=256, json_schema_extra=ATOMIC)] = ()
    """Arguments appended to the engine's command line. One that Stoker sets itself is refused in the
    `Accepted` condition. Unset: none."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=map_by("name"))] = ()
    """Environment variables of the engine, after those that Stoker sets. Unset: none."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """Port on which the engine serves its API, its health and its metrics."""
    metrics: CustomMetrics | None = None
    """Metric names of a `Custom` engine, which has to set it. Unset: Stoker knows those of the engine."""

    rules: ClassVar = (
        Rule(
            "self.type != 'Custom' || has(self.image)",
            "type Custom has no default image: set image",
            ".image",
        ),
        Rule(
            "self.type != 'Custom' || has(self.metrics)",
            "the metrics of type Custom are not known: set metrics, with metrics.running at least",
            ".metrics",
        ),
        Rule(
            "self.type == 'Custom' || !has(self.command)",
            "command is for type Custom alone: remove it, or give further arguments in args",
            ".command",
        ),
        Rule(
            "self.type == 'Custom' || !has(self.metrics)",
            "metrics is for type Custom alone: remove it, those of this engine are known",
            ".metrics",
        ),
    )


class Toleration(ApiModel):
    """A taint that replicas put up with; as in a pod."""

    key: TaintKey | None = None
    """Key of the taint. Unset: every key, with operator Exists."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """How `value` is compared; `Exists` takes every value."""
    value: TaintValue | None = None
    """Value of the taint. Unset: the empty value, or with operator Exists every value."""
    effect: TaintEffect | None = None
    """Effect of the taint. Unset: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    """Seconds that a replica stays on a node with a NoExecute taint. Unset: for good."""

    rules: ClassVar = (
        Rule(
            "self.operator != 'Exists' || !has(self.value)",
            "operator Exists takes no value: remove value",
            ".value",
        ),
        Rule(
            "self.operator == 'Exists' || has(self.key)",
            "set key, or set operator to Exists to tolerate every taint",
            ".key",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds is for NoExecute alone: set effect to NoExecute, or remove tolerationSeconds",
            ".tolerationSeconds",
        ),
    )


class Accelerator(ApiModel):
    """A type of GPU that replicas can run on."""

    name: AcceleratorName = "gpu"
    """Name of the type within this object, shown in status and in pod labels."""
    resource: ResourceName = "nvidia.com/gpu"
    """The extended resource that a pod asks for."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many of them one replica takes; the engine spreads the model over all of them."""
    node_selector: NodeLabels = Field(default_factory=dict)
    """Labels that a node must have, such as `nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3`. Unset: any
    node."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Taints that replicas put up with. Unset: those that the cluster adds by itself."""
    args: Annotated[tuple[Argument, ...], Field(max_length=256, json_schema_extra=ATOMIC)] = ()
    """Engine arguments for this type alone, after `engine.args`. Unset: none."""
    tokens_per_second: Rate | None = None
    """Capacity of one replica in tokens per second: the generated ones, plus 0.3 of each computed prompt
    token. `scaling.targets.utilization` is a share of it. Unset: it is learned from the fleet's own metrics,
    and shown in `status.capacity`."""


class Cache(ApiModel):
    """Where downloaded weights are kept."""

    claim_name: ObjectName | None = None
    """PersistentVolumeClaim of this namespace that all replicas share, so it has to allow many writers.
    Unset: an empty directory per replica, filled anew each time."""
    size_limit: CacheSize | None = None
    """Bound of the empty directory. Unset: the disk of the node."""

    rules: ClassVar = (
        Rule(
            "!(has(self.claimName) && has(self.sizeLimit))",
            "sizeLimit is for the empty directory, a claim has its own size: remove sizeLimit or claimName",
            ".sizeLimit",
        ),
    )


class Storage(ApiModel):
    """Disk and memory that a replica mounts."""

    cache: Cache = Cache()
    """Where downloaded weights are kept."""
    shared_memory: SharedMemory = "8Gi"
    """Size of `/dev/shm`, through which the processes of one engine talk. What is used of it counts as the
    pod's memory."""


class TemplateMetadata(ApiModel):
    """Metadata for the pods."""

    labels: PodLabels = Field(default_factory=dict)
    """Labels added to each pod. Unset: Stoker's own alone."""
    annotations: PodAnnotations = Field(default_factory=dict)
    """Annotations added to each pod. Unset: Stoker's own alone."""


class Template(ApiModel):
    """What Stoker has no field for."""

    metadata: TemplateMetadata = TemplateMetadata()
    """Labels and annotations for the pods."""
    spec: PodSpecFields = Field(default_factory=dict)
    """Fields of a pod's spec, merged last over what Stoker makes. Lists of named things (containers, volumes,
    …) are merged by name, and the engine's container is called `engine`. A null removes what Stoker set;
    plain `kubectl apply` drops nulls, `kubectl apply --server-side` keeps them. Unset: nothing is merged."""
