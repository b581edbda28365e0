"""Stoker: a Kubernetes operator for fleets of LLM inference engines."""
