"""Engines: command lines, probes, metric names, model sources and refused arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stoker.api.v1alpha1 import ModelDeploymentSpec
from stoker.core import engines
from stoker.core.engines import arguments, engine, vllm
from stoker.core.engines.source import source
from stoker.core.readings import Series, Signal

REAL_METRICS = Path(__file__).parents[1] / "fixtures" / "vllm-metrics-real.txt"

CUSTOM = {
    "type": "Custom",
    "image": "registry.example.com/engine:1",
    "metrics": {
        "running": "busy",
        "generatedTokens": "tokens_total",
        "timeToFirstToken": "first_token_seconds",
    },
}


def spec(uri: str = "hf://org/name", **fields: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.model_validate({"model": {"uri": uri}} | fields)


def container(**fields: Any) -> dict[str, Any]:
    return engines.engine_for(spec(**fields)).container("demo")


def environment(**fields: Any) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in container(**fields)["env"]}


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


class TestVLLM:
    def test_runs_the_pinned_image_with_an_entry_point_said_outright(self) -> None:
        made = container()
        assert (made["image"], made["command"]) == ("vllm/vllm-openai:v0.33.0", ["vllm", "serve"])

    def test_an_image_of_the_user_replaces_the_pinned_one(self) -> None:
        assert (
            container(engine={"image": "registry.example.com/vllm:1"})["image"]
            == "registry.example.com/vllm:1"
        )

    def test_the_model_is_the_first_argument(self) -> None:
        assert container()["args"][0] == "org/name"

    def test_a_revision_is_an_argument_of_its_own(self) -> None:
        args = container(uri="hf://org/name@v1.0")["args"]
        assert (args[0], option(args, "--revision")) == ("org/name", "v1.0")

    def test_no_revision_no_argument(self) -> None:
        assert "--revision" not in container()["args"]

    @pytest.mark.parametrize(("model", "served"), [({}, "demo"), ({"name": "llama"}, "llama")])
    def test_the_served_name_is_that_of_the_object_unless_given(
        self, model: dict[str, str], served: str
    ) -> None:
        args = container(model={"uri": "hf://org/name"} | model)["args"]
        assert option(args, "--served-model-name") == served

    def test_the_port_is_the_same_for_engine_container_and_probes(self) -> None:
        made = container(engine={"port": 9000})
        assert option(made["args"], "--port") == "9000"
        assert made["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
        assert {made[p]["httpGet"]["port"] for p in ("startupProbe", "readinessProbe", "livenessProbe")} == {
            "http"
        }

    @pytest.mark.parametrize(
        ("count", "args", "size"),
        [
            (1, [], "1"),
            (4, [], "4"),
            (8, ["--pipeline-parallel-size", "2"], "4"),
            (8, ["-pp", "2", "--data_parallel_size=2"], "2"),
            (8, ["--pipeline-parallel-size 4"], "2"),
            (8, ["-dp=8"], "1"),
            (4, ["-pp", "4", "-pp", "2"], "2"),
            (4, ["--pipeline-parallel", "2"], "2"),
            (4, ["--pipeline-parallel-size", "many"], "4"),
            (4, ["-pp"], "4"),
        ],
    )
    def test_every_gpu_of_a_replica_is_used(self, count: int, args: list[str], size: str) -> None:
        made = container(accelerators=[{"count": count}], engine={"args": args})
        assert option(made["args"], "--tensor-parallel-size") == size

    def test_the_shutdown_time_is_the_same_whatever_the_drain_time(self) -> None:
        times = {option(container(drain={"timeout": t})["args"], "--shutdown-timeout") for t in ("0s", "1h")}
        assert times == {"600"}

    def test_what_is_said_of_the_accelerator_comes_last_and_wins(self) -> None:
        args = container(
            engine={"args": ["--max-num-seqs", "64"]}, accelerators=[{"args": ["--max-num-seqs", "128"]}]
        )["args"]
        assert args[-4:] == ["--max-num-seqs", "64", "--max-num-seqs", "128"]

    def test_usage_statistics_are_off(self) -> None:
        variables = environment()
        assert (variables["VLLM_NO_USAGE_STATS"], variables["DO_NOT_TRACK"]) == ("1", "1")

    def test_everything_that_is_worth_keeping_is_in_the_cache(self) -> None:
        variables = environment()
        for name in ("HOME", "HF_HOME", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "TRITON_CACHE_DIR"):
            assert variables[name].startswith(engine.CACHE_PATH), name

    def test_the_engine_may_load_as_long_as_the_start_up_probe_waits(self) -> None:
        assert int(environment()["VLLM_ENGINE_READY_TIMEOUT_S"]) == engine.STARTUP_BUDGET_SECONDS


class TestEveryEngine:
    def test_the_token_comes_from_the_secret_and_is_not_optional(self) -> None:
        token = environment(model={"uri": "hf://org/name", "secretName": "hub"})["HF_TOKEN"]
        assert token == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}

    def test_without_a_secret_there_is_no_token(self) -> None:
        assert "HF_TOKEN" not in environment()

    def test_a_variable_of_the_user_replaces_that_of_stoker_and_comes_after_all_of_them(self) -> None:
        variables = container(engine={"env": [{"name": "HF_HOME", "value": "/mine"}, {"name": "A"}]})["env"]
        assert variables[-2:] == [{"name": "HF_HOME", "value": "/mine"}, {"name": "A"}]
        assert [v["name"] for v in variables].count("HF_HOME") == 1

    @pytest.mark.parametrize("fields", [{}, {"engine": CUSTOM}], ids=["vLLM", "Custom"])
    def test_a_70b_model_has_forty_minutes_to_load(self, fields: dict[str, Any]) -> None:
        probe = container(**fields)["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == 40 * 60

    @pytest.mark.parametrize("fields", [{}, {"engine": CUSTOM}], ids=["vLLM", "Custom"])
    def test_only_two_minutes_of_silence_kill_a_busy_engine(self, fields: dict[str, Any]) -> None:
        probe = container(**fields)["livenessProbe"]
        assert probe["timeoutSeconds"] >= 5
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 120

    def test_a_hung_engine_does_not_keep_its_gpu_for_the_whole_grace_period(self) -> None:
        made = container()
        for probe in ("startupProbe", "livenessProbe"):
            assert made[probe]["terminationGracePeriodSeconds"] == engine.TEARDOWN_SECONDS
        assert (
            "terminationGracePeriodSeconds" not in made["readinessProbe"]
        )  # the API server refuses it there

    def test_the_grace_period_holds_the_pause_the_requests_and_the_end(self) -> None:
        pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
        requests = int(option(container()["args"], "--shutdown-timeout"))
        assert pause + requests + 30 == engines.GRACE_SECONDS

    def test_the_last_words_of_the_engine_reach_its_status(self) -> None:
        assert container()["terminationMessagePolicy"] == "FallbackToLogsOnError"


class TestCustom:
    def test_command_and_arguments_are_the_users(self) -> None:
        made = container(
            engine=CUSTOM | {"command": ["/serve"], "args": ["--port", "$(PORT)"]},
            accelerators=[{"args": ["--fast"]}],
        )
        assert (made["command"], made["args"]) == (["/serve"], ["--port", "$(PORT)", "--fast"])

    def test_the_images_own_entry_point_is_left_alone(self) -> None:
        assert {"command", "args"}.isdisjoint(container(engine=CUSTOM))

    def test_what_stoker_knows_is_in_the_environment(self) -> None:
        variables = environment(
            uri="hf://org/name@v2", engine=CUSTOM | {"port": 9000}, accelerators=[{"count": 2}]
        )
        assert {
            "STOKER_MODEL_URI": "hf://org/name@v2",
            "MODEL_PATH": "org/name",
            "MODEL_REVISION": "v2",
            "MODEL_NAME": "demo",
            "PORT": "9000",
            "ACCELERATOR_COUNT": "2",
        }.items() <= variables.items()

    def test_any_flag_is_the_users_to_set(self) -> None:
        assert engines.reserved_arguments(spec(engine=CUSTOM | {"args": ["--port", "1", "--model=x"]})) == ()

    def test_liveness_asks_for_an_open_port_only(self) -> None:
        made = container(engine=CUSTOM)
        assert made["livenessProbe"]["tcpSocket"] == {"port": "http"}
        assert "httpGet" not in made["livenessProbe"]

    def test_a_signal_without_a_name_is_absent(self) -> None:
        metrics = engines.engine_for(spec(engine=CUSTOM)).metrics
        assert metrics.series == {
            Signal.RUNNING: (Series("busy"),),
            Signal.GENERATED_TOKENS: (Series("tokens_total"),),
            Signal.INTER_TOKEN_LATENCY: (Series("tokens_total"),),
        }
        assert metrics.first_token == "first_token_seconds"

    def test_its_counters_are_not_trusted_to_be_live(self) -> None:
        metrics = engines.engine_for(spec(engine=CUSTOM)).metrics
        assert metrics.rate_window_seconds == 300.0

    def test_counters_that_the_user_calls_live_need_no_long_window(self) -> None:
        live = CUSTOM | {"metrics": CUSTOM["metrics"] | {"tokensCounted": "Live"}}
        assert engines.engine_for(spec(engine=live)).metrics.rate_window_seconds == 60.0

    def test_a_histogram_of_its_own_is_preferred_to_little_s_law(self) -> None:
        own = CUSTOM["metrics"] | {"interTokenLatency": "gap_seconds", "cacheUsage": "cache_share"}
        metrics = engines.engine_for(spec(engine=CUSTOM | {"metrics": own})).metrics
        assert metrics.series[Signal.INTER_TOKEN_LATENCY] == (Series("gap_seconds"),)
        assert metrics.series[Signal.CACHE_USAGE] == (Series("cache_share"),)

    @pytest.mark.parametrize("missing", ["image", "metrics"])
    def test_a_stored_object_without_what_it_needs_is_an_error_that_names_the_field(
        self, missing: str
    ) -> None:
        broken = engines.engine_for(spec(engine={k: v for k, v in CUSTOM.items() if k != missing}))
        with pytest.raises(ValueError, match=rf"spec\.engine\.{missing}: "):
            _ = broken.metrics if missing == "metrics" else broken.container("demo")


class TestMetrics:
    def test_every_name_is_one_that_a_real_vllm_exports(self) -> None:
        exported = set(re.findall(r"^(vllm:\w+)", REAL_METRICS.read_text(), re.MULTILINE))
        metrics = engines.engine_for(spec()).metrics
        (latency,) = (s.name for s in metrics.series[Signal.INTER_TOKEN_LATENCY])
        assert {f"{latency}_sum", f"{latency}_count"} <= exported
        exported.add(latency)  # a histogram's base name
        assert {s.name for names in metrics.series.values() for s in names} <= exported
        assert f"{metrics.first_token}_bucket" in exported

    def test_every_label_is_one_that_a_real_vllm_exports(self) -> None:
        page = REAL_METRICS.read_text()
        for series in (s for names in vllm.METRICS.series.values() for s in names if s.labels):
            for label, value in series.labels.items():
                assert re.search(rf'^{series.name}{{[^}}]*{label}="{value}"', page, re.MULTILINE), series

    def test_vllm_answers_every_signal(self) -> None:
        assert set(vllm.METRICS.series) == set(Signal)

    def test_computed_prompt_tokens_are_preferred_over_all_of_them(self) -> None:
        preferred, fallback = vllm.METRICS.series[Signal.PROMPT_TOKENS]
        assert str(preferred) == 'vllm:prompt_tokens_by_source_total{source="local_compute"}'
        assert str(fallback) == "vllm:prompt_tokens_total"

    def test_vllm_counts_while_it_generates(self) -> None:
        assert vllm.METRICS.rate_window_seconds == 60.0

    def test_series_can_be_keys_of_a_query_plan(self) -> None:
        assert len({Series("a", {"x": "1"}), Series("a", {"x": "2"}), Series("a", {"x": "1"})}) == 2


class TestModelSource:
    @pytest.mark.parametrize(
        ("uri", "argument", "volume", "mount"),
        [
            ("hf://org/name", "org/name", None, ""),
            (
                "pvc://weights/llama/8b",
                "/models/weights/llama/8b",
                {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}},
                "/models/weights",
            ),
            (
                "oci://registry.example.com/models/phi:v2",
                "/models/image",
                {"image": {"reference": "registry.example.com/models/phi:v2", "pullPolicy": "IfNotPresent"}},
                "/models/image",
            ),
            ("file:///opt/model", "/opt/model", None, ""),
        ],
    )
    def test_what_the_engine_is_told_and_what_the_pod_mounts(
        self, uri: str, argument: str, volume: dict[str, Any] | None, mount: str
    ) -> None:
        found = source(spec(uri).model)
        assert (found.argument, found.volume, found.mount_path) == (argument, volume, mount)

    def test_no_revision_is_none(self) -> None:
        assert (source(spec().model).revision, source(spec("hf://org/name@main").model).revision) == (
            None,
            "main",
        )

    def test_a_scheme_that_only_another_release_knows_is_an_error_that_says_what_to_write(self) -> None:
        stored = spec().model.model_copy(update={"uri": "s3://bucket/llama"})
        with pytest.raises(ValueError, match=r"spec\.model\.uri.*s3://bucket/llama.*write hf://"):
            source(stored)


class TestReservedArguments:
    @pytest.mark.parametrize(
        ("words", "flag", "field"),
        [
            (["--port", "1"], "--port", "spec.engine.port"),
            (["--port=1"], "--port", "spec.engine.port"),
            (["--port 1"], "--port", "spec.engine.port"),
            (["--por", "1"], "--port", "spec.engine.port"),
            (["-tp", "2"], "--tensor-parallel-size", "spec.accelerators[].count"),
            (["-tp=2"], "--tensor-parallel-size", "spec.accelerators[].count"),
            (["--tensor_parallel_size", "2"], "--tensor-parallel-size", "spec.accelerators[].count"),
            (["--tensor-parallel", "2"], "--tensor-parallel-size", "spec.accelerators[].count"),
            (["--served_model-name=x"], "--served-model-name", "spec.model.name"),
            (["--model", "x"], "--model", "spec.model.uri"),
            (["--revision", "x"], "--revision", "spec.model.uri"),
            (["--shutdown-timeout", "5"], "--shutdown-timeout", "spec.drain.timeout"),
            (["--host", "127.0.0.1"], "--host", "remove it"),
            (["--disable-log-stats"], "--disable-log-stats", "remove it"),
            (["--ssl-certfile", "x"], "--ssl-certfile", "remove it"),
        ],
    )
    def test_every_spelling_is_refused_with_the_field_to_use_instead(
        self, words: list[str], flag: str, field: str
    ) -> None:
        (error,) = engines.reserved_arguments(spec(engine={"args": ["--enforce-eager", *words]}))
        assert error.path == "spec.engine.args[1]"
        assert f"sets {flag}," in error.message
        assert field in error.message

    def test_arguments_of_every_accelerator_are_read(self) -> None:
        accelerators = [{"name": "a"}, {"name": "b", "args": ["--x", "--port=1"]}]
        (error,) = engines.reserved_arguments(spec(accelerators=accelerators))
        assert error.path == "spec.accelerators[1].args[1]"

    @pytest.mark.parametrize(
        "words",
        [
            ["--max-model-len", "16k"],
            ["--port-range", "1"],
            ["--tokenizer-revision", "x"],
            ["--model-impl", "auto"],
            ["-O3"],
            ["--", "-", "--hf-overrides.port", "1"],
            ["port", "1"],
        ],
    )
    def test_other_flags_are_the_users(self, words: list[str]) -> None:
        assert engines.reserved_arguments(spec(engine={"args": words})) == ()

    def test_gpus_that_cannot_be_shared_out_are_refused(self) -> None:
        (error,) = engines.reserved_arguments(
            spec(accelerators=[{"count": 4}], engine={"args": ["-pp", "3"]})
        )
        assert error.path == "spec.accelerators[0].count"
        assert "4 cannot be shared out over 3" in error.message

    def test_each_flag_that_stoker_sets_is_reserved(self) -> None:
        everything = container(uri="hf://org/name@v1", accelerators=[{"count": 2}])["args"]
        assert {word for word in everything if word.startswith("-")} <= set(vllm.RESERVED)

    def test_a_flag_that_is_the_beginning_of_another_is_itself(self) -> None:
        reserved = {"--size-of": "set b", "--size": "set a"}
        (error,) = arguments.refused(spec(engine={"args": ["--size", "1"]}), reserved, {})
        assert error.message.endswith("set a")
        assert arguments.flag("--model=x", {}) == "--model"
        assert arguments.value(["--size", "1", "--size-of", "2"], "--size", {}) == "1"


class TestReference:
    def test_the_page_names_what_the_operator_does(self) -> None:
        page = engines.reference_markdown()
        for flag in vllm.RESERVED:
            assert f"| `{flag}` |" in page
        for names in vllm.METRICS.series.values():
            for series in names:
                assert f"`{series}`" in page
        for name in environment(engine=CUSTOM):
            assert f"`{name}`" in page
        assert vllm.IMAGE in page
        assert f"{engine.GRACE_SECONDS} s" in page

    def test_every_table_row_has_the_cells_of_its_head(self) -> None:
        for table in re.findall(r"(?:^\|.*\|\n)+", engines.reference_markdown(), re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table
