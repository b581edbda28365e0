"""Merging what a user writes in `template` over what Stoker makes, as a Kubernetes user expects of a patch.

* Maps merge, key by key; ``null`` removes a key.
* Lists of named things merge by their key, below; a new name is appended. Other lists replace.
* Things that have one of several kinds (an environment variable's value, a volume's source, a probe's
  question) are replaced as far as two kinds would end up side by side, which the API server would refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_KEYS: Final = {
    "containers": "name",
    "env": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Field of a list to the key that its items are known by (the merge keys of Kubernetes' own API types)."""
_MERGED_WITHIN: Final = frozenset({"containers", "initContainers"})
"""Lists whose items merge; an item of any other list above is replaced whole."""
_HANDLERS: Final = frozenset({"exec", "grpc", "httpGet", "sleep", "tcpSocket"})
"""Kinds of probes and lifecycle hooks, of which one may have a single one."""


def merge(base: Any, over: Any, field: str = "") -> Any:
    """The value that `over` makes of `base`; neither is changed.

    Args:
        base: what Stoker makes.
        over: what the user wrote; its type wins where the two differ.
        field: name of the field that holds the two, which decides how a list merges.
    """
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return _merge_maps(base, over)
    key = _KEYS.get(field)
    if key is not None and _are_maps(base) and _are_maps(over):
        return _merge_named(base, over, key, within=field in _MERGED_WITHIN)
    return over


def _merge_maps(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    outdone = (
        _HANDLERS - over.keys() if any(over.get(kind) is not None for kind in _HANDLERS) else frozenset()
    )
    merged = {k: v for k, v in base.items() if k not in outdone}
    for name, value in over.items():
        merged[name] = merge(merged[name], value, name) if name in merged else value
    return {k: v for k, v in merged.items() if v is not None}


def _merge_named(
    base: Sequence[Mapping[str, Any]], over: Sequence[Mapping[str, Any]], key: str, *, within: bool
) -> list[Any]:
    merged = {item.get(key): item for item in base}
    for item in over:
        known = merged.get(item.get(key))
        merged[item.get(key)] = _merge_maps(known, item) if within and known is not None else item
    return list(merged.values())


def _are_maps(items: Any) -> bool:
    return isinstance(items, list | tuple) and all(isinstance(item, Mapping) for item in items)
