"""Write the golden manifests anew: `python tests/golden/update.py`, then read `git diff tests/golden`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "operator")]
    import render

    for stale in set(render.MANIFESTS.glob("*.yaml")) - {
        render.MANIFESTS / f"{n}.yaml" for n in render.names()
    }:
        stale.unlink()
    for name in render.names():
        (render.MANIFESTS / f"{name}.yaml").write_text(render.render(name))


if __name__ == "__main__":
    main()
