"""What the build's scripts share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run(*argv: str | Path, **kwargs: Any) -> str:
    """Run a program and return what it printed on standard output.

    Raises:
        SystemExit: it failed; the message has everything that it printed.
    """
    command = [str(arg) for arg in argv]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, check=False, **kwargs
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
