"""Benchmarks of Stoker, with their results checked in."""
