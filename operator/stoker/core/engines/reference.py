"""The page `docs/reference/engines.md`, written from the tables that the operator acts on."""

# ruff: noqa: E501 - rows of Markdown tables and lines of the page are not broken

from __future__ import annotations

from typing import Final

from stoker.core.engines import engine, vllm
from stoker.core.readings import Signal

_WORDS: Final = {
    Signal.GENERATED_TOKENS: "generated tokens (counter)",
    Signal.PROMPT_TOKENS: "computed prompt tokens (counter)",
    Signal.REQUESTS: "finished requests (counter)",
    Signal.RUNNING: "requests in the batch (gauge)",
    Signal.WAITING: "requests that wait (gauge)",
    Signal.CACHE_USAGE: "share of the KV cache in use (gauge)",
    Signal.INTER_TOKEN_LATENCY: "seconds between a request's tokens (histogram)",
}

_INTRODUCTION: Final = f"""\
# Engines

A replica is one pod with one container, `{engine.CONTAINER}`. This page says what Stoker puts into it. Everything
can be changed in `spec.template.spec`, which is merged last.

## All engines

| What | Value | Why |
|---|---|---|
| Start-up probe | `GET /health` every {engine.STARTUP_PERIOD_SECONDS} s, for {engine.STARTUP_BUDGET_SECONDS // 60} min | the time that a 70B model may take to load |
| Readiness probe | `GET /health` every 5 s, 3 failures | out of routing when it does not answer |
| Liveness probe | every 15 s, 8 failures | two minutes of silence: hung, not busy |
| `preStop` | sleep {engine.PRE_STOP_SECONDS} s | proxies drop the endpoint before the engine hears of its end |
| Grace period | {engine.GRACE_SECONDS} s | {engine.PRE_STOP_SECONDS} s for proxies, {engine.SHUTDOWN_SECONDS} s for running requests, {engine.TEARDOWN_SECONDS} s to end |
| `HOME`, `HF_HOME` | `{engine.CACHE_PATH}`, `{engine.CACHE_PATH}/huggingface` | the cache of `spec.storage.cache` |
| `{engine.TOKEN_KEY}` | key `{engine.TOKEN_KEY}` of the Secret `spec.model.secretName` | access to gated models |
| `/dev/shm` | memory, `spec.storage.sharedMemory` | the processes of one engine talk through it |
| Security | no privilege escalation, no capabilities, default seccomp profile | the restricted profile, but for the user: engine images run as root |

Pods pass the Pod Security level `baseline`. For `restricted`, with an image that runs as another user than root, set
`runAsNonRoot`, `runAsUser` and `fsGroup` in `spec.template.spec.securityContext`: HOME, caches, `/tmp` and `/dev/shm`
are mounts that such a user can write to.

CPU and memory are not requested, because no number suits every model; `spec.template.spec` can name them. The start of
an engine is bound by CPU, and `/dev/shm` counts as memory.

A change to the pod replaces the replicas one after the other. Scaling, drain and `tokensPerSecond` are not part
of the pod.

## Models

| `spec.model.uri` | The engine is told | Mounted, read-only |
|---|---|---|
| `hf://org/name@revision` | `org/name` and the revision | nothing; weights go into the cache |
| `pvc://claim/path` | `/models/claim/path` | the claim |
| `oci://registry/image:tag` | `/models/image` | the image (Kubernetes 1.35, or the ImageVolume feature gate) |
| `file:///path` | `/path` | nothing; the path is in the engine's image |
"""

_CUSTOM: Final = """\
## Custom

Any image that serves an OpenAI-style API on `spec.engine.port` and answers `GET /health` with 200 once it has
loaded. Stoker sets no argument; it passes what it knows in the environment, and `args` can refer to it as
`$(MODEL_PATH)`:

| Variable | Value |
|---|---|
| `STOKER_MODEL_URI` | `spec.model.uri` |
| `MODEL_PATH` | what the engine is told, as above |
| `MODEL_REVISION` | the revision of an `hf://` model, or empty |
| `MODEL_NAME` | `spec.model.name`, or the name of the ModelDeployment |
| `PORT` | `spec.engine.port` |
| `ACCELERATOR_COUNT` | `spec.accelerators[0].count` |

Metric names come from `spec.engine.metrics`; a signal without a name is not used. Rates are taken over five
minutes, because most engines count a request's tokens when it ends. The liveness probe asks for an open port
only: answering `/health` can be slow work for some engines.
"""


def markdown() -> str:
    """The whole page."""
    return f"{_INTRODUCTION}\n{_vllm()}\n{_CUSTOM}"


def _vllm() -> str:
    metrics = vllm.METRICS
    signals = [
        f"| {_WORDS[signal]} | {', else '.join(f'`{series}`' for series in names)} |"
        for signal, names in metrics.series.items()
    ]
    return "\n".join(
        [
            "## vLLM",
            "",
            f"Image: `{vllm.IMAGE}`. Command: `vllm serve`, the model, what Stoker sets, then `spec.engine.args`,",
            "then `spec.accelerators[].args`; of a flag given twice vLLM takes the last.",
            "",
            "`--tensor-parallel-size` is `spec.accelerators[].count`, divided by `--pipeline-parallel-size` and",
            f"`--data-parallel-size` where the arguments set them. `--shutdown-timeout` is {engine.SHUTDOWN_SECONDS} s.",
            "",
            f"Metrics: `{metrics.path}`. Token counters move while requests run; rates are taken over {metrics.rate_window_seconds:.0f} s.",
            "",
            "| Signal | Metric |",
            "|---|---|",
            *signals,
            f"| seconds to the first token (histogram) | `{metrics.first_token}` |",
            "",
            "These flags are refused in `args`, in every spelling:",
            "",
            "| Flag | Instead |",
            "|---|---|",
            *(f"| `{name}` | {hint} |" for name, hint in sorted(vllm.RESERVED.items())),
            "",
        ]
    )
