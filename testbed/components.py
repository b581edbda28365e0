"""The command line of each program of the control plane.

Plain functions of where the plane lives and what it is for; nothing is started here. The flags were found by
trial on a machine with two cores: etcd without fsync, since a plane is thrown away; no leader election, since
there is one of each; the endpoint controllers off, since EndpointSlices refuse loopback addresses and the
controllers would only fill their logs.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import yaml

STAGES = Path(__file__).parent / "stages"
_SLIM_PLUGINS = (
    "PrioritySort",
    "DefaultBinder",
    "NodeResourcesFit",
    "NodeName",
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
)
_ENDPOINTS = ("endpointslice-controller", "endpoints-controller", "endpointslice-mirroring-controller")
PROXY_CLIENT = "front-proxy-client"
"""Common name of the API server's certificate towards aggregated ones."""
# Per-node and per-address chores that cost writes and prove nothing with thousands of simulated nodes.
_NODE_CHORES = ("ttl-controller", "node-ipam-controller")


@dataclass(frozen=True, slots=True)
class PlaneOptions:
    """What a plane is for.

    Attributes:
        simulate_pods: kwok plays the pod Stages. Off for tens of thousands of pods, whose status a bulk
            writer sets much faster than kwok does (26 pods/s at 5,000 nodes).
        heartbeats: nodes report every 10 s and the node lifecycle controller watches them. Off for thousands
            of nodes: 5,000 of them are 500 writes a second.
        slim_scheduler: only the plug-ins that GPU pods need, and the first node that fits: about 50 times
            faster than the default profile at 5,000 nodes.
        disabled_controllers: more controllers of kube-controller-manager to leave out, by their names.
        apiserver_flags: more flags for kube-apiserver, for example an audit policy.
        aggregation: further API servers can be put behind this one, as metrics adapters are; their
            certificate and its authority are in `Layout.aggregation`.
    """

    simulate_pods: bool = True
    heartbeats: bool = True
    slim_scheduler: bool = False
    disabled_controllers: tuple[str, ...] = ()
    apiserver_flags: tuple[str, ...] = ()
    aggregation: bool = False

    @classmethod
    def large(cls) -> "PlaneOptions":
        """Return the options for 5,000 nodes and tens of thousands of pods."""
        return cls(
            simulate_pods=False, heartbeats=False, slim_scheduler=True, disabled_controllers=_NODE_CHORES
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one plane lives: its folder, its ports on 127.0.0.1, and its pods' addresses."""

    directory: Path
    etcd_port: int
    apiserver_port: int
    kwok_port: int
    pod_cidr: IPv4Network

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self.apiserver_port}"

    @property
    def ca(self) -> Path:
        """The certificate that the API server makes for itself at its first start."""
        return self.directory / "certs" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self.directory / "kubeconfig.yaml"

    @property
    def aggregation(self) -> Path:
        """The folder of the certificate for aggregated API servers: `ca.crt`, `tls.crt`, `tls.key`."""
        return self.directory / "aggregation"

    def file(self, name: str) -> Path:
        """Return the path of a file of this plane."""
        return self.directory / name


def etcd(layout: Layout) -> list[str]:
    """Return the arguments of etcd."""
    client = f"http://127.0.0.1:{layout.etcd_port}"
    return [
        f"--data-dir={layout.file('etcd')}",
        "--unsafe-no-fsync",
        "--heartbeat-interval=10",
        "--election-timeout=100",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--log-level=warn",
    ]


def kube_apiserver(layout: Layout, options: PlaneOptions) -> list[str]:
    """Return the arguments of kube-apiserver."""
    flags = [
        f"--etcd-servers=http://127.0.0.1:{layout.etcd_port}",
        f"--cert-dir={layout.ca.parent}",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.apiserver_port}",
        "--advertise-address=10.9.8.7",  # loopback is refused here; nobody ever uses it
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/16",
        "--authorization-mode=RBAC",
        f"--token-auth-file={layout.file('tokens.csv')}",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={layout.file('service-accounts.key')}",
        f"--service-account-signing-key-file={layout.file('service-accounts.key')}",
    ]
    if not options.heartbeats:
        # Nobody would take the not-ready taint off new nodes.
        flags.append("--disable-admission-plugins=TaintNodesByCondition")
    if options.aggregation:
        flags += _aggregation_flags(layout.aggregation)
    return [*flags, *options.apiserver_flags]


def _aggregation_flags(folder: Path) -> list[str]:
    """How the API server shows aggregated ones who it is, and who is asking through it."""
    return [
        f"--proxy-client-cert-file={folder / 'tls.crt'}",
        f"--proxy-client-key-file={folder / 'tls.key'}",
        f"--requestheader-client-ca-file={folder / 'ca.crt'}",
        f"--requestheader-allowed-names={PROXY_CLIENT}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
    ]


def kube_controller_manager(layout: Layout, options: PlaneOptions) -> list[str]:
    """Return the arguments of kube-controller-manager."""
    disabled = [*_ENDPOINTS, *options.disabled_controllers]
    if not options.heartbeats:
        disabled.append("node-lifecycle-controller")
    return [
        f"--kubeconfig={layout.kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--secure-port=0",
        f"--service-account-private-key-file={layout.file('service-accounts.key')}",
        f"--root-ca-file={layout.ca}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--controllers=" + ",".join(["*", *(f"-{name}" for name in disabled)]),
    ]


def kube_scheduler(layout: Layout) -> list[str]:
    """Return the arguments of kube-scheduler."""
    return [f"--config={layout.file('scheduler.yaml')}", "--bind-address=127.0.0.1", "--secure-port=0"]


def scheduler_configuration(layout: Layout, options: PlaneOptions) -> str:
    """Return the text of kube-scheduler's configuration file."""
    configuration: dict[str, object] = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig), "qps": 2000, "burst": 4000},
        "leaderElection": {"leaderElect": False},
    }
    if options.slim_scheduler:
        plugins = {"disabled": [{"name": "*"}], "enabled": [{"name": name} for name in _SLIM_PLUGINS]}
        configuration["percentageOfNodesToScore"] = 1
        configuration["profiles"] = [{"plugins": {"multiPoint": plugins}}]
    return yaml.safe_dump(configuration)


def kwok(layout: Layout, options: PlaneOptions) -> list[str]:
    """Return the arguments of kwok, the kubelet of every node annotated `kwok.x-k8s.io/node: fake`."""
    heartbeats = ["node-heartbeat.yaml"] if options.heartbeats else []
    pods = ["pod.yaml", "pod-failures.yaml"] if options.simulate_pods else []
    files = ["kwok.yaml", "node.yaml", *heartbeats, *pods]
    address = f"127.0.0.1:{layout.kwok_port}"
    return [
        f"--kubeconfig={layout.kubeconfig}",
        *(f"--config={STAGES / name}" for name in files),
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        f"--cidr={layout.pod_cidr}",
        "--node-ip=127.0.0.1",
        f"--node-port={layout.kwok_port}",
        f"--server-address={address}",
        # No Leases: a kwok that starts anew waits 40 s for those of the one before, and never starts a pod
        # that is bound while it takes one over (its cache does not show the new holder yet).
        "--node-lease-duration-seconds=0",
        "--v=WARN",
    ]
