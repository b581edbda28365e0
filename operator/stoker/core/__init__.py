"""The decisions: pure functions of a frozen snapshot. No I/O, no clock, no randomness."""
