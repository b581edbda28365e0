"""The certificate for aggregated API servers: whom it convinces, and who may read its key."""

import contextlib
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from testbed.certificates import write_certificate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a certificate."""
    folder = tmp_path_factory.mktemp("certificates") / "aggregation"
    write_certificate(folder, "front-proxy-client", ["keda-operator.keda.svc"])
    return folder


def context(folder: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    """Return a context that shows the certificate and asks the peer for one of the same authority."""
    made = ssl.create_default_context(purpose, cafile=str(folder / "ca.crt"))
    made.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def handshake(folder: Path, host: str) -> dict[str, object]:
    """Connect both ends; return the client's certificate as the server saw it."""
    ours, theirs = socket.socketpair()
    seen: dict[str, object] = {}

    def serve() -> None:
        with (
            contextlib.suppress(ssl.SSLError, OSError),  # a client that is not convinced
            context(folder, ssl.Purpose.CLIENT_AUTH).wrap_socket(theirs, server_side=True) as server,
        ):
            seen.update(server.getpeercert() or {})
            server.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with context(folder, ssl.Purpose.SERVER_AUTH).wrap_socket(ours, server_hostname=host) as client:
        client.send(b"x")
        thread.join(10)
    return seen


@pytest.mark.parametrize("host", ["keda-operator.keda.svc", "127.0.0.1"])
def test_it_serves_on_both_ends(folder: Path, host: str):
    client = handshake(folder, host)
    assert client["subject"] == ((("commonName", "front-proxy-client"),),)


def test_a_host_that_is_not_named_is_not_believed(folder: Path):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(folder, "elsewhere.keda.svc")


def test_the_key_is_its_user_s_alone(folder: Path):
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert not (folder / "ca.key").exists()
