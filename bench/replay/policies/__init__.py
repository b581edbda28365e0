"""Autoscalers, each ported from the source that its module names; ``-like`` where the rule is not exact."""
