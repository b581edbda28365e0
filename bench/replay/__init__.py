"""Autoscalers for LLM inference, replayed on the same traffic in virtual time.

``python -m bench.replay --quick`` checks the invariants within minutes; without ``--quick`` it measures.
What it found is read in ``docs/explanation/autoscalers.md``.
"""
