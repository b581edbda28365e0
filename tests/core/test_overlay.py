"""Merging a user's template over what Stoker makes."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.core.overlay import merge


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        pytest.param({"a": 1}, {}, {"a": 1}, id="nothing said, nothing changed"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}, id="maps merge"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null removes"),
        pytest.param(
            {"tolerations": [1]}, {"tolerations": [2]}, {"tolerations": [2]}, id="other lists replace"
        ),
        pytest.param({"a": {"b": 1}}, {"a": "x"}, {"a": "x"}, id="another type replaces"),
        pytest.param(
            {"containers": [{"name": "engine", "image": "i", "stdin": True}]},
            {"containers": [{"name": "engine", "stdin": False}, {"name": "sidecar"}]},
            {"containers": [{"name": "engine", "image": "i", "stdin": False}, {"name": "sidecar"}]},
            id="containers merge by name, new ones come last",
        ),
        pytest.param(
            {"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "x"}]},
            {"volumes": [{"name": "tmp", "hostPath": {"path": "/t"}}]},
            {"volumes": [{"name": "tmp", "hostPath": {"path": "/t"}}, {"name": "x"}]},
            id="a volume is replaced whole: it may have one source",
        ),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
            id="a variable is replaced whole: it may have one value",
        ),
        pytest.param(
            {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
            {"volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "a", "mountPath": "/a"}]},
            {"volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "a", "mountPath": "/a"}]},
            id="mounts are known by their path",
        ),
        pytest.param(
            {"livenessProbe": {"httpGet": {"path": "/"}, "periodSeconds": 5}},
            {"livenessProbe": {"exec": {"command": ["true"]}}},
            {"livenessProbe": {"periodSeconds": 5, "exec": {"command": ["true"]}}},
            id="a probe asks in one way",
        ),
        pytest.param(
            {"livenessProbe": {"httpGet": {"path": "/", "port": 1}}},
            {"livenessProbe": {"httpGet": {"path": "/live"}}},
            {"livenessProbe": {"httpGet": {"path": "/live", "port": 1}}},
            id="the same way of asking merges",
        ),
        pytest.param(
            {"containers": [{"name": "engine"}]}, {"containers": "x"}, {"containers": "x"}, id="no list"
        ),
        pytest.param(
            {"containers": [{"name": "engine"}]}, {"containers": ["x"]}, {"containers": ["x"]}, id="no maps"
        ),
    ],
)
def test_merge(base: Any, over: Any, merged: Any) -> None:
    assert merge(base, over) == merged


def test_neither_side_is_changed() -> None:
    base = {"containers": [{"name": "engine", "env": [{"name": "A"}]}]}
    over = {"containers": [{"name": "engine", "env": [{"name": "B"}]}]}
    merge(base, over)
    assert base == {"containers": [{"name": "engine", "env": [{"name": "A"}]}]}
    assert over == {"containers": [{"name": "engine", "env": [{"name": "B"}]}]}
