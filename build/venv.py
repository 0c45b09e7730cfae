"""Make a virtual environment that holds what lock files name, and nothing else.

Usage: venv.py TARGET LOCK… . Nothing is resolved: pip looks up no dependency and no newest release, takes
wheels alone, since a source would be built with whatever is newest that day, and compares each with its hash.
Then `pip check` says whether the locks are complete.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
CLOSED = ("--no-deps", "--require-hashes", "--only-binary=:all:")


def main() -> None:
    """Make the environment anew, so that it keeps nothing of an older lock."""
    target, *locks = sys.argv[1:]
    python = str(Path(target, "bin/python"))
    print(f"installing {' and '.join(locks)} …", flush=True)
    files = [word for lock in locks for word in ("--requirement", lock)]
    for command in (
        [sys.executable, "-m", "venv", "--clear", target],
        [python, *PIP, "install", "-qq", *CLOSED, *files],
        [python, *PIP, "check"],
    ):
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")


if __name__ == "__main__":
    main()
