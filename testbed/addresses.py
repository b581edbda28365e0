"""Addresses that belong to one plane alone: TCP ports on 127.0.0.1 and a range for pods.

Pods get addresses inside 127.16.0.0/12, which every Linux has on its loopback without set-up. The range is
cut into sixteen /16; a plane claims one by binding an abstract Unix socket named after it. Such a name has
the scope of the loopback itself (the network namespace), nobody can leave it behind, and the kernel frees it
when the last process that holds the socket is gone: a lock file in a shared folder gives none of that.
"""

import atexit
import ipaddress
import random
import socket

from testbed.processes import ProcessError

POD_NETWORK = ipaddress.IPv4Network("127.16.0.0/12")
POD_PREFIX = 16
# Below 32768, where Linux starts to hand out ports to outgoing connections: a port that a killed API server
# is to get back must not have become somebody's client port meanwhile.
_PORTS = range(20000, 32000)


class RangeTakenError(ProcessError):
    """The pod range, or every one of them, belongs to another plane on this machine."""


_port_claims: list[socket.socket] = []
"""Held for the life of this process; its end closes them, and says nothing of it."""


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that were free on 127.0.0.1 a moment ago.

    No testbed on this machine is given them again while this process lives: what they are for takes a second
    or two to open them, and opens them again when it is restarted.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            claim.bind(f"\0stoker-testbed-port-{port}")
            probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            return False
    _port_claims.append(claim)
    atexit.register(claim.close)
    return True


class PodRange:
    """A claimed range of pod addresses; `claim` is the file descriptor that stands for the claim."""

    def __init__(self, cidr: ipaddress.IPv4Network) -> None:
        self.cidr = cidr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(f"\0stoker-testbed-pods-{cidr}")
        except OSError as error:
            self._socket.close()
            raise RangeTakenError(f"pod range {cidr} belongs to another plane on this machine") from error

    @property
    def claim(self) -> int:
        """The descriptor to hand to every process that uses the range."""
        return self._socket.fileno()

    def release(self) -> None:
        """Give the range back (once no other process holds `claim`)."""
        self._socket.close()


def claim_pod_range(cidr: str | None = None) -> PodRange:
    """Claim `cidr`, or the first free /16 of 127.16.0.0/12.

    Raises:
        RangeTakenError: it (or each of them) is taken.
        ValueError: `cidr` is no IPv4 network inside 127.0.0.0/8.
    """
    if cidr is not None:
        network = ipaddress.IPv4Network(cidr)
        if not network.is_loopback:
            raise ValueError(f"pod range {cidr}: must lie inside 127.0.0.0/8, for example 127.16.0.0/16")
        return PodRange(network)
    for network in POD_NETWORK.subnets(new_prefix=POD_PREFIX):
        try:
            return PodRange(network)
        except RangeTakenError:
            continue
    raise RangeTakenError(f"all pod ranges of {POD_NETWORK} belong to planes on this machine: stop one")
