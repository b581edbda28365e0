"""What a person sees."""

import io
import re

import pytest
from rich.console import Console

from stoker.backtest import picture
from stoker.backtest.errors import BacktestError
from stoker.backtest.replay import Change, Outcome
from stoker.backtest.terminal import show
from tests.backtest.test_report import START, STEP, answer, moments


@pytest.fixture
def outcome():
    found = Outcome(moments((2, 2, 3, 2), *[(3, 2, 3, 3)] * 4, *[(3, 3, 3, 3)] * 60, (3, 3, 3, None)))
    found.changes.append(Change(START + STEP, 2, 3, "concurrentRequests", "90 [requests] need 3"))
    return found


def printed(found, *, decisions=True, **options):
    out = io.StringIO()
    show(found, Console(file=out, **options), decisions=decisions)
    return out.getvalue()


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_decisions_sums_and_assumptions(outcome):
    text = printed(answer([None] * 66, outcome=outcome, price=2.0))
    assert "2027-01-15 08:00:30 2 → 3 concurrentRequests 90 [requests] need 3" in lines(text)
    assert "models/llama, 2027-01-15 08:00 UTC to 2027-01-15 08:32:30 UTC, every 30 s" in lines(text)
    assert any(line.startswith("Minutes short of capacity 2.0 0.0 +2.0") for line in lines(text))
    assert any(line.startswith("the longest of them 2.0, Jan 15 08:00 –") for line in lines(text))
    assert any(line.startswith("Cost, at 2 per GPU-hour") for line in lines(text))
    assert "• Not wholly known for 0.5 min (1.5%): the number was held, or only raised." in lines(text)
    assert "• store 7 is down" in lines(text)
    assert any(line.startswith("• A fleet counts as short of capacity") for line in lines(text))


def test_decisions_can_be_left_out(outcome):
    assert "concurrentRequests" not in printed(answer([None] * 66, outcome=outcome), decisions=False)


def test_no_decision_is_said(outcome):
    outcome.changes.clear()
    assert "No decision changed the number of replicas." in printed(answer([None] * 66, outcome=outcome))


def test_the_chart_shows_the_highest_of_each_column(outcome):
    (chart,) = (
        line
        for line in printed(answer([None] * 66, outcome=outcome)).splitlines()
        if line.startswith("this spec")
    )
    assert chart.split()[-1] == "2–3"
    assert chart.split()[2][:6] == "▆▆▆▆▆█"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_it_fits_into_the_terminal(outcome, width):
    text = printed(answer([None] * 66, outcome=outcome), force_terminal=True, no_color=True, width=width)
    plain = re.sub("\x1b\\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= width


def test_a_picture(outcome, tmp_path):
    picture.available()
    found = answer([None] * 66, outcome=outcome, gaps=((START + 300, START + 900),))
    picture.draw(found, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", ["no/such/folder/out.png", "out.xyz"])
def test_a_picture_that_cannot_be_written(outcome, tmp_path, file):
    with pytest.raises(BacktestError, match="--plot"):
        picture.draw(answer([None] * 66, outcome=outcome), tmp_path / file)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(BacktestError, match=r"pip install 'stoker\[plot\]'"):
        picture.available()
