"""Write the lock files: every Python package that is ever installed here, with its hashes.

Usage: lock.py, by an interpreter that has pip-tools (`make lock`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = "requirements.lock"
LOCKS = {
    FIRST: ("dev", "flanneld"),
    "fuzz.lock": ("dev", "flanneld", "fuzz"),
    "pip-tools.lock": ("lock",),
}
"""Each file with the groups of pyproject.toml that are in it."""


def write(name: str, extras: tuple[str, ...]) -> None:
    """Write one file. It names no index, so that it holds where people have a mirror of their own."""
    subprocess.run(
        [
            *(sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--allow-unsafe"),
            *("--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links", "--no-header"),
            *("--strip-extras", *(f"--extra={extra}" for extra in extras)),
            # A package that is in two files has the same version in both.
            *(f"--constraint=build/{FIRST}" for _ in range(name != FIRST)),
            *(f"--output-file=build/{name}", "pyproject.toml"),
        ],
        cwd=ROOT,
        env=dict(os.environ),
        check=True,
    )


def main() -> None:
    """Write all of them; packages that two have in common get the same version."""
    for name, extras in LOCKS.items():
        print(f"build/{name} …", flush=True)
        write(name, extras)


if __name__ == "__main__":
    main()
