"""The programs of the control plane, built from pinned Go modules into a per-user cache.

One module per program family (`testbed/modules/<family>`): in one module their dependencies would not agree.
The cache folder is keyed by go.mod, go.sum, build flags and platform: a change to any of them builds anew,
and nothing else does. Rules:

- a program is either whole or absent: it is linked under a temporary name and renamed;
- one build per family at a time on this machine (a file lock); a second caller waits and then finds it done;
- an interrupted build resumes, since Go's own build cache keeps each compiled package;
- `KUBEBUILDER_ASSETS` may name a folder of ready programs, as controller-runtime's envtest has it: what is
  there is used as it is, the rest is built;
- an optional family (KEDA: 10 minutes, for `bench.peers` alone) is built when one of its programs is asked
  for by name, and never among "all".
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from testbed.toolchain import Progress, ToolchainError, Version, find_go, go_environment, parse_version

MODULES = Path(__file__).parent / "modules"
LOG_LINES = 30
HEARTBEAT_SECONDS = 15.0


class BuildError(Exception):
    """A program could not be built; the message ends with the last lines that Go wrote."""


@dataclass(frozen=True, slots=True)
class Family:
    """Programs that share one Go module.

    Each stamp is a `package.variable=value` for the linker, so that the programs report the version that they
    are. `{version}`, `{major}` and `{minor}` in it are those of the required module, `{number}` its
    version without the v; `{release}` is what Prometheus makes of its own: the module v0.316.0 is the release
    3.16.0.
    """

    name: str
    module: str
    stamps: tuple[str, ...] = ()
    tags: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """One executable: the package to build, and its family."""

    name: str
    family: Family
    package: str


def _kubernetes_stamps() -> tuple[str, ...]:
    # Unstamped, the API server calls itself v0.0.0-master and helm's kubeVersion checks fail.
    values = ("gitVersion={version}", "gitMajor={major}", "gitMinor={minor}", "gitTreeState=clean")
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"{package}.{value}" for package in packages for value in values)


_ETCD = Family("etcd", "go.etcd.io/etcd/server/v3")
_KUBERNETES = Family("kubernetes", "k8s.io/kubernetes", _kubernetes_stamps())
_KWOK = Family("kwok", "sigs.k8s.io/kwok")
_PROMETHEUS = Family(
    "prometheus",
    "github.com/prometheus/prometheus",
    ("github.com/prometheus/common/version.Version={release}",),
    # Of all its ways to discover targets, Kubernetes alone: the others are most of the build.
    tags="remove_all_sd,enable_kubernetes_sd",
)
_HELM = Family("helm", "helm.sh/helm/v4", ("helm.sh/helm/v4/internal/version.version={version}",))
_KEDA = Family(
    "keda",
    "github.com/kedacore/keda/v2",
    ("github.com/kedacore/keda/v2/version.Version={number}",),
    optional=True,
)

PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        Program("etcd", _ETCD, "go.etcd.io/etcd/server/v3"),
        *(
            Program(name, _KUBERNETES, f"k8s.io/kubernetes/cmd/{name}")
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        ),
        Program("kwok", _KWOK, "sigs.k8s.io/kwok/cmd/kwok"),
        *(
            Program(name, _PROMETHEUS, f"github.com/prometheus/prometheus/cmd/{name}")
            for name in ("prometheus", "promtool")
        ),
        Program("helm", _HELM, "helm.sh/helm/v4/cmd/helm"),
        *(
            Program(f"keda-{name}", _KEDA, f"github.com/kedacore/keda/v2/cmd/{name}")
            for name in ("operator", "adapter")
        ),
    )
}
ALL_PROGRAMS = tuple(name for name, program in PROGRAMS.items() if not program.family.optional)
"""What `make testbed` builds: all but the optional families."""
PLANE_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")


def say(line: str) -> None:
    """Print one line of progress to standard error."""
    print(f"testbed: {line}", file=sys.stderr, flush=True)


def cache_directory() -> Path:
    """Return the user's cache of the testbed: `$XDG_CACHE_HOME` or `~/.cache`, then `stoker/testbed`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stoker" / "testbed"


def ensure(name: str, *, progress: Progress = say) -> Path:
    """Return the path of the program `name`, building it first when it is not there.

    Raises:
        KeyError: the testbed knows no such program.
        BuildError: Go is missing or the build failed.
    """
    program = PROGRAMS[name]
    ready = _prebuilt(program) or _cached(program)
    if ready is not None:
        return ready
    directory = family_directory(program.family)
    directory.mkdir(parents=True, exist_ok=True)
    with _family_lock(program.family, progress):
        return _cached(program) or _build(program, directory, progress)


