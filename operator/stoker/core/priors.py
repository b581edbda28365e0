"""What an engine costs before its fleet has taught anything: data sheets, and published measurements.

A dense model's iteration reads its weights once, reads the KV cache, and computes its prompt tokens. Memory
bandwidth and arithmetic of the GPU give the ideal times; the efficiencies below turn them into what vLLM
reaches. They were fitted to Qwen3-32B on 2, 4 and 8 H100, and predict the other configurations of a dense
model of 70B in the same measurements (ai-dynamo/aiconfigurator, systems/silicon_sample.csv: Llama-3.1-70B on
H100, H200 and B200, FP8 and FP4) within 15 % in the median of each, single points up to 30 % off. A model of
8B is two to four times as fast as predicted: its iterations have less overhead.

Rules of this module:

* Careful where it does not know: an unknown GPU or model gets about 40 requests in flight, and a mixture of
  experts is taken to read all of them.
* Every prior says in words where it comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core.latency import Costs, Mix

PROMPT_TOKENS = 1155.0
GENERATED_TOKENS = 211.0
"""A request before any was seen: the means of the Azure LLM inference trace of 2023, conversation."""


class Gpu(NamedTuple):
    """One GPU by its vendor's data sheet."""

    pattern: str
    """Of the names that node labels give it."""
    name: str
    memory: float
    """GB."""
    bandwidth: float
    """TB/s."""
    compute: float
    """Dense 16-bit TFLOP/s."""
    eight_bit: bool = True
    """Whether it computes with 8 bits faster than with 16."""


GPUS = (
    Gpu(r"g?b300", "B300", 288, 8.0, 2250),
    Gpu(r"g?b200", "B200", 180, 8.0, 2250),
    Gpu(r"h200", "H200", 141, 4.8, 989),
    Gpu(r"h20\b", "H20", 96, 4.0, 148),
    Gpu(r"h100.*nvl", "H100 NVL", 94, 3.9, 835),
    Gpu(r"h100.*pcie", "H100 PCIe", 80, 2.0, 756),
    Gpu(r"h100|h800", "H100", 80, 3.35, 989),
    Gpu(r"a100.*80|a800", "A100 80 GB", 80, 1.94, 312, eight_bit=False),
    Gpu(r"a100", "A100 40 GB", 40, 1.55, 312, eight_bit=False),
    Gpu(r"l40s", "L40S", 48, 0.864, 362),
    Gpu(r"l40\b", "L40", 48, 0.864, 181),
    Gpu(r"l4\b", "L4", 24, 0.3, 121),
    Gpu(r"a10g", "A10G", 24, 0.6, 70, eight_bit=False),
    Gpu(r"a10\b", "A10", 24, 0.6, 125, eight_bit=False),
    Gpu(r"t4\b", "T4", 16, 0.32, 65, eight_bit=False),
    Gpu(r"mi325x?", "MI325X", 256, 6.0, 1307),
    Gpu(r"mi300x?", "MI300X", 192, 5.3, 1307),
)
"""Data sheets of NVIDIA (SXM where nothing else is said) and AMD; the first pattern that fits counts."""


class Model(NamedTuple):
    """A model as far as its name tells."""

    billions: float
    """Parameters."""
    active: float
    """Parameters that a token is computed with, billions."""
    bits: float


@dataclass(frozen=True, slots=True)
class Prior:
    """What to reckon with until the fleet has taught something."""

    costs: Costs
    mix: Mix
    deviation: float
    """Relative standard deviation of a cost, half of it shared by all."""
    origin: str
    """In words."""


UNKNOWN = Prior(
    Costs(base=0.020, per_sequence=70e-6, full_cache=0.0187, per_prompt_token=90e-6),
    Mix(PROMPT_TOKENS / GENERATED_TOKENS, 0.01),
    deviation=0.8,
    origin="GPU or model size not recognised: a careful guess of 40 requests in flight",
)
"""At 50 ms per token and the mix above 40 requests in flight: with them, scaling on requests in flight came
within 0.1 points of a clairvoyant policy's attainment, on a day of production traffic with a 32B model on two
H100; and a prompt token costs a third of a generated one, as it does there."""

