"""The demo's pure parts: what must have happened, the arithmetic of the summary, and what is shown."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from testbed.demo import MANIFEST, story, view
from testbed.demo.picture import draw, moves
from testbed.demo.story import Decision, Moment, Record
from testbed.traffic_report import Outcome, Result

QUIET = Moment(
    at=0.0,
    offered=1000.0,
    wanted=2,
    granted=2,
    serving=2,
    phases={"Serving": 2},
    in_flight=10,
    queued=0,
    served=0,
    cut=0,
    refused=0,
    tokens_per_second=500.0,
)
SERVED = Result(
    arrival=1.0, prompt_tokens=10, output_tokens=5, tokens=5, outcome=Outcome.SERVED, ttft=0.2, tpot=0.02
)


def told() -> Record:
    """A run in which everything happened that should."""
    return Record(
        moments=[QUIET, replace(QUIET, at=60.0, wanted=6, serving=6), replace(QUIET, at=120.0)],
        decisions=[
            Decision(0.0, 0, 2, "minReplicas", "starts with 2"),
            Decision(20.0, 2, 4, "utilization", "more"),
            Decision(40.0, 4, 6, "utilization", "more"),
            Decision(100.0, 6, 2, "windows.down", "less"),
        ],
        results=[SERVED, replace(SERVED, arrival=70.0, ttft=0.4)],
        pod_seconds=400.0,
        seconds=120.0,
        ready=True,
    )


def failed(record: Record) -> list[str]:
    return [check.text for check in story.checks(record) if not check.ok]


def test_a_run_with_rise_and_fall_and_nothing_lost_is_the_story() -> None:
    assert failed(told()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ready": False}, "became Ready"),
        ({"decisions": told().decisions[:2] + told().decisions[3:]}, "added in 1 steps"),
        ({"decisions": told().decisions[:3]}, "taken away in 0 steps"),
        ({"moments": told().moments[:2]}, "ended as small as it began (6 of 2)"),
        ({"results": [replace(SERVED, outcome=Outcome.CUT)]}, "1 requests were cut"),
        ({"results": [replace(SERVED, outcome=Outcome.REFUSED)]}, "1 requests were refused"),
        ({"decisions": [*told().decisions, Decision(110.0, 2, 2, "", "")]}, "has a reason"),
    ],
)
def test_what_did_not_happen_is_named(change: dict, says: str) -> None:
    (text,) = failed(replace(told(), **change))
    assert says in text


def test_a_fleet_that_is_gone_at_the_end_did_not_end_as_it_began() -> None:
    record = told()
    record.moments.append(replace(QUIET, at=130.0, serving=0))
    assert failed(record) == ["the fleet ended as small as it began (0 of 2)"]


def test_gpu_seconds_are_those_of_pods_against_a_fleet_fixed_at_the_peak() -> None:
    assert story.gpu_seconds(told()) == (400.0 * 2, 6 * 120.0 * 2)


def test_the_summary_gives_counts_percentiles_and_the_saving() -> None:
    rows = dict(story.summary(told()))
    assert rows["Requests served"] == "2"
    assert rows["Requests cut / refused"] == "0 / 0"
    assert rows["Time to first token"] == "p50 0.2 s  p95 0.4 s  p99 0.4 s"
    assert rows["Time per output token"] == "p50 20 ms  p95 20 ms  p99 20 ms"
    assert rows["GPU-seconds"] == "800, 44% less than 6 replicas all the time (1,440)"


def test_the_summary_of_nothing_invents_no_numbers() -> None:
    rows = dict(story.summary(Record()))
    assert rows["Time to first token"] == "–"
    assert rows["GPU-seconds"].startswith("0, –")


def test_a_machine_that_lags_is_said_to_spoil_the_latencies() -> None:
    rows = dict(story.summary(replace(told(), lag=1.5)))
    assert "too slow" in rows["This machine's worst lag"]


def printed(record: Record, **options: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=160, **options)
    assert view.show_summary(console, record) is (failed(record) == [])
    console.print(view.live(record, 300.0))
    return stream.getvalue()


def test_without_a_terminal_there_are_no_escapes() -> None:
    assert "\x1b" not in printed(told())


def test_no_color_is_obeyed_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(told(), force_terminal=True)
    assert "\x1b[32m" not in text
    assert "\x1b[31m" not in text


def test_the_summary_shows_each_decision_and_marks_what_failed() -> None:
    text = printed(replace(told(), ready=False))
    assert "6 → 2" in text
    assert "✗ the fleet became Ready" in text
    assert "✓ 0 requests were cut" in text


def test_the_live_view_waits_for_a_first_look() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(view.live(Record(), 300.0))
    assert "waiting for the first replicas" in stream.getvalue()


def test_a_plain_line_has_the_counts_and_the_last_reason() -> None:
    text = view.line(QUIET, told().decisions[1])
    assert "wanted  2  serving  2" in text
    assert "last: 2 → 4 by utilization: more" in text
    assert "last" not in view.line(QUIET, None)


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([0.0, 7.0], "▁█"), ([1.0, 2.0, 4.0], "▃▅█")],
)
def test_sparklines_reach_from_zero_to_the_maximum(values: list[float], bars: str) -> None:
    assert view.sparkline(values) == bars


def test_a_sparkline_shows_the_last_values() -> None:
    assert view.sparkline([9.0, 0.0, 1.0], width=2) == "▁█"


def test_rates_are_smoothed_over_the_last_moments() -> None:
    assert view.smoothed([10.0, 0.0, 0.0, 0.0, 0.0, 0.0]) == [10.0, 5.0, 10 / 3, 2.5, 2.0, 0.0]


def test_decisions_in_one_direction_that_follow_closely_get_one_label() -> None:
    steps = [
        Decision(0.0, 0, 2, "minReplicas", ""),
        Decision(20.0, 2, 4, "utilization", ""),
        Decision(30.0, 4, 6, "utilization", ""),
        Decision(35.0, 6, 5, "windows.down", ""),
        Decision(90.0, 5, 4, "windows.down", ""),
    ]
    assert [(m.before, m.after) for m in moves(steps)] == [(2, 6), (6, 5), (5, 4)]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(told(), 2880.0, tmp_path / "new" / "demo.png")
    assert (tmp_path / "new" / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_manifest_agrees_with_the_story() -> None:
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    assert spec["accelerators"][0]["count"] == story.GPUS_PER_REPLICA
    assert [stage.start for stage in story.STAGES] == sorted(stage.start for stage in story.STAGES)
