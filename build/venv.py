"""Make a virtual environment that holds what a lock file names, and nothing else.

Usage: venv.py TARGET LOCK WHEELS. Nothing is resolved: pip looks up no dependency and no newest release,
takes wheels alone, since a source would be built with whatever is newest that day, and compares each with its
hash. Then `pip check` says whether the lock is complete. The wheels stay in a folder, which tests use.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLOSED = ("--no-deps", "--require-hashes", "--only-binary=:all:")


def run(*command: str) -> None:
    """Run a step and show what it says only when it fails.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")


def main() -> None:
    """Make the environment anew, so that it keeps nothing of an older lock."""
    target, lock, wheels = sys.argv[1:]
    pip = (str(Path(target, "bin/python")), "-m", "pip", "--disable-pip-version-check", "--no-input")
    print(f"installing {lock} …", flush=True)
    run(sys.executable, "-m", "venv", "--clear", target)
    run(*pip, "download", *CLOSED, "--dest", wheels, "--requirement", lock)
    # What is imported is compiled then; compiling all of it would take ten seconds.
    run(*pip, "install", *CLOSED, "--no-compile", "--no-index", "--find-links", wheels, "--requirement", lock)
    run(*pip, "check")


if __name__ == "__main__":
    main()
