"""Tune, freeze, score; and what is written of it."""

import json

import pytest

from bench.replay import command, picture, report, results
from bench.replay.candidates import CANDIDATES, Choice
from bench.replay.experiments import TUNING_SEED, Case, Job, Result
from bench.replay.method import OBJECTIVE, carried_out, standard
from bench.replay.simulation import Queueing, Routing

NAMES = (
    "static at peak",
    "clairvoyant heuristic",
    "keda running+waiting",
    "keda waiting",
    "stoker utilization",
)
CASES = [Case("steady", seed=seed) for seed in range(3)]


class Course:
    """A made-up truth: the fuller the replicas, the cheaper and the worse; and each seed has its luck."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Job]]] = []

    def __call__(self, heading: str, jobs: list[Job]) -> list[Result]:
        self.asked.append((heading, list(jobs)))
        return [Result(job, score(job)) for job in jobs]


def score(job: Job) -> dict[str, object]:
    dear = 1.25 if job.policy.startswith("stoker") else 1.0
    full = min(job.parameter, 2.0)
    hours = dear * (5 / max(full, 0.2)) * (1 + 0.02 * (job.case.seed % 10)) * (0.9 if job.variant else 1.0)
    missed = 0.2 * full**4
    return {
        "requests": 1000,
        "attainment": 1 - missed,
        "attainment_by_length": 1 - missed / 2,
        "replica_hours": hours,
        "ttft": [0.1, 1.25, 2.0],
        "tpot": [0.01, 0.02, 0.03],
        "queue_minutes": 3,
        "reversals_per_day": 24.0,
        "decisions": 7,
        "peak": 9,
        "capped_minutes": 0.0,
        "cut": {"30": 2, "60": 1, "300": 0, "600": 0},
    }


@pytest.fixture
def course():
    return Course()


def test_settings_are_chosen_on_the_traffic_for_tuning_and_frozen(course):
    outcome = carried_out(CASES, NAMES, 2, course)
    (first, tuning), (second, scoring) = course.asked
    assert (first, second) == ("tuning", "scoring")
    assert {job.case.seed for job in tuning} == {TUNING_SEED}
    assert {job.case.seed for job in scoring} == {0, 1, 2}
    keda = next(one for one in outcome if one.candidate.name == "keda running+waiting")
    assert len(keda.tried) == 10
    assert keda.tuned == Choice(0.35, "down window 2 min")  # 0.5 misses 99.5 %
    assert OBJECTIVE == 0.995
    tried = {job.choice for job in scoring if job.policy == "keda running+waiting"}
    assert tried == set(keda.curve) < set(keda.tried)
    assert all(set(seeds) == {0, 1, 2} for seeds in keda.curve.values())


def test_a_default_is_scored_although_nobody_would_choose_it(course):
    [waiting] = carried_out(CASES, ["keda waiting"], 2, course)
    assert Choice(5.0) in waiting.runs
    assert Choice(5.0) not in waiting.curve


def test_variations_are_met_with_the_settings_of_the_standard_experiment():
    odd = Case("steady", 600, 4, Routing.ROUND_ROBIN, Queueing.GATEWAY, model="llama-3.1-70b-fp8-4xh100")
    assert standard(odd) == Case("steady", 600, TUNING_SEED)


def document(course, *, names=NAMES, cases=CASES):
    return results.document(
        cases, carried_out(cases, names, 2, course), "python -m bench.replay --workload steady"
    )


@pytest.fixture
def made(course, monkeypatch):
    class Prepared:
        class workload:  # noqa: N801
            description = "made up"

        class setting:  # noqa: N801
            maximum = 12

    monkeypatch.setattr(results, "prepare", lambda _: Prepared)
    monkeypatch.setattr(
        results, "capacity_for", lambda _: type("C", (), {"as_json": lambda _: {"weighted": 1.0}})()
    )
    return document(course)


def test_a_document_says_how_it_came_about_and_compares_at_equal_attainment(made):
    assert made["tuning"] == {"workload": "steady", "seed": TUNING_SEED, "budget": 10}
    assert made["seeds"] == [0, 1, 2]
    assert made["provenance"]["command"] == "python -m bench.replay --workload steady"
    assert set(made["provenance"]["code"]) == {"stoker", "rivals"}
    pair = {
        row["attainment"]: row["ratio"]
        for row in made["cost_ratios"]
        if (row["policy"], row["against"]) == ("stoker utilization", "clairvoyant heuristic")
    }
    assert pair
    assert all(1.0 <= value <= 1.25 for value in pair.values())
    assert json.loads(json.dumps(made)) == made


def test_no_folder_of_this_machine_is_in_a_command(monkeypatch):
    monkeypatch.setattr(
        command.sys, "argv", ["x", "--traces", "/home/me/traces", "--seeds", "5", "--output", "/x"]
    )
    assert command.command() == "python -m bench.replay --traces '…' --seeds 5 --output '…'"


def test_file_names_tell_variations_apart():
    assert results.name_of(Case("burst")) == "replay-burst-240s"
    other = "qwen3-32b-4xh100"
    odd = Case("burst", 60, 0, Routing.ROUND_ROBIN, Queueing.GATEWAY, model=other, calibrated_on=other)
    assert results.name_of(odd) == f"replay-burst-60s-round-robin-gateway-queue-{other}"
    mistaken = results.name_of(Case("burst", model=other))
    assert mistaken == f"replay-burst-240s-{other}-calibrated-on-qwen3-32b-2xh100"
    assert results.gpus_of("qwen3-32b-4xh100") == 4
    with pytest.raises(ValueError, match="GPUs"):
        results.gpus_of("small")


@pytest.fixture
def folder(made, tmp_path):
    results.write(tmp_path / "replay-steady-240s.json", made)
    return tmp_path


def block(kind: str, name: str, text: str = "old") -> str:
    return f"<!-- replay: {kind} {name} -->\n{text}\n<!-- end -->"


def test_tables_are_written_between_their_markers_and_again_to_the_same(folder):
    kinds = ("costs", "settings", "ratios", "losses", "clairvoyant", "source")
    page = "before\n" + "\n".join(block(kind, "replay-steady-240s") for kind in kinds) + "\nafter"
    written = report.rewritten(page, folder)
    assert written.startswith("before\n<!-- replay: costs replay-steady-240s -->\n| GPU-hours at | 95.0% |")
    assert written.endswith("<!-- end -->\nafter")
    assert "old" not in written.replace("threshold", "")
    assert "| **stoker utilization** |" in written
    assert "| *static at peak* |" in written
    assert "default: 5" in written
    assert "Not run on it: hpa generated tokens; " in written
    assert "| **stoker utilization** | keda running+waiting |" in written  # 22 % dearer than that variant
    assert report.rewritten(written, folder) == written


def test_what_was_not_run_is_said_and_an_unknown_table_is_an_error(folder):
    assert "*Not run: replay-burst-600s.*" in report.rewritten(block("source", "replay-burst-600s"), folder)
    assert "| [replay-steady-240s](" in report.rewritten(block("runs", "all"), folder)
    row = {"policy": "keda waiting", "runs": 4}
    results.write(folder / "replay-faults.json", {"rows": [row], "provenance": {"commit": "abc"}})
    assert "replay-faults.json) | 4 | 1 | abc |" in report.rewritten(block("runs", "all"), folder)
    with pytest.raises(ValueError, match="no table of kind 'magic'"):
        report.rewritten(block("magic", "replay-steady-240s"), folder)


def test_faults_show_moves_and_replicas(tmp_path):
    row = {
        "policy": "keda waiting",
        "fault": "half-300s",
        "runs": 5,
        "wrong_way_moves": 2,
        "replicas_lost": 3,
    }
    results.write(
        tmp_path / "replay-faults.json", {"rows": [row, row | {"policy": "stoker", "wrong_way_moves": 0}]}
    )
    written = report.rewritten(block("faults", "replay-faults"), tmp_path)
    assert "| keda waiting | 2 (−3) |" in written
    assert "| **stoker** | 0 |" in written


def test_the_page_shows_what_the_results_say():
    page = report.PAGE.read_text()
    assert report.rewritten(page) == page, "run `python -m bench.replay --report`"


def test_a_picture_names_everybody_and_is_the_same_again(made, tmp_path):
    picture.draw(made, tmp_path / "one.svg")
    picture.draw(made, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert all(
        name in text for name in ("clairvoyant heuristic", "keda running+waiting", "stoker utilization")
    )


def test_checked_in_results_name_policies_that_there_are():
    known = {one.name for one in CANDIDATES}
    files = [results.read(file) for file in results.RESULTS.glob("replay-*.json")]
    assert {name for found in files for name in found.get("policies", ())} <= known
