"""What is reckoned with before a fleet has taught anything."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest

from stoker.core.latency import FULL, capacity
from stoker.core.priors import GENERATED_TOKENS, GPUS, PROMPT_TOKENS, UNKNOWN, Prior, prior_of
from tests.factories import deployment

MEASURED = Path(__file__).parents[1] / "fixtures" / "measured-serving-points.csv"


def prior(uri: str = "hf://org/model-8B", count: int = 1, gpu: str = "", name: str = "gpu", args=()) -> Prior:
    accelerator = {"name": name, "count": count}
    if gpu:
        accelerator["nodeSelector"] = {"nvidia.com/gpu.product": gpu}
    record = deployment(model={"uri": uri}, accelerators=[accelerator], engine={"args": list(args)})
    assert record.spec is not None
    return prior_of(record.spec)


class TestRecognition:
    @pytest.mark.parametrize(
        ("product", "known"),
        [
            ("NVIDIA-H100-80GB-HBM3", "H100"),
            ("NVIDIA-H100-PCIe", "H100 PCIe"),
            ("NVIDIA-H100-NVL", "H100 NVL"),
            ("NVIDIA-H200", "H200"),
            ("NVIDIA-B200", "B200"),
            ("NVIDIA-GB200", "B200"),
            ("NVIDIA-A100-SXM4-80GB", "A100 80 GB"),
            ("NVIDIA-A100-SXM4-40GB", "A100 40 GB"),
            ("NVIDIA-L40S", "L40S"),
            ("NVIDIA-L4", "L4"),
            ("NVIDIA-A10G", "A10G"),
            ("nvidia-h100-80gb", "H100"),
            ("AMD_Instinct_MI300X_OAM", "MI300X"),
        ],
    )
    def test_a_gpu_is_known_by_the_label_of_its_node(self, product, known):
        assert f"× {known}:" in prior(gpu=product).origin

    @pytest.mark.parametrize(
        ("name", "known"), [("h100", "H100"), ("l40s", "L40S"), ("a100-80gb", "A100 80 GB")]
    )
    def test_or_by_the_name_that_the_user_gave_the_accelerator(self, name, known):
        assert f"× {known}:" in prior(name=name).origin

    @pytest.mark.parametrize("name", ["gpu", "fast", "xl4", "h1000", "t40", "pool-a"])
    def test_a_name_that_says_nothing_is_no_gpu(self, name):
        assert prior(name=name) is UNKNOWN

    @pytest.mark.parametrize(
        ("uri", "size"),
        [
            ("hf://meta-llama/Llama-3.1-8B-Instruct", "8B parameters in 16 bits"),
            ("hf://Qwen/Qwen3-32B", "32B parameters in 16 bits"),
            ("hf://Qwen/Qwen2.5-0.5B", "0.5B parameters in 16 bits"),
            ("hf://org/llama-70b-fp8", "70B parameters in 8 bits"),
            ("hf://org/Qwen2.5-72B-Instruct-AWQ", "72B parameters in 4.5 bits"),
            ("hf://mistralai/Mixtral-8x7B-v0.1", "56B parameters in 16 bits"),
            ("pvc://models/llama-3-13b", "13B parameters in 16 bits"),
        ],
    )
    def test_a_model_is_known_by_its_name(self, uri, size):
        assert prior(uri, 8, gpu="NVIDIA-H100-80GB-HBM3").origin.startswith(size)

    def test_quantization_may_be_an_argument(self):
        known = prior("hf://org/model-32B", gpu="NVIDIA-H100-80GB-HBM3", args=["--quantization", "fp8"])

        assert known.origin.startswith("32B parameters in 8 bits")

    @pytest.mark.parametrize("uri", ["hf://openai/gpt-oss", "hf://org/base-v2", "hf://org/bert"])
    def test_a_name_without_a_size_is_no_model(self, uri):
        assert prior(uri, gpu="NVIDIA-H100-80GB-HBM3") is UNKNOWN

    def test_a_model_that_does_not_fit_was_not_recognised_rightly(self):
        assert prior("hf://org/model-70B", 1, gpu="NVIDIA-L4") is UNKNOWN

    def test_a_mixture_of_experts_is_trusted_less(self):
        sparse = prior("hf://Qwen/Qwen3-30B-A3B", gpu="NVIDIA-H100-80GB-HBM3")
        dense = prior("hf://Qwen/Qwen3-30B", gpu="NVIDIA-H100-80GB-HBM3")

        assert sparse.deviation > dense.deviation
        assert sparse.costs.base == dense.costs.base
        assert sparse.costs.per_prompt_token < dense.costs.per_prompt_token


class TestNumbers:
    def test_who_is_not_recognised_gets_forty_requests_in_flight(self):
        found = capacity(UNKNOWN.costs, UNKNOWN.mix, 0.05, 256)

        assert found.in_flight == pytest.approx(40, rel=0.05)
        assert 0.3 < found.weight < 0.4

    def test_a_prior_hits_what_was_measured_of_vllm(self):
        """Qwen3-32B on 2 H100, to which the efficiencies were fitted, and Llama-3.1-70B, to which not."""
        ratios = defaultdict(list)
        for row in csv.DictReader(MEASURED.read_text().splitlines()[1:]):
            if (predicted := _predicted_ms(row)) is not None:
                ratios[row["model"]].append(float(row["tpot_ms"]) / predicted)

        assert len(ratios) == 5
        for model, found in ratios.items():
            assert median(found) == pytest.approx(1, abs=0.15), model

    @pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
    def test_every_gpu_carries_a_small_model(self, gpu):
        names = {"B300": "b300", "B200": "b200", "A100 80 GB": "a100-80gb", "A100 40 GB": "a100"}
        label = names.get(gpu.name, gpu.name.lower().replace(" ", "-"))

        found = prior("hf://org/model-1B", name=label)

        assert f"× {gpu.name}:" in found.origin
        assert min(found.costs) > 0
        assert 0 < found.mix.cache < 0.05

    def test_more_gpus_carry_more(self):
        few, many = (prior("hf://org/model-32B", n, gpu="NVIDIA-H100-80GB-HBM3") for n in (2, 8))

        assert (
            capacity(few.costs, few.mix, 0.05, 256).weighted
            < capacity(many.costs, many.mix, 0.05, 256).weighted
        )


def _predicted_ms(row: dict[str, str]) -> float | None:
    """The time per token of a closed loop with so many requests; None when they do not fit the KV cache."""
    model, _, gpus = row["model"].rpartition("-")
    count, _, gpu = gpus.partition("x")
    known = prior(f"hf://org/{model}", int(count), name=gpu)
    prompt, output, requests = int(row["isl"]), int(row["osl"]), int(row["concurrency"])
    cache = requests * known.mix.cache * (prompt + output / 2) / (PROMPT_TOKENS + GENERATED_TOKENS / 2)
    if cache > FULL:
        return None
    costs = known.costs
    iteration = costs.base + costs.per_sequence * requests + costs.full_cache * cache
    return 1000 * (iteration + costs.per_prompt_token * requests * prompt / output)
