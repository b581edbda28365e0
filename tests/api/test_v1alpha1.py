"""The models: what an object means when little or much of it is written."""

import pytest
from pydantic import ValidationError

from stoker.api import v1alpha1
from stoker.api.status import MAX_HISTORY, MAX_REPLICA_STATES
from stoker.api.v1alpha1 import (
    Accelerator,
    Decision,
    EngineType,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    ModelSource,
    OnMissingMetrics,
    ReplicaState,
    ScalingMode,
)
from stoker.core.engines.engine import TOKEN_KEY
from stoker.core.learning import STATED_PROMPT_WEIGHT


@pytest.fixture
def minimal() -> ModelDeploymentSpec:
    return ModelDeploymentSpec.model_validate(
        {"model": {"uri": "hf://org/name"}, "scaling": {"maxReplicas": 8}}
    )


class TestDefaults:
    def test_one_gpu_of_nvidia(self, minimal):
        assert minimal.accelerators == (Accelerator(name="gpu", resource="nvidia.com/gpu", count=1),)

    def test_vllm_on_its_port(self, minimal):
        assert (minimal.engine.type, minimal.engine.port, minimal.engine.image) == (
            EngineType.VLLM,
            8000,
            None,
        )

    def test_scaling_as_hosted_platforms_do_it(self, minimal):
        scaling = minimal.scaling
        assert (scaling.mode, scaling.min_replicas) == (ScalingMode.ACTIVE, 1)
        assert scaling.on_missing_metrics is OnMissingMetrics.HOLD
        assert scaling.targets.utilization == 0.8
        windows = scaling.windows
        assert (windows.up.seconds, windows.down.seconds, windows.to_zero.seconds) == (0, 180, 3600)

    def test_drain_and_memory(self, minimal):
        assert minimal.drain.timeout.seconds == 600
        assert minimal.storage.shared_memory == "8Gi"

    def test_neither_replicas_nor_scaling_is_filled_in(self):
        spec = ModelDeploymentSpec.model_validate({"model": {"uri": "hf://org/name"}})
        assert (spec.replicas, spec.scaling) == (None, None)

    def test_are_not_shared_between_objects(self):
        one, other = Accelerator(), Accelerator()
        one.node_selector["a"] = "b"
        assert other.node_selector == {}


class TestModelUri:
    @pytest.mark.parametrize(
        ("uri", "scheme", "location"),
        [
            ("hf://meta-llama/Llama-3.1-8B-Instruct", "hf", "meta-llama/Llama-3.1-8B-Instruct"),
            ("hf://org/name@refs/pr/1", "hf", "org/name@refs/pr/1"),
            ("pvc://claim.example/a/b-c/.hidden", "pvc", "claim.example/a/b-c/.hidden"),
            ("oci://ghcr.io/org/model:v1", "oci", "ghcr.io/org/model:v1"),
            ("oci://localhost:5000/a@sha256:" + "0" * 64, "oci", "localhost:5000/a@sha256:" + "0" * 64),
            ("file:///models/llama", "file", "/models/llama"),
            ("file:///models/...dots", "file", "/models/...dots"),
        ],
    )
    def test_is_a_scheme_and_a_location(self, uri, scheme, location):
        model = ModelSource(uri=uri)
        assert (model.scheme, model.location) == (scheme, location)

    @pytest.mark.parametrize(
        "uri",
        [
            *(
                "s3://bucket/key",
                "hf://name",
                "hf://org/name@",
                "hf://org/name/more",
                "HF://org/name",
                "pvc://claim/",
            ),
            *(
                "pvc://claim/../x",
                "pvc://claim/a/..",
                "pvc://claim/./x",
                "file://a",
                "file:///",
                "oci://image",
            ),
            *("oci://r/i:tag:tag", "hf://org/na me", "hf://org/name\n", "https://huggingface.co/org/name"),
        ],
    )
    def test_anything_else_is_refused_with_what_to_write(self, uri):
        with pytest.raises(ValidationError, match="write hf://org/name"):
            ModelSource(uri=uri)


class TestStatus:
    def test_what_is_not_known_is_not_written(self):
        assert ModelDeploymentStatus(replicas=0).model_dump(mode="json", exclude_unset=True) == {
            "replicas": 0
        }

    def test_a_decision_says_from_and_to(self):
        raw = {
            "time": "2026-01-01T00:00:00Z",
            "from": 1,
            "to": 2,
            "limitedBy": "max",
            "reason": "Load",
            "message": "",
        }
        decision = Decision.model_validate(raw)
        assert (decision.from_, decision.to) == (1, 2)
        assert decision.model_dump(mode="json") == raw | {"message": ""}

    def test_lists_are_bounded(self):
        state = ReplicaState(name="a", accelerator="gpu", revision="r", phase="Serving")
        ModelDeploymentStatus(replica_states=(state,) * MAX_REPLICA_STATES)
        with pytest.raises(ValidationError):
            ModelDeploymentStatus(replica_states=(state,) * (MAX_REPLICA_STATES + 1))
        assert MAX_HISTORY == 10


def test_all_names_are_there():
    assert sorted(v1alpha1.__all__) == sorted(set(v1alpha1.__all__))
    assert all(hasattr(v1alpha1, name) for name in v1alpha1.__all__)


class TestTextsTellWhatTheCoreDoes:
    """The API may not import the core, so its texts repeat a few numbers and names."""

    def test_the_weight_of_a_prompt_token(self):
        assert f"plus {STATED_PROMPT_WEIGHT} of each" in described(Accelerator, "tokens_per_second")

    def test_the_key_of_the_token(self):
        assert f"`{TOKEN_KEY}`" in described(ModelSource, "secret_name")


def described(model, field):
    return " ".join(model.model_fields[field].description.split())
