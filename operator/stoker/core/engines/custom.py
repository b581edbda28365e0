"""Custom: any image that serves an OpenAI-style API and `/health` on one port, run as the user says.

Stoker sets no argument. What it knows it passes in the environment, which `args` can refer to as
`$(MODEL_PATH)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from stoker.api.v1alpha1 import CustomMetrics, FieldError, ModelDeploymentSpec, TokensCounted
from stoker.core.engines.engine import PORT_NAME, Probes, container
from stoker.core.engines.source import source
from stoker.core.readings import MetricNames, Series, Signal

# An engine that nobody described may generate a token to answer /health and take up to 20 s for it, as SGLang
# does. Such a probe must not kill a busy engine, so liveness asks for no more than an open port.
_PROBES: Final = Probes(path="/health", timeout_seconds=20, liveness={"tcpSocket": {"port": PORT_NAME}})

_RATE_WINDOW_SECONDS: Final = {TokensCounted.AT_END: 300.0, TokensCounted.LIVE: 60.0}
"""Most engines count a request's tokens when it ends: a window must be longer than most requests."""


@dataclass(frozen=True, slots=True)
class Custom:
    """The user's own engine for one spec."""

    spec: ModelDeploymentSpec

    @property
    def metrics(self) -> MetricNames:
        """The names that the spec gives; what it does not name is not asked for.

        Raises:
            ValueError: when the spec gives none; the API refuses that first.
        """
        given = self.spec.engine.metrics
        if given is None:
            raise ValueError(
                "spec.engine.metrics: a Custom engine needs its metric names; set metrics.running at least"
            )
        return MetricNames(
            path=given.path,
            series={signal: (Series(name),) for signal, name in _names(given).items() if name},
            first_token=given.time_to_first_token,
            rate_window_seconds=_RATE_WINDOW_SECONDS[given.tokens_counted],
        )

    @property
    def most_sequences(self) -> None:
        """Nobody has said."""
        return None

    def container(self, deployment_name: str) -> dict[str, Any]:
        """The user's image and command, with the model and the port in the environment.

        Raises:
            ValueError: when the spec names no image; the API refuses that first.
        """
        engine, model = self.spec.engine, source(self.spec.model)
        if engine.image is None:
            raise ValueError("spec.engine.image: a Custom engine needs an image; set it")
        return container(
            self.spec,
            engine.image,
            env={
                "STOKER_MODEL_URI": self.spec.model.uri,
                "MODEL_PATH": model.argument,
                "MODEL_REVISION": model.revision or "",
                "MODEL_NAME": self.spec.model.name or deployment_name,
                "PORT": str(engine.port),
                "ACCELERATOR_COUNT": str(self.spec.accelerators[0].count),
            },
            probes=_PROBES,
            command=engine.command,
            args=(*engine.args, *self.spec.accelerators[0].args),
        )

    def refused(self) -> tuple[FieldError, ...]:
        """Nothing: Stoker sets no argument of an engine that it does not know."""
        return ()


def _names(given: CustomMetrics) -> dict[Signal, str | None]:
    return {
        Signal.GENERATED_TOKENS: given.generated_tokens,
        Signal.PROMPT_TOKENS: given.prompt_tokens,
        Signal.REQUESTS: given.requests,
        Signal.RUNNING: given.running,
        Signal.WAITING: given.waiting,
        Signal.CACHE_USAGE: given.cache_usage,
        Signal.INTER_TOKEN_LATENCY: given.inter_token_latency or given.generated_tokens,
    }
