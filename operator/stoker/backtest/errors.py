"""What ends a backtest before it has an answer."""

from __future__ import annotations


class BacktestError(Exception):
    """There is no answer; the message names the cause and what to do about it, for the user to read."""
