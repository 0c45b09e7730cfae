"""Debian's kernel, unpacked and never installed: `python -m integration.vm.kernel FOLDER`.

The package is the one that Debian's metapackage names, so that the kernel is always one with its fixes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

METAPACKAGE = "linux-image-amd64"
_DEPENDS = re.compile(r"^\s*Depends: (linux-image-\S+)$", re.MULTILINE)


class Kernel:
    """An unpacked kernel package.

    Args:
        folder: where it was unpacked.

    Attributes:
        release: what uname(2) will say.
        image: the path of what boots.
        modules: the folder that is /lib/modules of the machine that runs it.
    """

    def __init__(self, folder: str) -> None:
        self.modules = os.path.join(folder, "lib/modules")
        (self.release,) = os.listdir(self.modules)
        self.image = os.path.join(folder, "boot", f"vmlinuz-{self.release}")

    def files(self, *names: str) -> list[str]:
        """Return the files of some modules and of those they need, in the order they load in."""
        top = os.path.join(self.modules, self.release)
        with open(os.path.join(top, "modules.dep"), encoding="ascii") as file:
            needs = dict(line.rstrip("\n").split(":", 1) for line in file)
        paths = {os.path.basename(path).removesuffix(".ko"): path for path in needs}
        order: dict[str, None] = {}
        for name in names:
            # What needs no other stands last (modules.dep(5)).
            order.update(dict.fromkeys([*reversed(needs[paths[name]].split()), paths[name]]))
        return [os.path.join(top, path) for path in order]


def fetch(folder: str) -> None:
    """Download and unpack the kernel package into a folder, which is emptied before.

    Raises:
        subprocess.CalledProcessError: apt or dpkg-deb failed, and said why on standard error.
    """
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        _download(folder)
    except subprocess.CalledProcessError:  # apt's lists are missing, or older than the mirror
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        _download(folder)
    (package,) = os.listdir(folder)
    path = os.path.join(folder, package)
    subprocess.run(["dpkg-deb", "--extract", path, folder], check=True)
    os.unlink(path)
    subprocess.run(["depmod", "--basedir", folder, Kernel(folder).release], check=True)


def _download(folder: str) -> None:
    said = subprocess.run(["apt-cache", "depends", METAPACKAGE], check=True, capture_output=True, text=True)
    names = _DEPENDS.findall(said.stdout) or [METAPACKAGE]
    # apt's own user may not write here.
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *names]
    subprocess.run(command, check=True, cwd=folder)


if __name__ == "__main__":
    fetch(sys.argv[1])
