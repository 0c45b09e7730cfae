"""Makes the Debian that the image is built on, for where there is no registry: `base.py ARCHIVE`.

It takes along how package registries are reached from here: pip's settings and certificates of one's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

RELEASE = "bookworm"
DEBIAN = (sys.executable, os.path.join(os.path.dirname(__file__), "../../build/debian.py"))
SETTINGS = ("/etc/pip.conf", "/usr/local/share/ca-certificates")


def make(archive: str) -> None:
    """Write a minimal Debian as a tar archive, which gets its name when it is whole.

    Raises:
        CalledProcessError: debootstrap failed.
    """
    os.makedirs(os.path.dirname(archive), exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, "root")
        said = subprocess.run([*DEBIAN, "mirror"], check=True, stdout=subprocess.PIPE, text=True)
        # In a mount namespace: debootstrap mounts /proc, and an interrupted one would leave it there.
        subprocess.run(
            ["unshare", "--mount", "debootstrap", "--variant=minbase", RELEASE, root, said.stdout.strip()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(f"{root}/var/cache/apt/archives", ignore_errors=True)
        for path in SETTINGS:
            if os.path.isdir(path):
                shutil.copytree(path, root + path, dirs_exist_ok=True)
            elif os.path.exists(path):
                shutil.copy(path, root + path)
        spare = f"{archive}.new"
        subprocess.run(["tar", "--numeric-owner", "-C", root, "-cf", spare, "."], check=True)
        os.rename(spare, archive)


if __name__ == "__main__":
    make(sys.argv[1])
