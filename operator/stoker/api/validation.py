"""From what the API server sent to a spec that can be acted on, or to the list of what is wrong with it.

The API server has refused most bad objects before they get here. What is left: objects that were stored under
an older schema, and what a schema cannot say about `template.spec`, which takes any field of a pod. The
operator turns these errors into `Accepted=False/InvalidSpec`, and leaves the replicas of such an object as
they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from stoker.api.v1alpha1 import FieldError, ModelDeploymentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REFUSED: Final = {
    "nodeName": "would bypass the scheduler: remove it, or set accelerators[].nodeSelector",
    "hostNetwork": "would share the host's network: remove it",
    "hostPID": "would share the host's processes: remove it",
    "hostIPC": "would share the host's memory: remove it",
}
_NAMED_LISTS: Final = ("containers", "initContainers", "volumes", "imagePullSecrets")


def parse(raw: Mapping[str, Any]) -> tuple[ModelDeploymentSpec | None, tuple[FieldError, ...]]:
    """Return the spec in `raw`, the value of `spec` as the API server sent it, and all that is wrong with it.

    The spec is None when `raw` has not the shape of one; it can be there and have errors all the same.
    """
    try:
        spec = ModelDeploymentSpec.model_validate(raw)
    except ValidationError as error:
        return None, tuple(_field_errors(error))
    return spec, validate(spec)


def validate(spec: ModelDeploymentSpec) -> tuple[FieldError, ...]:
    """Return what is wrong with `template.spec`, and which targets no metric of a Custom engine measures."""
    return (*_refused(spec.template.spec), *_unmergeable(spec.template.spec), *_unmeasured(spec))


def _refused(pod_spec: Mapping[str, Any]) -> Iterator[FieldError]:
    for field, why in _REFUSED.items():
        if pod_spec.get(field):
            yield FieldError(f"spec.template.spec.{field}", why)


def _unmergeable(pod_spec: Mapping[str, Any]) -> Iterator[FieldError]:
    """Yield the lists that are merged by name and have no names to merge by."""
    for field in _NAMED_LISTS:
        path = f"spec.template.spec.{field}"
        entries = pod_spec.get(field, [])
        if not isinstance(entries, list):
            yield FieldError(path, "is not a list: write a list of objects, each with a name")
            continue
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                yield FieldError(f"{path}[{place}]", "has no name to be merged by: give it one")


def _unmeasured(spec: ModelDeploymentSpec) -> Iterator[FieldError]:
    """Yield the targets that would hold the fleet for ever, because its engine's metrics do not name them."""
    names, scaling = spec.engine.metrics, spec.scaling
    if names is None or scaling is None:
        return
    targets = scaling.targets
    capacity = next((a.tokens_per_second for a in spec.accelerators[:1]), None)
    for path, wanted, field, name in (
        ("accelerators[0].tokensPerSecond", capacity, "generatedTokens", names.generated_tokens),
        (
            "generatedTokensPerSecond",
            targets.generated_tokens_per_second,
            "generatedTokens",
            names.generated_tokens,
        ),
        ("promptTokensPerSecond", targets.prompt_tokens_per_second, "promptTokens", names.prompt_tokens),
        ("requestsPerSecond", targets.requests_per_second, "requests", names.requests),
        ("timeToFirstToken", targets.time_to_first_token, "timeToFirstToken", names.time_to_first_token),
    ):
        if wanted is not None and not name:
            where = path if "[" in path else f"scaling.targets.{path}"
            yield FieldError(
                f"spec.{where}", f"needs engine.metrics.{field}: name that metric, or remove this"
            )


def _field_errors(error: ValidationError) -> Iterator[FieldError]:
    for detail in error.errors(include_url=False):
        yield FieldError(_path(detail["loc"]), detail["msg"].removeprefix("Value error, "))


def _path(location: tuple[int | str, ...]) -> str:
    """Return a location within the spec as kubectl writes it: `spec.engine.env[0].name`."""
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
