"""Build dist/flanneld: the node daemon, frozen with its interpreter.

Usage: flanneld.py [--target FOLDER]. `FOLDER/flanneld` is the program; it needs the folder beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from build import ROOT, needs_of, run

MAX_BYTES = 80 << 20


def main() -> None:
    """Build the program and check what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=ROOT / "dist/flanneld")
    target = parser.parse_args().target
    work = ROOT / ".work/flanneld"
    print("PyInstaller …", flush=True)
    run(
        *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
        *("--workpath", work / "pyinstaller", "--distpath", work / "dist", ROOT / "build/flanneld.spec"),
        cwd=ROOT,
    )
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    (work / "dist/flanneld").rename(target)
    needs = needs_of(target, MAX_BYTES)
    run(target / "flanneld", "-version", env={})
    print(f"{os.path.relpath(target)}: {needs}")


if __name__ == "__main__":
    main()
