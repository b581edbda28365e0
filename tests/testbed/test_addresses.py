"""Addresses that no other plane uses."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import addresses
from testbed.addresses import RangeTakenError, claim_pod_range, free_ports
from testbed.processes import Process


@pytest.fixture
def network(worker_range: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small stand-in for 127.16.0.0/12 that no plane uses: two ranges of this worker's own."""
    monkeypatch.setattr(addresses, "POD_NETWORK", addresses.ipaddress.IPv4Network(worker_range))
    monkeypatch.setattr(addresses, "POD_PREFIX", 25)
    return worker_range


@pytest.fixture
def worker_range() -> Iterator[str]:
    """A /24 in 127.200.0.0/16, held by a socket so that no other worker takes it."""
    for number in range(256):
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                claim.bind(f"\0stoker-test-range-{number}")
            except OSError:
                continue
            yield f"127.200.{number}.0/24"
            return


def test_each_claim_gets_a_range_of_its_own(network: str):
    first, second = claim_pod_range(), claim_pod_range()
    assert first.cidr.supernet() == second.cidr.supernet() == addresses.POD_NETWORK
    assert not first.cidr.overlaps(second.cidr)
    with pytest.raises(RangeTakenError, match="all pod ranges"):
        claim_pod_range()
    first.release()
    third = claim_pod_range()
    assert third.cidr == first.cidr
    for claimed in (second, third):
        claimed.release()


def test_a_stated_range_is_claimed_too(worker_range: str):
    claimed = claim_pod_range(worker_range)
    with pytest.raises(RangeTakenError, match=f"pod range {worker_range} belongs to another plane"):
        claim_pod_range(worker_range)
    claimed.release()
    claim_pod_range(worker_range).release()


def test_a_range_stays_claimed_while_a_program_that_uses_it_runs(worker_range: str, tmp_path: Path):
    claimed = claim_pod_range(worker_range)
    process = Process("sleeper", ["/bin/sleep", "600"], tmp_path / "log", keep=[claimed.claim])
    claimed.release()
    with pytest.raises(RangeTakenError):
        claim_pod_range(worker_range)
    process.kill()
    claim_pod_range(worker_range).release()


@pytest.mark.parametrize("cidr", ["10.0.0.0/16", "0.0.0.0/0", "192.168.0.0/24"])
def test_a_range_outside_the_loopback_is_refused(cidr: str):
    with pytest.raises(ValueError, match=r"must lie inside 127\.0\.0\.0/8"):
        claim_pod_range(cidr)


def test_ports_are_free_and_different():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_a_port_in_use_is_not_handed_out(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = listener.getsockname()[1], other.getsockname()[1]
        other.close()
        monkeypatch.setattr(addresses, "_PORTS", [taken, free])
        assert free_ports(1) == [free]


def test_a_port_is_handed_out_once_whether_it_is_open_yet_or_not(monkeypatch: pytest.MonkeyPatch):
    (port,) = free_ports(1)
    monkeypatch.setattr(addresses, "_PORTS", [port])
    assert free_ports(1) == []
    ask = f"from testbed import addresses; addresses._PORTS = [{port}]; print(addresses.free_ports(1))"
    elsewhere = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == "[]"


def test_ports_are_never_those_of_outgoing_connections():
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_ports(50)) < max(first_ephemeral, 32768)


def test_pod_addresses_are_local_without_set_up(worker_range: str):
    address = worker_range.replace(".0/24", ".77")
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        result = subprocess.run(["bash", "-c", f": </dev/tcp/{address}/{port}"], check=False)
    assert result.returncode == 0
