"""Build dist/flanneld: the node daemon, frozen with its interpreter.

Usage: flanneld.py [--target FOLDER]. `FOLDER/flanneld` is the program; it needs the folder beside it. It is
made as programs.py says.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import closure
import programs
from tools import ROOT, run

from build import size_of

MAX_BYTES = 80 << 20


def main() -> None:
    """Build the program and check what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=ROOT / "dist/flanneld")
    target = parser.parse_args().target
    collected = programs.collect("flanneld.spec", ROOT / ".work/flanneld")
    shutil.rmtree(target, ignore_errors=True)
    programs.assemble(collected, target, ["flanneld"])
    size = size_of(target, MAX_BYTES)
    closure.check(target / programs.LIB, [target / "flanneld"])
    run(target / "flanneld", "-version", env={})
    print(f"{os.path.relpath(target)}: {size}")


if __name__ == "__main__":
    main()
