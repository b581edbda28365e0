"""The engines that Stoker can run, one module each: command line, probes, metric names, quirks.

============  =========================================================================
`engine`      what an engine is to Stoker; probes, environment and times that all share
`source`      model URIs: what the engine is told, what the pod mounts
`arguments`   command lines in all their spellings
`vllm`        vLLM
`custom`      any other image that serves an OpenAI-style API
`reference`   the page about all this
============  =========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from stoker.api.v1alpha1 import EngineType, FieldError, ModelDeploymentSpec
from stoker.core.engines import reference
from stoker.core.engines.custom import Custom
from stoker.core.engines.engine import CONTAINER, GRACE_SECONDS, PORT_NAME, Engine
from stoker.core.engines.vllm import VLLM
from stoker.core.readings import MetricNames, Series

__all__ = [
    "CONTAINER",
    "GRACE_SECONDS",
    "PORT_NAME",
    "Engine",
    "MetricNames",
    "Series",
    "engine_for",
    "reference_markdown",
    "reserved_arguments",
]

_ENGINES: Final[Mapping[EngineType, Callable[[ModelDeploymentSpec], Engine]]] = {
    EngineType.VLLM: VLLM,
    EngineType.CUSTOM: Custom,
}


def engine_for(spec: ModelDeploymentSpec) -> Engine:
    """The engine of a spec, as far as that spec uses it."""
    return _ENGINES[spec.engine.type](spec)


def reserved_arguments(spec: ModelDeploymentSpec) -> tuple[FieldError, ...]:
    """What is wrong with the engine arguments of a spec; empty when the engine can be started with them."""
    return engine_for(spec).refused()


def reference_markdown() -> str:
    """The page `docs/reference/engines.md`, from the same tables that the operator acts on."""
    return reference.markdown()
