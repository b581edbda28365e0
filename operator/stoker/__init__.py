"""Stoker: a Kubernetes operator for fleets of LLM inference engines."""

__version__ = "0.1.0"
