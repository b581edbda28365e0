"""Sums, refusals and JSON."""

import json
import math
from dataclasses import replace

import pytest

from stoker.backtest.errors import BacktestError
from stoker.backtest.export import as_json
from stoker.backtest.recorded import Recorded
from stoker.backtest.replay import Change, Moment, Outcome, Tally
from stoker.backtest.report import Terms, check_ends, check_tallies, report
from stoker.clients.answers import Span
from tests.backtest.lab import START, life
from tests.factories import deployment

STEP = 30.0


def terms(count, price=None, **spec):
    spec = {"scaling": {"maxReplicas": 9}, "accelerators": [{"count": 2}], **spec}
    span = Span(START, START + STEP * (count - 1), STEP)
    return Terms(deployment(**spec), span, 240.0, "--start-up", price)


def moments(*rows):
    """(wanted, serving, recorded, needed) at each step."""
    return [
        Moment(
            START + STEP * n, wanted, serving, recorded, needed, float(needed or 0), needed is not None, "x"
        )
        for n, (wanted, serving, recorded, needed) in enumerate(rows)
    ]


def answer(rows, *, price=None, lives=None, gaps=(), outcome=None):
    outcome = outcome or Outcome(moments(*rows))
    return report(
        terms(len(rows), price), Recorded(tuple(lives or [life(0)]), 15.0, gaps), outcome, ["store 7 is down"]
    )


def test_gpu_hours_count_what_was_asked_for_and_start_ups_of_the_real_replicas():
    lives = [life(0), life(1, start=START + 600.0, began=True)]
    found = answer([(3, 1, 1, 1)] * 60, lives=lives, price=2.5)
    assert found.simulated.replica_hours == pytest.approx(1.5)
    assert found.simulated.gpu_hours == pytest.approx(3.0)
    assert found.simulated.cost == pytest.approx(7.5)
    real = (1800 + (1200 + 240)) / 3600
    assert found.recorded.replica_hours == pytest.approx(real)
    assert found.recorded.cost == pytest.approx(real * 2 * 2.5)
    assert answer([(1, 1, 1, 1)]).simulated.cost is None


def test_short_is_when_more_is_needed_than_serves():
    rows = [
        (2, 2, 3, 2),
        (3, 2, 3, 3),
        (3, 2, 3, 3),
        (3, 3, 3, 3),
        (3, 3, 3, 4),
        (3, 3, 3, None),
        (3, 3, 3, 1),
    ]
    found = answer(rows)
    assert found.simulated.short.minutes == pytest.approx(1.5)
    assert found.simulated.short.longest_minutes == pytest.approx(1.0)
    assert found.simulated.short.longest_since == START + STEP
    assert found.simulated.short.worst_load == pytest.approx(1.5)
    assert found.recorded.short.minutes == pytest.approx(0.5)
    assert found.recorded.short.worst_load == pytest.approx(4 / 3)
    assert found.unknown_minutes == pytest.approx(0.5)


def test_minutes_short_at_the_bound_are_told_apart():
    rows = moments((2, 2, 2, 3), (2, 2, 2, 3), (2, 2, 2, 2))
    bounds = ["maxReplicas", "concurrentRequests", "maxReplicas"]
    outcome = Outcome([replace(m, limited_by=bound) for m, bound in zip(rows, bounds, strict=True)])
    assert answer([None] * 3, outcome=outcome).bounded_minutes == pytest.approx(0.5)


def test_never_short_has_no_longest():
    short = answer([(2, 2, 2, 2)] * 3).simulated.short
    assert (short.minutes, short.longest_minutes, short.longest_since) == (0.0, 0.0, None)


def test_a_fleet_of_nobody_is_short_without_a_division_by_zero():
    assert answer([(0, 0, 0, 2)]).simulated.short.worst_load == 2.0


def test_changes_and_reversals():
    rows = [(n, n, 1, 1) for n in (2, 2, 3, 4, 3, 3, 5, 1)]
    found = answer(rows)
    assert (found.simulated.changes, found.simulated.reversals) == (5, 3)
    assert (found.simulated.fewest, found.simulated.most) == (1, 5)
    assert (found.recorded.changes, found.recorded.reversals) == (0, 0)


