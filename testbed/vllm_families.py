"""What vLLM 0.33 exports, in its order: names, labels, types, buckets and HELP lines as scraped.

Sources: vLLM 0.33 ``vllm/v1/metrics/loggers.py`` and a scrape of a real server under load, which
`tests/testbed/test_metrics.py` compares with this table. A number in place of a source is a constant.
"""

from itertools import chain

from testbed.exposition import CREATED, Family, Series, counter, gauge, histogram

__all__ = ["LATENCY_BUCKETS", "PROCESS", "TOKEN_BUCKETS", "VLLM"]

ZERO = 0.0
TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
ITERATION_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
COUNT_BUCKETS = (1, 2, 5, 10, 20)
PREEMPTION_BUCKETS = (1, 2, 3, 4, 5, 10, 20)
# fmt: off
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
    640, 2560,
)
TOKEN_TIME_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)
LATENCY_BUCKETS = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)
# fmt: on

_PER_GPU = "per GPU (for Model Flops Utilization calculations)."

PYTHON = {"implementation": "CPython", "major": "3", "minor": "12", "patchlevel": "13", "version": "3.12.13"}

# The Python process around the engine: shaped like the real thing, constant here.
PROCESS: tuple[Family, ...] = tuple(
    family.carrying()
    for family in chain(
        counter(
            "python_gc_objects_collected",
            "Objects collected during gc",
            {"0": 15000.0, "1": 2400.0, "2": 600.0},
            "generation",
            created=False,
        ),
        counter(
            "python_gc_objects_uncollectable",
            "Uncollectable objects found during GC",
            {"0": ZERO, "1": ZERO, "2": ZERO},
            "generation",
            created=False,
        ),
        counter(
            "python_gc_collections",
            "Number of times this generation was collected",
            {"0": 1600.0, "1": 140.0, "2": 10.0},
            "generation",
            created=False,
        ),
        (Family("python_info", "gauge", "Python platform information", (Series(1.0, PYTHON),)),),
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", 2.2e9),
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", 6.5e8),
        gauge(
            "process_start_time_seconds", "Start time of the process since unix epoch in seconds.", CREATED
        ),
        counter(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds.",
            "busy_seconds",
            created=False,
        ),
        gauge("process_open_fds", "Number of open file descriptors.", 82.0),
        gauge("process_max_fds", "Maximum number of open file descriptors.", 20000.0),
    )
)

VLLM: tuple[Family, ...] = tuple(
    chain(
        counter(
            "vllm:estimated_flops_per_gpu", f"Estimated number of floating point operations {_PER_GPU}", ZERO
        ),
        counter(
            "vllm:estimated_read_bytes_per_gpu",
            f"Estimated number of bytes read from memory {_PER_GPU}",
            ZERO,
        ),
        counter(
            "vllm:estimated_write_bytes_per_gpu",
            f"Estimated number of bytes written to memory {_PER_GPU}",
            ZERO,
        ),
        gauge("vllm:num_requests_running", "Number of requests in model execution batches.", "running"),
        gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", "waiting"),
        gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling "
            "capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked "
            "status). Sum of all reasons equals vllm:num_requests_waiting.",
            {"capacity": "waiting", "deferred": ZERO},
            "reason",
        ),
        gauge(
            "vllm:engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; "
            "weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
            {"awake": 1.0, "weights_offloaded": ZERO, "discard_all": ZERO},
            "sleep_state",
        ),
        gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", "kv_usage"),
        counter(
            "vllm:prefix_cache_queries",
            "Prefix cache queries, in terms of number of queried tokens.",
            "prompt_tokens",
        ),
        counter("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", ZERO),
        counter(
            "vllm:external_prefix_cache_queries",
            "External prefix cache queries from KV connector cross-instance cache sharing, "
            "in terms of number of queried tokens.",
            ZERO,
        ),
        counter(
            "vllm:external_prefix_cache_hits",
            "External prefix cache hits from KV connector cross-instance cache sharing, "
            "in terms of number of cached tokens.",
            ZERO,
        ),
        counter(
            "vllm:mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items.", ZERO
        ),
        counter("vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.", ZERO),
        counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.", "preemptions"),
        counter("vllm:prompt_tokens", "Number of prefill tokens processed.", "prompt_tokens"),
        counter(
            "vllm:prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            {"local_compute": "prompt_tokens", "local_cache_hit": ZERO, "external_kv_transfer": ZERO},
            "source",
        ),
        counter("vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external).", ZERO),
        counter(
            "vllm:prompt_tokens_cached_by_source",
            "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host "
            "(offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified."
            " Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
            dict.fromkeys(("device", "host", "p2p", "disk", "external_unspecified"), ZERO),
            "source",
        ),
        counter("vllm:generation_tokens", "Number of generation tokens processed.", "generated_tokens"),
        counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            {"stop": ZERO, "length": "finished", "abort": "aborted", "error": ZERO, "repetition": ZERO},
            "finished_reason",
        ),
        (
            family.carrying("model_name")
            for family in counter(
                "vllm:admission_rejections",
                "Number of admission attempts rejected by a queue limit, by reason.",
                {"max_num_queued_reqs": ZERO, "max_num_queued_tokens": ZERO},
                "reason",
            )
        ),
        histogram(
            "vllm:request_prompt_tokens",
            "Number of prefill tokens processed.",
            "request_prompt",
            TOKEN_BUCKETS,
        ),
        histogram(
            "vllm:request_generation_tokens",
            "Number of generation tokens processed.",
            "request_generation",
            TOKEN_BUCKETS,
        ),
        histogram(
            "vllm:iteration_tokens_total",
            "Histogram of number of tokens per engine_step.",
            "iteration_tokens",
            ITERATION_BUCKETS,
        ),
        histogram(
            "vllm:request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            "request_generation",
            TOKEN_BUCKETS,
        ),
        histogram(
            "vllm:request_params_n", "Histogram of the n request parameter.", "request_n", COUNT_BUCKETS
        ),
        histogram(
            "vllm:request_params_max_tokens",
            "Histogram of the max_tokens request parameter.",
            "request_max_tokens",
            TOKEN_BUCKETS,
        ),
        histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            "first_token",
            FIRST_TOKEN_BUCKETS,
        ),
        histogram(
            "vllm:inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            "inter_token",
            TOKEN_TIME_BUCKETS,
        ),
        histogram(
            "vllm:request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            "time_per_token",
            TOKEN_TIME_BUCKETS,
        ),
        histogram(
            "vllm:e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            "e2e",
            LATENCY_BUCKETS,
        ),
        histogram(
            "vllm:request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            "queue",
            LATENCY_BUCKETS,
        ),
        histogram(
            "vllm:request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            "inference",
            LATENCY_BUCKETS,
        ),
        histogram(
            "vllm:request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            "prefill",
            LATENCY_BUCKETS,
        ),
        histogram(
            "vllm:request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            "decode",
            LATENCY_BUCKETS,
        ),
        histogram(
            "vllm:request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            "request_preemptions",
            PREEMPTION_BUCKETS,
        ),
        histogram(
            "vllm:request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            "request_prompt",
            TOKEN_BUCKETS,
        ),
    )
)
