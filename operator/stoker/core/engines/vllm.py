"""vLLM: `vllm serve`, its probes, its metrics, and the flags that Stoker keeps for itself.

Facts were measured with vLLM 0.32 and read in 0.33: while it loads, connections are refused; `/health` turns
200 when it can serve; token counters move with every step of the engine, not at the end of a request (vLLM
0.33 `vllm/v1/metrics/loggers.py`, `vllm/entrypoints/serve/instrumentator`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from stoker.api.v1alpha1 import Accelerator, FieldError, ModelDeploymentSpec
from stoker.core.engines import arguments
from stoker.core.engines.engine import (
    CACHE_PATH,
    PORT_NAME,
    SHUTDOWN_SECONDS,
    STARTUP_BUDGET_SECONDS,
    Probes,
    container,
)
from stoker.core.engines.source import source
from stoker.core.readings import MetricNames, Series, Signal

IMAGE: Final = "vllm/vllm-openai:v0.33.0"
"""The version that this release of Stoker was written for. `--shutdown-timeout` needs one of 2026 or
later."""

METRICS: Final = MetricNames(
    path="/metrics",
    series={
        Signal.GENERATED_TOKENS: (Series("vllm:generation_tokens_total"),),
        # Without the tokens that the prefix cache saved, where the version tells them apart.
        Signal.PROMPT_TOKENS: (
            Series("vllm:prompt_tokens_by_source_total", {"source": "local_compute"}),
            Series("vllm:prompt_tokens_total"),
        ),
        Signal.REQUESTS: (Series("vllm:request_success_total"),),
        Signal.RUNNING: (Series("vllm:num_requests_running"),),
        Signal.WAITING: (Series("vllm:num_requests_waiting"),),
        # Their names before vLLM 0.11 need not be asked for: such a version does not know --shutdown-timeout.
        Signal.CACHE_USAGE: (Series("vllm:kv_cache_usage_perc"),),
        Signal.INTER_TOKEN_LATENCY: (Series("vllm:inter_token_latency_seconds"),),
    },
    first_token="vllm:time_to_first_token_seconds",  # noqa: S106 - a metric, not a secret
    rate_window_seconds=60.0,
)

MOST_SEQUENCES: Final = 256
"""Default of ``--max-num-seqs``; on the largest GPUs vLLM itself chooses up to 1,024."""

_HEALTH: Final = {"httpGet": {"path": "/health", "port": PORT_NAME}}
_PROBES: Final = Probes(path="/health", timeout_seconds=10, liveness=_HEALTH)

_ALIASES: Final = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
}
_PLAIN_HTTP: Final = (
    "remove it; probes and metrics speak plain HTTP to the pod, so end TLS in front of the Service"
)
RESERVED: Final = {
    "--model": "set spec.model.uri",
    "--served-model-name": "set spec.model.name",
    "--revision": "write it into spec.model.uri, as hf://org/name@revision",
    "--port": "set spec.engine.port",
    "--host": "remove it; the engine has to answer on the pod's own address",
    "--uds": "remove it; the engine has to answer on the pod's own address",
    "--tensor-parallel-size": "set spec.accelerators[].count, which is shared out over all parallel groups",
    "--shutdown-timeout": "set spec.drain.timeout, which bounds how long a replica may finish its requests",
    "--disable-log-stats": "remove it; without its metrics Stoker cannot see the engine's load",
    "--config": "write its arguments out; a file could set what belongs to Stoker",
    "--ssl-keyfile": _PLAIN_HTTP,
    "--ssl-certfile": _PLAIN_HTTP,
}


@dataclass(frozen=True, slots=True)
class VLLM:
    """vLLM for one spec."""

    spec: ModelDeploymentSpec

    @property
    def metrics(self) -> MetricNames:
        """The names; they are the same for every spec."""
        return METRICS

    @property
    def most_sequences(self) -> int:
        """``--max-num-seqs``, by the user or vLLM's default."""
        given = arguments.value(self._user_arguments(self.spec.accelerators[0]), "--max-num-seqs", _ALIASES)
        return int(given) if given and given.isdecimal() and int(given) > 0 else MOST_SEQUENCES

    def container(self, deployment_name: str) -> dict[str, Any]:
        """`vllm serve` with everything that Stoker relies on said outright."""
        return container(
            self.spec,
            self.spec.engine.image or IMAGE,
            env={
                "VLLM_CACHE_ROOT": f"{CACHE_PATH}/vllm",
                "VLLM_CONFIG_ROOT": f"{CACHE_PATH}/vllm-config",
                "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_PATH}/torchinductor",
                "TRITON_CACHE_DIR": f"{CACHE_PATH}/triton",
                # vLLM's own limit, 600 s, would end a long load before the start-up probe does.
                "VLLM_ENGINE_READY_TIMEOUT_S": str(STARTUP_BUDGET_SECONDS),
                "VLLM_NO_USAGE_STATS": "1",
                "DO_NOT_TRACK": "1",
            },
            probes=_PROBES,
            # Older images have another entry point; said here, it no longer matters which.
            command=("vllm", "serve"),
            args=self._arguments(deployment_name),
        )

    def refused(self) -> tuple[FieldError, ...]:
        """Flags that Stoker sets or relies on, and GPU counts that the parallel sizes cannot share out."""
        shares = tuple(
            FieldError(
                path=f"spec.accelerators[{number}].count",
                message=f"{accelerator.count} cannot be shared out over {groups} parallel groups: "
                "correct the count, or change --pipeline-parallel-size and --data-parallel-size",
            )
            for number, accelerator in enumerate(self.spec.accelerators)
            if accelerator.count % (groups := self._groups(accelerator))
        )
        return arguments.refused(self.spec, RESERVED, _ALIASES) + shares

    def _arguments(self, deployment_name: str) -> list[str]:
        model = source(self.spec.model)
        accelerator = self.spec.accelerators[0]
        return [
            model.argument,
            *(("--revision", model.revision) if model.revision else ()),
            *("--served-model-name", self.spec.model.name or deployment_name),
            *("--port", str(self.spec.engine.port)),
            # Said even when it is 1, so that whoever reads the pod sees how the GPUs are used.
            *("--tensor-parallel-size", str(accelerator.count // self._groups(accelerator))),
            *("--shutdown-timeout", str(SHUTDOWN_SECONDS)),
            *self._user_arguments(accelerator),
        ]

    def _user_arguments(self, accelerator: Accelerator) -> tuple[str, ...]:
        """What is said of one accelerator comes last, because argparse lets the last one win."""
        return (*self.spec.engine.args, *accelerator.args)

    def _groups(self, accelerator: Accelerator) -> int:
        """Into how many tensor parallel groups the user's own arguments cut the GPUs of a replica."""
        words = self._user_arguments(accelerator)
        sizes = [
            arguments.value(words, name, _ALIASES)
            for name in ("--pipeline-parallel-size", "--data-parallel-size")
        ]
        groups = 1
        for size in sizes:
            groups *= max(int(size), 1) if size and size.isdecimal() else 1
        return groups
