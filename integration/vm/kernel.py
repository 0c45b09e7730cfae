"""Debian's kernel, unpacked and never installed: `python -m integration.vm.kernel FOLDER`.

The package is the one that Debian's metapackage names on the day, so that the kernel is always one with its
fixes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

METAPACKAGE = "linux-image-amd64"
DEBIAN = (sys.executable, os.path.join(os.path.dirname(__file__), "../../build/debian.py"))


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


def renew(folder: str) -> None:
    """Unpack the newest kernel package into a folder; where no mirror answers, the one there stays.

    Raises:
        subprocess.CalledProcessError: no mirror answers, and there is none yet.
    """
    note = os.path.join(folder, "package")
    before = ""
    if os.path.exists(note):
        with open(note, encoding="ascii") as file:
            before = file.read().strip()
    command = [*DEBIAN, "newest", METAPACKAGE]
    asked = subprocess.run(command, check=not before, stdout=subprocess.PIPE, text=True)
    newest = asked.stdout.strip()
    if asked.returncode:
        print(f"no mirror said whether there is a newer kernel than {before}", file=sys.stderr)
    if newest in ("", before):
        return
    print(f"downloading {newest} …", flush=True)
    spare = f"{folder}.new"
    subprocess.run([*DEBIAN, "unpack", spare, newest], check=True)
    subprocess.run(["depmod", "--basedir", spare, Kernel(spare).release], check=True)
    with open(os.path.join(spare, "package"), "w", encoding="ascii") as file:
        file.write(newest + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(spare, folder)


if __name__ == "__main__":
    renew(sys.argv[1])