def ensure_all(names: Iterable[str] = ALL_PROGRAMS, *, progress: Progress = say) -> dict[str, Path]:
    """Return the paths of all programs of `names`, building those that are missing, one after the other."""
    return {name: ensure(name, progress=progress) for name in names}


def module_version(family: Family) -> str:
    """Return the version of the family's module that its go.mod requires, for example `v1.37.1`."""
    text = (MODULES / family.name / "go.mod").read_text()
    found = re.search(rf"^(?:require\s+|\s+){re.escape(family.module)}\s+(v\S+)", text, re.MULTILINE)
    if found is None:
        raise BuildError(f"testbed/modules/{family.name}/go.mod does not require {family.module}")
    return found[1]


def module_source(family: Family, *, progress: Progress = say) -> Path:
    """Return the folder of the family's module as Go unpacked it: its manifests come with its source.

    Raises:
        BuildError: Go is missing, or could not fetch the module.
    """
    module = MODULES / family.name
    go = _go(module, progress)
    answer = subprocess.run(
        [str(go), "mod", "download", "-json", family.module],
        cwd=module,
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise BuildError(f"could not fetch {family.module}: {answer.stderr.strip() or answer.stdout.strip()}")
    return Path(json.loads(answer.stdout)["Dir"])


def family_directory(family: Family) -> Path:
    """Return the cache folder of the family: its name and a hash of all that decides what is built."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / family.name / name).read_bytes())
    digest.update("\0".join((*_build_flags(family), platform.system(), platform.machine())).encode())
    return cache_directory() / f"{family.name}-{digest.hexdigest()[:16]}"


def _prebuilt(program: Program) -> Path | None:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    return _executable(Path(folder) / program.name) if folder else None


def _cached(program: Program) -> Path | None:
    return _executable(family_directory(program.family) / program.name)


def _executable(path: Path) -> Path | None:
    return path if path.is_file() and os.access(path, os.X_OK) else None


def _build_flags(family: Family) -> list[str]:
    version = module_version(family)
    major, minor, patch = parse_version(version) or (0, 0, 0)
    words = {
        "version": version,
        "major": str(major),
        "minor": str(minor),
        "number": version.removeprefix("v"),
        "release": f"{minor // 100}.{minor % 100}.{patch}",
    }
    stamps = [stamp.format_map(words) for stamp in family.stamps]
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false"]
    flags += ["-ldflags", " ".join(["-s -w", *(f"-X {stamp}" for stamp in stamps)])]
    return [*flags, "-tags", family.tags] if family.tags else flags


@contextmanager
def _family_lock(family: Family, progress: Progress) -> Iterator[None]:
    """Hold the family's lock (the kernel frees it if the holder dies); say so when someone else has it."""
    lock = FileLock(cache_directory() / f"{family.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another build of {family.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(program: Program, directory: Path, progress: Progress) -> Path:
    """Build under a name of this attempt's own, then rename. The caller holds the family's lock."""
    for leftover in directory.glob(f".{program.name}.*"):
        leftover.unlink(missing_ok=True)
    partial = directory / f".{program.name}.{os.getpid()}"
    module = MODULES / program.family.name
    go = _go(module, progress)
    label = f"{program.name} {module_version(program.family)}"
    command = [str(go), "build", *_build_flags(program.family), "-o", str(partial), program.package]
    _run(command, module, directory / f"{program.name}.log", label, progress)
    target = directory / program.name
    partial.replace(target)
    return target


def _go(module: Path, progress: Progress) -> Path:
    try:
        return find_go(_minimum_go(module), cache_directory(), progress)
    except ToolchainError as error:
        raise BuildError(str(error)) from error


def _minimum_go(module: Path) -> Version:
    found = re.search(r"^go\s+(\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    version = parse_version(found[1]) if found else None
    if version is None:
        raise BuildError(f"{module.name}/go.mod has no go line")
    return version


def _run(command: list[str], module: Path, log: Path, label: str, progress: Progress) -> None:
    progress(f"building {label}")
    start = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=module, env=go_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            code = _wait(process, label, start, progress)
        finally:
            # Ctrl-C or an error here must not leave a compiler running.
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise BuildError(f"could not build {label} (go exited with {code}):\n{tail(log)}\nwhole log: {log}")
    progress(f"built {label} in {_elapsed(start)}")


def _wait(process: subprocess.Popen[bytes], label: str, start: float, progress: Progress) -> int:
    while True:
        try:
            return process.wait(HEARTBEAT_SECONDS)
        except subprocess.TimeoutExpired:
            progress(f"still building {label}: {_elapsed(start)}")


def _elapsed(start: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """Return the last `lines` lines of a log; a placeholder when there is none."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return f"(no log at {log})"
    return "\n".join(text.rstrip().splitlines()[-lines:]) or f"(nothing in {log})"
