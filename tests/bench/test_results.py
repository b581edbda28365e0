import json

import pytest

from bench.controller import results
from bench.controller.results import entry, save, spread, summary, verdicts


def run(**changes):
    figures = {
        "restart": {"cpu_seconds": 20.0, "peak_mib": 300.0, "by": {"apply": 1}},
        "quiet": {"api_writes": 0},
        "tick": {"tick_seconds": 0.5},
    }
    for name, value in changes.items():
        phase, _, figure = name.partition("__")
        figures[phase][figure] = value
    return figures


def test_a_goal_is_judged_by_the_worst_repetition():
    (verdict,) = (v for v in verdicts(100, [run(), run(quiet__api_writes=3)]) if v.goal.phase == "quiet")
    assert (verdict.measured, verdict.met, verdict.share) == (3, False, None)


@pytest.mark.parametrize(
    ("models", "figures"),
    [
        (100, {"quiet"}),
        (1_000, {"quiet", "tick"}),
        (10_000, {"quiet", "restart"}),
    ],
)
def test_a_goal_is_judged_at_its_size(models, figures):
    assert {v.goal.phase for v in verdicts(models, [run()])} == figures


def test_met_up_to_the_limit():
    met, missed = (verdicts(1_000, [run(tick__tick_seconds=s)])[-1] for s in (1.0, 1.01))
    assert met.met
    assert not missed.met
    assert missed.share == pytest.approx(1.01)


def test_spread():
    assert spread([3.0, 1.0, 2.5]) == {"min": 1.0, "median": 2.5, "max": 3.0, "n": 3}


def test_the_summary_has_the_numbers_that_every_repetition_has():
    found = summary([run(), run(restart__cpu_seconds=22.0, restart__extra=1)])
    assert found["restart"]["cpu_seconds"] == {"min": 20.0, "median": 21.0, "max": 22.0, "n": 2}
    assert "by" not in found["restart"]
    assert "extra" not in found["restart"]


def test_an_entry_says_where_when_and_how():
    made = entry(1_000, 4_000, [run()])
    measured = made["measured"]
    assert {"date", "commit", "command", "machine", "versions"} <= measured.keys()
    assert measured["machine"]["cores"] >= 1
    assert measured["command"].startswith("python -m bench.controller")
    assert [goal["met"] for goal in made["goals"]] == [True, True]


def test_the_command_is_told_without_the_place_of_the_results(monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench", "--sizes", "100", "--output", "/somewhere/x.json", "--seed"])
    assert results.provenance()["command"] == "python -m bench.controller --sizes 100 --seed"


def test_a_size_replaces_itself_alone(tmp_path):
    file = tmp_path / "new" / "results.json"
    for models, value in ((1_000, 1.0), (100, 2.0), (1_000, 3.0)):
        save({"model_deployments": models, "value": value}, file)
    sizes = json.loads(file.read_text())["sizes"]
    assert list(sizes) == ["100", "1000"]
    assert [size["value"] for size in sizes.values()] == [2.0, 3.0]


def test_the_results_that_are_checked_in_can_be_read():
    sizes = json.loads(results.FILE.read_text())["sizes"]
    for models, size in sizes.items():
        assert size["model_deployments"] == int(models)
        assert size["runs"]
        assert size["measured"]["commit"]
