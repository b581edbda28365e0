"""How much the operator costs, and how fast it is, with up to 10,000 ModelDeployments of four pods each.

    python -m bench.controller --sizes 100,1000,10000

Real: the operator's process under its chart's roles, etcd, API server, controller manager, scheduler,
Prometheus. Simulated: nodes (kwok), the kubelet's "Running and Ready" (`kubelets`), and what the engines'
`/metrics` say (`exposition`).

Per size, on a fresh control plane:

- create: the objects exist, nothing else does; from the operator's start until every one is Ready
- restart: everything exists; from the operator's start until it has looked at all and has nothing left to do
- quiet: nothing happens for a while; the writes must be zero
- tick: all objects scale on Prometheus' answers; what one round of gather and decide takes
- reaction: from demand that can be seen in Prometheus to the pod that answers it

CPU seconds are the operator's own, user and system, and hold on a busy machine too; wall times do not, so the
load average stands beside each.
"""
