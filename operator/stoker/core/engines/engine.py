"""What Stoker has to know of an inference engine, and the parts that all engines share.

Rules of this module:

* An engine is a pure description of a spec: the container to run, and the names under which it publishes
  load.
* A pod that exists stays as it is: nothing here depends on scaling, drain or replica count, because a change
  to any part of the container replaces every replica.
* Each number that a kubelet acts on is a constant with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from stoker.api.v1alpha1 import EnvVar, FieldError, ModelDeploymentSpec
from stoker.core.readings import MetricNames

CONTAINER: Final = "engine"
"""Name of the engine's container: what `template.spec.containers` merges into."""
PORT_NAME: Final = "http"
CACHE_PATH: Final = "/cache"
"""Where the cache is mounted. It is also HOME, so that tools with caches of their own need no further
variable."""
TOKEN_KEY: Final = "HF_TOKEN"  # noqa: S105 - the name of a key, not a secret
"""Key of the Secret `model.secretName`, and the environment variable that receives it."""

PRE_STOP_SECONDS: Final = 10
"""Pause between deletion and SIGTERM, in which proxies learn that the endpoint is gone. vLLM answers 500 to
requests that arrive after SIGTERM while its /health stays 200, so nothing else keeps them away."""
SHUTDOWN_SECONDS: Final = 600
"""How long an engine may go on with running requests after SIGTERM. A constant: derived from `drain.timeout`
it would replace every replica whenever someone changes how patient the next drain is. An idle engine leaves
at once."""
TEARDOWN_SECONDS: Final = 30
"""From the last token to the end of the process; 2 to 10 s were measured with vLLM 0.32 on CPU."""
GRACE_SECONDS: Final = PRE_STOP_SECONDS + SHUTDOWN_SECONDS + TEARDOWN_SECONDS

STARTUP_PERIOD_SECONDS: Final = 5
STARTUP_BUDGET_SECONDS: Final = 40 * 60
"""Time to load: 140 GB of 70B weights at 100 MB/s take 24 minutes; compilation and graphs come on top."""


class Engine(Protocol):
    """One engine, as far as one spec uses it."""

    @property
    def metrics(self) -> MetricNames:
        """Names of the engine's metrics."""

    @property
    def most_sequences(self) -> int | None:
        """Most requests in its batch; None when that is not known."""

    def container(self, deployment_name: str) -> dict[str, Any]:
        """The engine's container, without what is the pod's business (resources, mounts, security)."""

    def refused(self) -> tuple[FieldError, ...]:
        """Arguments in the spec that this engine cannot be given, each with what to write instead."""


@dataclass(frozen=True, slots=True)
class Probes:
    """How a kubelet asks the engine how it is."""

    path: str
    timeout_seconds: int
    """A busy engine answers late; late is not dead."""
    liveness: Mapping[str, Any] = field(hash=False)
    """The handler of the liveness probe."""

    def manifest(self) -> dict[str, Any]:
        """The three probes of a container.

        A failed start-up or liveness probe kills the container with a grace of its own: the pod's would let a
        hung engine hold its GPU for another ten minutes. Loading costs nothing: the kubelet starts the other
        two probes once the start-up probe has passed, and it asks for readiness in that instant.
        """
        ask = {"httpGet": {"path": self.path, "port": PORT_NAME}}
        return {
            "startupProbe": ask
            | {
                "periodSeconds": STARTUP_PERIOD_SECONDS,
                "timeoutSeconds": self.timeout_seconds,
                "failureThreshold": STARTUP_BUDGET_SECONDS // STARTUP_PERIOD_SECONDS,
                "terminationGracePeriodSeconds": TEARDOWN_SECONDS,
            },
            "readinessProbe": ask
            | {"periodSeconds": 5, "timeoutSeconds": self.timeout_seconds, "failureThreshold": 3},
            "livenessProbe": dict(self.liveness)
            | {
                "periodSeconds": 15,
                "timeoutSeconds": self.timeout_seconds,
                "failureThreshold": 8,
                "terminationGracePeriodSeconds": TEARDOWN_SECONDS,
            },
        }


def container(
    spec: ModelDeploymentSpec,
    image: str,
    *,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    probes: Probes,
) -> dict[str, Any]:
    """A container as every engine has it.

    Args:
        spec: for port, token and the user's environment.
        image: the image to run.
        command: its entry point; empty: that of the image.
        args: its arguments; empty: those of the image.
        env: variables of this engine beside those of all engines; the user's come last and win.
        probes: how to ask it.
    """
    return {
        "name": CONTAINER,
        "image": image,
        **({"command": list(command)} if command else {}),
        **({"args": list(args)} if args else {}),
        "ports": [{"name": PORT_NAME, "containerPort": spec.engine.port, "protocol": "TCP"}],
        "env": _environment(spec, env),
        **probes.manifest(),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        # An engine writes why it died to its log: this way the last lines of it reach the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(spec: ModelDeploymentSpec, env: Mapping[str, str]) -> list[dict[str, Any]]:
    own = {"HOME": CACHE_PATH, "HF_HOME": f"{CACHE_PATH}/huggingface", **env}
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in own.items()]
    if spec.model.secret_name:
        # Not optional: a pod that says `secret "x" not found` is better than one that is refused by the Hub.
        key = {"name": spec.model.secret_name, "key": TOKEN_KEY}
        variables.append({"name": TOKEN_KEY, "valueFrom": {"secretKeyRef": key}})
    given = {variable.name for variable in spec.engine.env}
    return [v for v in variables if v["name"] not in given] + [_variable(v) for v in spec.engine.env]


def _variable(variable: EnvVar) -> dict[str, Any]:
    return variable.model_dump(mode="json", by_alias=True, exclude_none=True)
