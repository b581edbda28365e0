"""Stoker beside the real KEDA: the same control plane, Prometheus, traffic and replica models, in real time.

    python -m bench.peers reaction      # from a series in Prometheus to pods: about 8 minutes
    python -m bench.peers faults        # what becomes of fleets whose metrics fail: about 12 minutes
    python -m bench.peers confirm       # a ramp in real time, beside what bench.replay predicts: 15 minutes

Real: etcd, API server, controller manager with its HPA controller, scheduler, KEDA's operator and metrics
adapter, Prometheus, and Stoker's operator under its chart's roles. Simulated: nodes (kwok) and engines.
KEDA scales Deployments, Stoker ModelDeployments; their pods are the same engines with the same start-up.

KEDA is built from its Go module the first time: about 10 minutes. What came out is in
``bench/results/peers.json`` and is read in ``docs/explanation/peers.md``.
"""
