"""Write what is made of the CRD and the chart: the chart's copy of the CRD, the manifests for plain kubectl.

`python hack/render.py` writes the files; with `--check` it says which ones differ, and exits with 1.
The chart is the only source of `manifests/*.yaml`, and `crds/` that of the chart's copy: Helm reads nothing
outside of a chart.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import yaml

from testbed.binaries import ensure

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "stoker"
CRD = ROOT / "crds" / "stoker.dev_modeldeployments.yaml"
NAMESPACE = "stoker-system"

# The objects do not belong to a Helm release, so they must not say so: `helm install` would trip over them.
_HELMS_OWN = re.compile(r"^ +(app\.kubernetes\.io/managed-by: Helm|helm\.sh/chart: .*)\n", re.MULTILINE)
_SOURCE = re.compile(r"^# Source: .*\n", re.MULTILINE)


def files() -> dict[Path, str]:
    """Return every rendered file with what should be in it.

    Raises:
        subprocess.CalledProcessError: helm refused the chart; it has said why on standard error.
    """
    crd = CRD.read_text()
    copy = CHART / "files" / CRD.name
    if not copy.exists() or copy.read_text() != crd:
        return {copy: crd}  # helm has to see this one first
    return {
        copy: crd,
        ROOT / "manifests" / "install.yaml": _header("Stoker") + _namespace() + _template(),
        ROOT / "manifests" / "podmonitor.yaml": _header("Scraping of engines, for the Prometheus operator")
        + _template("--set=podMonitor.enabled=true,serviceMonitor.enabled=true", only="monitors.yaml"),
    }


def _header(what: str) -> str:
    return f"# {what}: rendered from charts/stoker by hack/render.py; do not edit.\n"


def _namespace() -> str:
    """The namespace, which Helm leaves to its caller; the operator's pod keeps to the strictest standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAMESPACE, "labels": labels}
    return "---\n" + yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, sort_keys=False
    )


def _template(*options: str, only: str | None = None) -> str:
    command = [str(ensure("helm")), "template", "stoker", str(CHART), f"--namespace={NAMESPACE}"]
    command += ["--set=crds.keep=false", *options]
    command += [f"--show-only=templates/{only}"] if only else []
    rendered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rendered = _SOURCE.sub("", _HELMS_OWN.sub("", rendered))
    return re.sub(r"\n\n+---\n", "\n---\n", rendered).rstrip("\n") + "\n"


def drifted() -> dict[Path, str]:
    """Return the files that are missing or differ, with what should be in them."""
    return {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file differs")
    check = parser.parse_args().check
    found = drifted()
    while found and not check:
        for path, text in found.items():
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
        found = drifted()
    for path in found:
        print(f"{path.relative_to(ROOT)} differs: run `make generate`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