_OVERHEAD = 4.7e-3
"""Seconds per iteration beside the reading of the weights."""
_READING = 1.05
"""Time to read the weights, in times of the ideal."""
_CACHE_READING = 1.17
"""Time to read the KV cache, in times of the ideal."""
_PER_SEQUENCE = 60e-6
"""Seconds: between 55 and 70 µs in all fits."""
_PROMPT_OVERHEAD = 8e-6
"""Seconds per prompt token beside its arithmetic."""
_COMPUTING = 1.24
"""Time to compute a prompt token, in times of the ideal."""
_EIGHT_BIT_GAIN = 1.6
"""How much faster 8 bits are computed; the data sheets' 2 is not reached."""
_USABLE = 0.9
"""Share of the memory that vLLM takes (``--gpu-memory-utilization``)."""
_CACHE_BYTES = 46 * 1024
"""Bytes of KV cache per token over the root of the parameters in billions: models with grouped queries have
128 KiB at 8B, 256 KiB at 32B and 320 KiB at 70B."""
_LEAST_CACHE = 0.05
"""Share of the memory that has to be left for the KV cache; else the GPU was not recognised rightly."""

_DENSE_DEVIATION = 0.3
_SPARSE_DEVIATION = 0.6
"""Of mixtures of experts: measured times are 0.6 to 5 times the dense model's prediction."""


def prior_of(spec: ModelDeploymentSpec) -> Prior:
    """The prior for the first accelerator of a spec; ``UNKNOWN`` when GPU or model are not recognised."""
    accelerator = spec.accelerators[0]
    gpu = _gpu((*accelerator.node_selector.values(), accelerator.name))
    model = _model(spec)
    if gpu is None or model is None:
        return UNKNOWN
    return _prior(gpu, accelerator.count, model) or UNKNOWN


def _prior(gpu: Gpu, count: int, model: Model) -> Prior | None:
    """By the roofline of so many GPUs; None when the model does not fit them."""
    weights = model.billions * model.bits / 8  # GB
    cache = _USABLE * gpu.memory * count - weights
    if cache < _LEAST_CACHE * gpu.memory * count:
        return None
    bandwidth = gpu.bandwidth * count * 1000  # GB/s
    gain = _EIGHT_BIT_GAIN if model.bits <= 8 and gpu.eight_bit else 1.0
    arithmetic = 2 * model.active * 1e9 / (gpu.compute * count * 1e12 * gain)
    costs = Costs(
        base=_OVERHEAD + _READING * weights / bandwidth,
        per_sequence=_PER_SEQUENCE,
        full_cache=_CACHE_READING * cache / bandwidth,
        per_prompt_token=_PROMPT_OVERHEAD + _COMPUTING * arithmetic,
    )
    context = PROMPT_TOKENS + GENERATED_TOKENS / 2
    share = context * _CACHE_BYTES * model.billions**0.5 / (cache * 1e9)
    dense = model.active == model.billions
    origin = (
        f"{model.billions:g}B parameters in {model.bits:g} bits on {count} × {gpu.name}: data sheet, and "
        "measurements of such models in ai-dynamo/aiconfigurator"
    )
    return Prior(
        costs,
        Mix(PROMPT_TOKENS / GENERATED_TOKENS, share),
        _DENSE_DEVIATION if dense else _SPARSE_DEVIATION,
        origin,
    )


def _gpu(names: tuple[str, ...]) -> Gpu | None:
    text = " ".join(names).lower()
    return next((gpu for gpu in GPUS if re.search(rf"(?<![a-z0-9])(?:{gpu.pattern})(?![0-9])", text)), None)


_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])")
_ACTIVE = re.compile(r"(?<![a-z0-9])a(\d+(?:\.\d+)?)b(?![a-z0-9])")
_FOUR_BITS = re.compile(r"awq|gptq|int4|w4a16|nvfp4|mxfp4|fp4|4bit|bnb")
_EIGHT_BITS = re.compile(r"fp8|int8|w8a8|w8a16|8bit")


def _model(spec: ModelDeploymentSpec) -> Model | None:
    """Size and precision, from where people write them: the model's name, and the engine's arguments."""
    arguments = (*spec.engine.args, *spec.accelerators[0].args)
    names = f"{spec.model.location} {spec.model.name or ''}".lower()
    size = _SIZE.search(names)
    if size is None:
        return None
    billions = float(size[2]) * int(size[1] or 1)
    active = _ACTIVE.search(names)
    quantized = f"{names} {' '.join(arguments)}".lower()
    bits = 4.5 if _FOUR_BITS.search(quantized) else 8.0 if _EIGHT_BITS.search(quantized) else 16.0
    return Model(billions, float(active[1]) if active is not None else billions, bits)
