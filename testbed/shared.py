"""One plane for several processes: the workers of a test run.

The first that asks starts a *host*, a process of its own that runs the plane; each asker holds a connection
to the host for as long as it needs the plane. When the last connection is closed, which the kernel does for a
killed process too, the host stops the plane and ends. So the plane outlives the worker that happened to
start it, and nothing outlives the test run.

The meeting point is an abstract Unix socket named after a folder: it vanishes with the host.
"""

import hashlib
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from testbed.access import Access, PlaneError
from testbed.binaries import PLANE_PROGRAMS, ensure_all, tail
from testbed.nodes import create_nodes
from testbed.plane import Plane

_WELCOME = b"!"
_FIRST_CALLER_SECONDS = 30.0


@contextmanager
def shared_plane(directory: Path, nodes: int) -> Iterator[Access]:
    """Use the plane that belongs to `directory`, with `nodes` GPU nodes, starting it when it does not run.

    Raises:
        PlaneError: it could not be started.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ensure_all(PLANE_PROGRAMS)  # here, where progress is seen and Ctrl-C is heard
    with FileLock(directory / "host.lock"):
        connection = _connect(directory) or _start_host(directory, nodes)
    with connection:
        yield Access.load(directory / "access.json")


def _address(directory: Path) -> str:
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:32]
    return f"\0stoker-testbed-plane-{digest}"


def _connect(directory: Path) -> socket.socket | None:
    """Return a connection that the host has welcomed; None when there is no host, or it is about to end."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(OSError):
        connection.connect(_address(directory))
        if connection.recv(1) == _WELCOME:
            return connection
    connection.close()
    return None


def _start_host(directory: Path, nodes: int) -> socket.socket:
    """Start a host and wait until it welcomes us; the caller holds the folder's lock."""
    log = directory / "host.log"
    command = [sys.executable, "-m", "testbed.shared", str(directory), str(nodes)]
    root = Path(__file__).parent.parent
    with log.open("wb") as output:
        host = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    while host.poll() is None:
        connection = _connect(directory)
        if connection is not None:
            return connection
        time.sleep(0.1)
    raise PlaneError(f"the shared plane did not start; {log} says:\n{tail(log)}")


def host(directory: Path, nodes: int) -> None:
    """Run the plane of `directory` until nobody is connected any more."""
    shutil.rmtree(directory / "plane", ignore_errors=True)
    # The listener is closed after the plane has ended: who calls too late then sees the connection close, and
    # can start another plane in this folder at once.
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        Plane.start(directory / "plane") as plane,
    ):
        create_nodes(plane, nodes)
        plane.save(directory / "access.json")
        listener.bind(_address(directory))
        listener.listen()
        _serve(listener)


def _serve(listener: socket.socket) -> None:
    """Welcome callers; return when the last has gone, or when none comes at first."""
    listener.settimeout(_FIRST_CALLER_SECONDS)
    callers: set[socket.socket] = set()
    with suppress(TimeoutError):
        callers.add(_welcome(listener))
    while callers:
        readable, _, _ = select.select([listener, *callers], [], [])
        for ready in readable:
            if ready is listener:
                callers.add(_welcome(listener))
            else:  # callers never speak: this one has gone
                callers.discard(ready)
                ready.close()


def _welcome(listener: socket.socket) -> socket.socket:
    caller, _ = listener.accept()
    caller.sendall(_WELCOME)
    return caller


if __name__ == "__main__":
    host(Path(sys.argv[1]), int(sys.argv[2]))
