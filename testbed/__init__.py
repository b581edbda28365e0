"""The testbed: a real Kubernetes control plane, simulated GPU nodes and simulated engines, on one machine."""
