"""The metrics of one simulated engine, with vLLM's names and vLLM's moments of change.

Rules of this module:

- A prompt is counted when its prefill completes, a generated token at the end of the iteration that made it,
  so ``rate(vllm:generation_tokens_total)`` moves while a request runs; time to first token is observed at the
  first token, inter-token latency at every further one, everything else about a request when it finishes.
- Token counters and gauges are read from the replica at the scrape; only histograms are kept here.
- An aborted request counts in ``request_success_total{finished_reason="abort"}`` and in no histogram of
  finished requests.
"""

from collections.abc import Iterable, Mapping

from testbed.exposition import Family, Histogram, Series, Template
from testbed.replica import Replica, ReplicaModel, Request, Steps
from testbed.vllm_families import PROCESS, VLLM

__all__ = ["VLLM_DIALECT", "EngineMetrics"]

_BLOCK = 16  # tokens per KV block, vLLM's default on CUDA
_S_PER_NS = 1e-9
_S_PER_PS = 1e-12

VLLM_DIALECT: tuple[Family, ...] = (*PROCESS, *VLLM)


class EngineMetrics:
    """Observes one replica and renders its exposition.

    Args:
        model: for the figures in ``vllm:cache_config_info``.
        served_name: the label ``model_name``.
        created: when the engine started, seconds since the epoch.
        dialect: the families to export; another engine's names are another table over the same sources.
    """

    def __init__(
        self,
        model: ReplicaModel,
        served_name: str,
        created: float,
        dialect: Iterable[Family] = VLLM_DIALECT,
    ) -> None:
        families = (*dialect, cache_config(model))
        self.aborted = 0
        self._histograms: dict[str, Histogram] = {
            str(series.source): Histogram(family.buckets)
            for family in families
            if family.kind == "histogram"
            for series in family.series
        }
        common = {"engine": "0", "model_name": served_name}
        self._template = Template(families, common, {"created": created})

    def on_steps(self, steps: Steps) -> None:
        """Iterations have completed (a `StepObserver`)."""
        self._observe("iteration_tokens", steps.tokens, steps.iterations)
        inter_token = self._histograms.get("inter_token")
        if steps.decoding and inter_token is not None:
            first, increment = steps.first_ps * _S_PER_PS, steps.increment_ps * _S_PER_PS
            inter_token.observe_series(first, increment, steps.iterations, steps.decoding)

    def on_gap(self, duration_ps: int) -> None:
        """A preempted request got its next token (a `StepObserver`)."""
        self._observe("inter_token", duration_ps * _S_PER_PS)

    def on_first_token(self, request: Request) -> None:
        """A request has its first token."""
        self._observe("first_token", _seconds(request.submitted_ns, request.first_token_ns))

    def on_finished(self, request: Request) -> None:
        """A request has its last token."""
        decode = _seconds(request.first_token_ns, request.finished_ns)
        intervals = request.output_tokens - 1
        for source, value in (
            ("request_prompt", request.prompt_tokens),
            ("request_generation", request.output_tokens),
            ("request_max_tokens", request.output_tokens),
            ("request_n", 1),
            ("request_preemptions", request.preemptions),
            ("time_per_token", decode / intervals if intervals else 0.0),
            ("e2e", _seconds(request.submitted_ns, request.finished_ns)),
            ("queue", _seconds(request.submitted_ns, request.scheduled_ns)),
            ("prefill", _seconds(request.scheduled_ns, request.first_token_ns)),
            ("decode", decode),
            ("inference", _seconds(request.scheduled_ns, request.finished_ns)),
        ):
            self._observe(source, value)

    def on_abort(self) -> None:
        """A client went away before its request finished."""
        self.aborted += 1

    def render(self, replica: Replica) -> str:
        """The exposition as of the replica's present state."""
        return self._template.render(self._values(replica), self._histograms)

    def render_nan(self) -> str:
        """An exposition in which every measured value is NaN: the fault that adds up to nonsense."""
        return self._template.render_nan()

    def _values(self, replica: Replica) -> Mapping[str, float]:
        counters = replica.counters
        return {
            "running": replica.running,
            "waiting": replica.waiting,
            "kv_usage": replica.kv_usage,
            "prompt_tokens": counters.prompt_tokens,
            "generated_tokens": counters.generated_tokens,
            "preemptions": counters.preemptions,
            "finished": counters.finished,
            "aborted": self.aborted,
            "busy_seconds": counters.busy_ps * _S_PER_PS,
        }

    def _observe(self, source: str, value: float, times: int = 1) -> None:
        histogram = self._histograms.get(source)  # a dialect may not have it
        if histogram is not None:
            histogram.observe(value, times)


def _seconds(start_ns: int | None, end_ns: int | None) -> float:
    """Time between two moments of a request, both of which have passed."""
    if start_ns is None or end_ns is None:
        raise ValueError("a request was reported before it happened: the replica's records are incomplete")
    return (end_ns - start_ns) * _S_PER_NS


def cache_config(model: ReplicaModel) -> Family:
    """``vllm:cache_config_info``: the size of the KV cache, told in labels."""
    capacity = model.kv_capacity_tokens
    labels = {
        **_CACHE_CONFIG,
        "kv_cache_size_tokens": str(capacity),
        "num_gpu_blocks": str(capacity // _BLOCK),
        "kv_cache_max_concurrency": str(float(model.max_sequences)),
    }
    text = "Information of the LLMEngine CacheConfig"
    return Family("vllm:cache_config_info", "gauge", text, (Series(1.0, labels),), common=("engine",))


_CACHE_CONFIG: Mapping[str, str] = {
    "_block_size_resolved": "True",
    "block_size": str(_BLOCK),
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "effective_attention_block_size": str(_BLOCK),
    "enable_mamba_shared_prefix_checkpoint": "False",
    "enable_prefix_caching": "False",
    "gpu_memory_utilization": "0.9",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "False",
}
