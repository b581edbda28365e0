"""The cache of built programs, with a stub in place of Go: what is built when, what an accident leaves."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import binaries
from testbed.binaries import PROGRAMS, BuildError, ensure, ensure_all, family_directory, module_version

STUB_GO = """#!{python}
import os, pathlib, sys, time
arguments = sys.argv[1:]
if arguments == ["version"]:
    print("go version go1.26.9 linux/amd64")
    sys.exit()
calls = pathlib.Path(os.environ["STUB_CALLS"])
with calls.open("a") as file:
    file.write(" ".join(arguments) + "\\n")
output = pathlib.Path(arguments[arguments.index("-o") + 1])
output.write_text("half")
time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
if os.environ.get("STUB_FAILS"):
    print("\\n".join(f"line {{number}}" for number in range(100)), file=sys.stderr)
    sys.exit(2)
output.write_text("#!/bin/sh")
output.chmod(0o755)
"""


@pytest.fixture(autouse=True)
def stub_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stub `go` on PATH and an empty cache; return the file that lists the calls of `go build`."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(STUB_GO.format(python=sys.executable))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STUB_CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "calls"


def calls(log: Path) -> list[str]:
    """Return the `go build` commands so far."""
    return log.read_text().splitlines() if log.exists() else []


def quiet(line: str) -> None:
    """Swallow progress."""


def test_a_program_is_built_once_and_then_found(stub_go: Path):
    first = ensure("etcd", progress=quiet)
    second = ensure("etcd", progress=quiet)
    assert first == second == family_directory(PROGRAMS["etcd"].family) / "etcd"
    assert os.access(first, os.X_OK)
    assert len(calls(stub_go)) == 1


def test_only_what_is_asked_for_is_built(stub_go: Path):
    ensure_all(["etcd", "kubectl"], progress=quiet)
    assert [call.split()[-1] for call in calls(stub_go)] == [
        "go.etcd.io/etcd/server/v3",
        "k8s.io/kubernetes/cmd/kubectl",
    ]


def test_optional_programs_are_built_when_they_are_named_and_not_among_all(stub_go: Path):
    ensure_all(progress=quiet)
    assert not [call for call in calls(stub_go) if "keda" in call]
    ensure("keda-operator", progress=quiet)
    (call,) = [call for call in calls(stub_go) if "keda" in call]
    number = module_version(PROGRAMS["keda-operator"].family).removeprefix("v")
    assert f"-X github.com/kedacore/keda/v2/version.Version={number}" in call


STUB_DOWNLOAD = """#!/bin/sh
case "$*" in
version) echo go version go1.26.9 linux/amd64 ;;
"mod download -json github.com/kedacore/keda/v2") {answer} ;;
esac
"""


def test_a_module_s_source_is_where_go_unpacked_it(tmp_path: Path):
    (tmp_path / "bin" / "go").write_text(STUB_DOWNLOAD.format(answer="""echo '{"Dir": "/modules/keda"}'"""))
    source = binaries.module_source(PROGRAMS["keda-operator"].family, progress=quiet)
    assert source == Path("/modules/keda")


def test_a_module_that_cannot_be_fetched_is_named_with_go_s_reason(tmp_path: Path):
    (tmp_path / "bin" / "go").write_text(STUB_DOWNLOAD.format(answer="echo no network >&2; exit 1"))
    with pytest.raises(BuildError, match=r"could not fetch github\.com/kedacore/keda/v2: no network"):
        binaries.module_source(PROGRAMS["keda-operator"].family, progress=quiet)


def test_the_build_stamps_the_version_of_the_pinned_module(stub_go: Path):
    version = module_version(PROGRAMS["kubectl"].family)
    ensure("kubectl", progress=quiet)
    (call,) = calls(stub_go)
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in call
    assert "-mod=readonly -trimpath" in call


def test_prometheus_is_stamped_with_its_release_and_knows_kubernetes_alone(stub_go: Path):
    ensure("prometheus", progress=quiet)
    (call,) = calls(stub_go)
    assert "-X github.com/prometheus/common/version.Version=3." in call
    assert "-tags remove_all_sd,enable_kubernetes_sd" in call


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_a_changed_pin_builds_anew(file: str, stub_go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(binaries.MODULES, tmp_path / "modules")
    monkeypatch.setattr(binaries, "MODULES", tmp_path / "modules")
    before = ensure("etcd", progress=quiet)
    with (tmp_path / "modules" / "etcd" / file).open("a") as pins:
        pins.write("\n// changed\n")
    assert ensure("etcd", progress=quiet) != before
    assert len(calls(stub_go)) == 2


def test_ready_binaries_are_used_and_the_rest_is_built(
    stub_go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "etcd").write_text("#!/bin/sh")
    (assets / "etcd").chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert ensure("etcd", progress=quiet) == assets / "etcd"
    assert ensure("kwok", progress=quiet).parent != assets
    assert len(calls(stub_go)) == 1


def test_a_failed_build_says_why_and_leaves_no_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STUB_FAILS", "1")
    with pytest.raises(BuildError) as caught:
        ensure("etcd", progress=quiet)
    message = str(caught.value)
    assert "could not build etcd v3" in message
    assert "line 99" in message
    assert "line 69" not in message  # the tail, not all of it
    assert not (family_directory(PROGRAMS["etcd"].family) / "etcd").exists()


def test_progress_names_the_program_and_the_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STUB_SECONDS", "0.5")
    monkeypatch.setattr(binaries, "HEARTBEAT_SECONDS", 0.05)
    lines: list[str] = []
    ensure("etcd", progress=lines.append)
    version = module_version(PROGRAMS["etcd"].family)
    assert lines[0] == f"building etcd {version}"
    assert f"still building etcd {version}: 0 s" in lines
    assert lines[-1].startswith(f"built etcd {version} in ")


def build_in_another_process(program: str) -> str:
    """Run `ensure` (for a process pool)."""
    return str(ensure(program, progress=quiet))


def test_two_processes_that_want_the_same_program_build_it_once(
    stub_go: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STUB_SECONDS", "0.5")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(build_in_another_process, ["etcd", "etcd"], chunksize=1)
    assert len(set(paths)) == 1
    assert Path(paths[0]).read_text() == "#!/bin/sh"
    assert len(calls(stub_go)) == 1


def test_an_interrupted_build_leaves_nothing_that_passes_for_a_program(
    stub_go: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STUB_SECONDS", "60")
    code = "from testbed.binaries import ensure; ensure('etcd')"
    root = Path(binaries.__file__).parent.parent
    builder = subprocess.Popen([sys.executable, "-c", code], cwd=root, start_new_session=True)
    while not calls(stub_go):
        assert builder.poll() is None
        time.sleep(0.01)
    os.killpg(builder.pid, signal.SIGKILL)
    builder.wait()
    directory = family_directory(PROGRAMS["etcd"].family)
    assert not (directory / "etcd").exists()

    monkeypatch.setenv("STUB_SECONDS", "0")
    assert ensure("etcd", progress=quiet).read_text() == "#!/bin/sh"
    assert sorted(path.name for path in directory.iterdir()) == ["etcd", "etcd.log"]


def test_an_unknown_program_is_refused():
    with pytest.raises(KeyError, match="kubelet"):
        ensure("kubelet")


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_every_program_is_pinned_as_a_tool_of_its_module(program: binaries.Program):
    pins = (binaries.MODULES / program.family.name / "go.mod").read_text()
    assert program.package in pins.split()


def test_the_cache_is_in_the_home_folder_without_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert binaries.cache_directory() == tmp_path / ".cache" / "stoker" / "testbed"
