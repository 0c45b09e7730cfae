"""Build dist/flanneld: the node daemon, frozen with its interpreter.

Usage: flanneld.py [--arch amd64|arm64] [--target FOLDER]. `FOLDER/flanneld` is the program; it needs the
folder beside it. It is made as programs.py says.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import closure
import programs
from launcher import ARCHITECTURES, own_architecture

from build import default_target, size_of

MAX_BYTES = 80 << 20


def main() -> None:
    """Build the program and check what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", choices=ARCHITECTURES, default=own_architecture())
    parser.add_argument(
        "--target", type=Path, help="dist/flanneld, or dist/ARCH/flanneld for another architecture"
    )
    options = parser.parse_args()
    arch: str = options.arch
    target: Path = options.target or default_target(arch, "flanneld")
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    programs.make("flanneld.spec", arch, fresh, ["flanneld"])
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    size = size_of(target, MAX_BYTES)
    closure.check(target / programs.LIB, [target / "flanneld"])
    programs.runner(arch, target)("flanneld", "-version", env={})
    print(f"{os.path.relpath(target)}: {size}")


if __name__ == "__main__":
    main()
