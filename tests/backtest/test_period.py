"""--from, --to and --step: what is understood, what is refused, and how fine the steps are."""

import pytest

from stoker.backtest.errors import BacktestError
from stoker.backtest.period import chosen_step, moment, period, rfc3339, shown
from stoker.clients.answers import Span

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC
HOUR, DAY = 3600.0, 86_400.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("90m", NOW - 5400),
        ("7d", NOW - 7 * DAY),
        ("1w", NOW - 7 * DAY),
        ("0.5h", NOW - 1800),
        ("2027-01-15", NOW - 8 * HOUR),
        ("2027-01-15T08:00", NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
    ],
)
def test_a_moment(text, at):
    assert moment(text, NOW, "--from") == at


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7 d", "-7d", "2027-13-01", "d"])
def test_what_is_no_moment_says_what_to_write(text):
    with pytest.raises(BacktestError, match=r"--from .* is no time: write 2027-01-31"):
        moment(text, NOW, "--from")


@pytest.mark.parametrize(
    ("seconds", "step"),
    [(HOUR, 5), (15 * HOUR, 5), (DAY, 10), (1.8 * DAY, 15), (3 * DAY, 30), (7 * DAY, 60), (60 * DAY, 60)],
)
def test_the_finest_step_that_does_not_take_for_ever(seconds, step):
    assert chosen_step(seconds) == step


def test_the_ends_are_whole_steps():
    assert period("1h", "now", "30s", NOW + 17) == Span(NOW - HOUR, NOW, 30)


@pytest.mark.parametrize(
    ("since", "until", "step", "why"),
    [
        ("1d", "2027-01-16", None, "--to 2027-01-16: 2027-01-16 00:00 UTC is in the future"),
        ("now", "1d", None, "--from now is not before --to 1d"),
        ("1d", "1d", None, "is not before"),
        ("1d", "now", "2m", "write one from 1s to 60s"),
        ("1d", "now", "0s", "write one from 1s to 60s"),
        ("1d", "now", "often", "--step: 'often' is not a duration"),
        ("60s", "now", "30s", "ten steps of 30 s at least"),
    ],
)
def test_what_is_no_period(since, until, step, why):
    with pytest.raises(BacktestError) as refused:
        period(since, until, step, NOW)
    assert why in str(refused.value)


def test_times_are_shown_in_utc():
    assert [shown(NOW), shown(NOW + 7)] == ["2027-01-15 08:00 UTC", "2027-01-15 08:00:07 UTC"]
    assert rfc3339(NOW + 7) == "2027-01-15T08:00:07Z"
