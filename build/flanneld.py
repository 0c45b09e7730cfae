"""Build dist/flanneld: the node daemon, frozen with its interpreter.

Usage: flanneld.py [--target FOLDER]. `FOLDER/flanneld` is the program; it needs the folder beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from build import GLIBC_FLOOR, ROOT, needed_glibc, run

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
    size = sum(path.lstat().st_size for path in target.rglob("*"))
    if size > MAX_BYTES:
        sys.exit(f"{target} has {size >> 20} MiB, above {MAX_BYTES >> 20}")
    glibc = needed_glibc(target)
    if glibc > GLIBC_FLOOR:
        sys.exit(f"{target} needs glibc {glibc}, above {GLIBC_FLOOR}")
    run(target / "flanneld", "-version", env={})
    print(f"{os.path.relpath(target)}: {size / (1 << 20):.1f} MiB, glibc >= {glibc[0]}.{glibc[1]}")


if __name__ == "__main__":
    main()
