"""Coefficients of known engines: what an iteration costs, how much KV cache there is.

Fitted by weighted non-negative least squares on the measured serving points of ai-dynamo/aiconfigurator
(``systems/silicon_sample.csv``, commit 095f58a5, Apache-2.0) that lie within the KV capacity. KV capacities
are estimates: GPU memory times 0.9, less weights, divided by the bytes of one token (2 · layers · KV heads ·
head size · 2 bytes: 256 KiB for Qwen3-32B, 320 KiB for Llama-3.1-70B). `tests/testbed/test_replica.py`
compares with the measurements.
"""

from dataclasses import dataclass

__all__ = ["MODELS", "ReplicaModel", "model_named"]

_SOURCE = "ai-dynamo/aiconfigurator silicon_sample.csv"


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """One engine's speed and size; times are integers so that sums are exact.

    Attributes:
        name: what configuration calls it.
        source: the measurements behind the coefficients.
        base_ns: c0, cost of an iteration, nanoseconds.
        per_sequence_ns: c1, per sequence in the batch, nanoseconds.
        per_kv_token_ps: c2, per token of KV cache read, picoseconds.
        per_prefill_token_ns: c3, per prompt token computed, nanoseconds.
        kv_capacity_tokens: tokens that the KV cache holds.
        max_sequences: bound on the batch (vLLM ``--max-num-seqs``).
        max_batched_tokens: token budget of an iteration (vLLM ``--max-num-batched-tokens``).

    Raises:
        ValueError: a coefficient is negative, an iteration is free, or the budget cannot hold the batch.
    """

    name: str
    source: str
    base_ns: int
    per_sequence_ns: int
    per_kv_token_ps: int
    per_prefill_token_ns: int
    kv_capacity_tokens: int
    max_sequences: int = 256
    max_batched_tokens: int = 2048

    def __post_init__(self) -> None:
        costs = (self.per_sequence_ns, self.per_kv_token_ps, self.per_prefill_token_ns)
        if self.base_ns < 1 or min(costs) < 0:
            raise ValueError(f"model {self.name}: base_ns must be positive and no coefficient negative")
        if not 1 <= self.max_sequences < self.max_batched_tokens:
            raise ValueError(
                f"model {self.name}: max_batched_tokens ({self.max_batched_tokens}) must exceed "
                f"max_sequences ({self.max_sequences}), or a full batch leaves no room for prompts"
            )

    def iteration_ps(self, sequences: int, kv_tokens: int, prefill_tokens: int) -> int:
        """Duration of an iteration in picoseconds."""
        fixed = self.base_ns + self.per_sequence_ns * sequences + self.per_prefill_token_ns * prefill_tokens
        return 1000 * fixed + self.per_kv_token_ps * kv_tokens


MODELS: dict[str, ReplicaModel] = {
    model.name: model
    for model in (
        ReplicaModel("qwen3-32b-2xh100", _SOURCE, 14_050_000, 62_500, 49_200, 48_950, 290_000),
        ReplicaModel("qwen3-32b-4xh100", _SOURCE, 9_260_000, 60_800, 25_300, 28_810, 840_000),
        ReplicaModel("qwen3-32b-8xh100", _SOURCE, 7_020_000, 65_900, 10_700, 17_960, 1_940_000),
        ReplicaModel("llama-3.1-70b-fp8-4xh100", _SOURCE, 11_020_000, 54_700, 27_900, 44_570, 650_000),
        ReplicaModel("llama-3.1-70b-fp8-1xh200", _SOURCE, 20_310_000, 69_600, 70_400, 119_600, 160_000),
    )
}


def model_named(name: str) -> ReplicaModel:
    """The coefficients of that name.

    Raises:
        ValueError: no such name; the message lists the names there are.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise ValueError(f"replica model {name!r} is not known; known are {', '.join(MODELS)}") from None