def test_gaps_before_the_period_are_none_of_it():
    found = answer([(1, 1, 1, 1)] * 40, gaps=((START - 900, START - 500), (START - 100, START + 300)))
    assert found.gaps == ((START, START + 300),)


# --- Refusals ------------------------------------------------------------------------------------

DAY = Span(START, START + 86_400.0, 30.0)


@pytest.mark.parametrize(
    ("lives", "why"),
    [
        (
            [life(0, start=START + 7200.0)],
            "from 2027-01-15 08:00 UTC to 2027-01-15 10:00 UTC: write --from 2027-",
        ),
        ([life(0, end=START + 80_000.0)], "write --to 2027-01-16T06:13:20Z or earlier"),
    ],
)
def test_a_period_of_which_an_end_is_missing(lives, why):
    with pytest.raises(BacktestError) as refused:
        check_ends(Recorded(tuple(lives), 15.0, ()), DAY)
    assert why in str(refused.value)
    assert str(refused.value).startswith("nothing was recorded from")


def test_some_minutes_may_be_missing_at_the_ends():
    check_ends(Recorded((life(0, start=START + 600.0, end=START + 86_000.0),), 15.0, ()), DAY)


def test_a_target_that_was_mostly_unknown():
    outcome = Outcome(
        tallies={"a": Tally(known=70, unknown=30), "b": Tally(known=49, partly=1, unknown=50, why="no x")}
    )
    with pytest.raises(BacktestError) as refused:
        check_tallies(outcome)
    assert "the demand for b was not known for 51% of the time that replicas served" in str(refused.value)
    assert "(no x)" in str(refused.value)
    assert "for a " not in str(refused.value)


def test_no_target_at_all():
    with pytest.raises(BacktestError, match="no target of the spec"):
        check_tallies(Outcome())


# --- JSON and assumptions ------------------------------------------------------------------------


def test_the_json_has_all_and_is_plain():
    outcome = Outcome(moments((2, 2, 3, 2), (2, 2, 3, 2), (3, 2, 3, None)), removed=3)
    outcome.changes.append(Change(START + 60, 2, 3, "windows.up", "why"))
    outcome.tallies["concurrentRequests"] = Tally(2, 0, 1, "gone")
    found = json.loads(json.dumps(as_json(answer([None] * 3, outcome=outcome, price=1.0)), allow_nan=False))
    assert (found["from"], found["to"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:01:00Z")
    assert found["decisions"] == [
        {"time": "2027-01-15T08:01:00Z", "from": 2, "to": 3, "limitedBy": "windows.up", "message": "why"}
    ]
    assert found["replicas"] == [
        {
            "time": "2027-01-15T08:00:00Z",
            "wanted": 2,
            "serving": 2,
            "recorded": 3,
            "needed": 2,
            "known": True,
        },
        {
            "time": "2027-01-15T08:01:00Z",
            "wanted": 3,
            "serving": 2,
            "recorded": 3,
            "needed": None,
            "known": False,
        },
    ]
    assert found["targets"]["concurrentRequests"] == {
        "knownMinutes": 1.0,
        "partlyKnownMinutes": 0.0,
        "unknownMinutes": 0.5,
        "lastReason": "gone",
    }
    assert found["capacity"] is None
    assert found["simulated"].keys() == found["recorded"].keys()
    assert found["notes"] == ["store 7 is down"]


def test_assumptions_name_their_numbers():
    outcome = Outcome(moments((2, 2, 3, 2)), removed=3)
    text = " ".join(answer([None], outcome=outcome).assumptions)
    assert "240 s from creation to serving (--start-up)" in text
    assert "2 GPUs each" in text
    assert "3 drains would add at most 1.0 GPU-hours (drain.timeout is 600 s)" in text
    assert "Decisions are 30 s apart" in text


def test_at_the_operators_own_step_there_is_nothing_to_say_about_it():
    given = terms(3)
    given = replace(given, span=replace(given.span, step=5.0))
    found = report(given, Recorded((life(0),), 15.0, ()), Outcome(moments((1, 1, 1, 1))), [])
    assert not any("apart" in one for one in found.assumptions)
    assert math.isfinite(found.simulated.mean)
