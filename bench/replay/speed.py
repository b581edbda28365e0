"""The simulation's hot modules, compiled by mypyc: three times as fast, with the very same results.

Rules of this module:

* The sources are the ordinary modules: nothing is written twice, and without a compiler it runs as it is.
* Compiled once per version of the sources, of Python and of mypy, into the store's folder.
* It has to happen before one of the modules is imported; processes that are started later do the same.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from filelock import FileLock

from bench.replay.store import ROOT, folder, syntax

MODULES: Final = (
    *(f"testbed.{name}" for name in ("replica", "replica_models", "replica_records")),
    *(f"bench.replay.{name}" for name in ("faults", "fleet", "prometheus", "scores", "simulation", "view")),
)
PACKAGES: Final = ("testbed", "bench", "bench.replay")

_BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
python = f"--python-version={sys.version_info[0]}.{sys.version_info[1]}"
files = ["--config-file=", "--follow-imports=silent", python, *sys.argv[1:]]
modules = mypycify(files, opt_level="3", group_name="replay")
setup(name="replay", ext_modules=modules, script_args=["--quiet", "build_ext", "--inplace"])
"""


def accelerate() -> bool:
    """Have the compiled modules imported instead of their sources.

    Returns:
        False where they cannot be compiled; the reason goes to standard error.

    Raises:
        RuntimeError: one of them has been imported already.
    """
    if imported := [name for name in MODULES if name in sys.modules]:
        raise RuntimeError(f"{', '.join(imported)}: imported already, it is too late to compile")
    try:
        compiled = _compiled()
    except (OSError, subprocess.CalledProcessError, ModuleNotFoundError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        print(f"not compiled, which is slower: {detail.strip().splitlines()[-1]}", file=sys.stderr)
        return False
    sys.path.append(str(compiled))  # the library that all of them share has no package
    for name in PACKAGES:
        package = importlib.import_module(name)
        package.__path__.insert(0, str(compiled.joinpath(*name.split("."))))
    return True


def _compiled() -> Path:
    """The folder of the compiled modules."""
    target = folder() / "compiled" / _digest()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            _build(target)
    return target


def _digest() -> str:
    digest = hashlib.sha256(f"{sys.version}\nmypy {version('mypy')}\n{_BUILD}".encode())
    for name in MODULES:
        digest.update(f"{name}\n{syntax(_source(name).read_text())}\n".encode())
    return digest.hexdigest()[:20]


def _source(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def _build(target: Path) -> None:
    """Compile copies of the sources aside, and put the libraries in place in one go."""
    print("compiling the simulation, once …", file=sys.stderr)
    work = target.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    for file in (*map(_source, MODULES), ROOT / "testbed" / "trace.py", *map(_package, PACKAGES)):
        copy = work / "build" / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    names = [str(_source(name).relative_to(ROOT)) for name in MODULES]
    command = [sys.executable, "-c", _BUILD, *names]
    subprocess.run(command, cwd=work / "build", check=True, capture_output=True, text=True)
    for library in (work / "build").rglob("*.so"):
        inside = library.relative_to(work / "build")
        if inside.parts[0] != "build":
            (work / "done" / inside).parent.mkdir(parents=True, exist_ok=True)
            library.replace(work / "done" / inside)
    (work / "done").replace(target)
    shutil.rmtree(work)


def _package(name: str) -> Path:
    return ROOT.joinpath(*name.split("."), "__init__.py")
