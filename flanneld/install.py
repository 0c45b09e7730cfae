"""`flanneld install-cni` and `install-conf`: what a node needs beside the daemon, for init containers.

Both are atomic: a runtime that looks at the folder sees the old state or the new one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from cni_plugins import install, preflight
from cni_plugins.kernel import files

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("install-cni", "install-conf")


def install_conf(template: str, target: str) -> bool:
    """Put the network list in place.

    Returns:
        Whether it had to be written.

    Raises:
        ValueError: the template is no network list.
        OSError: it cannot be read, or the target not written.
    """
    with open(template, "rb") as file:
        content = file.read()
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{template} is no JSON: {error}") from None
    if not isinstance(document, dict) or not document.get("name") or not document.get("plugins"):
        raise ValueError(f"{template} is no network list: it needs name and plugins")
    if files.read(target, follow=True) == content:
        return False
    folder = os.path.dirname(target) or "."
    os.makedirs(folder, mode=0o755, exist_ok=True)
    with files.NewFile(folder, files.temporary_name(target), content, 0o644) as made:
        # By rename(2), also where there is no old list: containerd looks at its folder anew when a name goes
        # or a file is written, and not when a finished file gets its first name (fsnotify's Create).
        made.replace(target)
    return True


def main(arguments: Sequence[str]) -> int:
    """Run one of COMMANDS."""
    command = arguments[0]
    parser = argparse.ArgumentParser(prog=f"flanneld {command}")
    if command == "install-cni":
        parser.description = "Install the plugins' bundle into a folder, or upgrade the one that is there."
        parser.add_argument("--bundle", default="/opt/cni-plugins", help="the bundle (default: %(default)s)")
        parser.add_argument("target", nargs="?", default="/opt/cni/bin", help="default: %(default)s")
    else:
        parser.description = "Install the network list that the container runtime reads."
        parser.add_argument(
            "template", nargs="?", default="/etc/kube-flannel/cni-conf.json", help="default: %(default)s"
        )
        parser.add_argument(
            "target", nargs="?", default="/etc/cni/net.d/10-flannel.conflist", help="default: %(default)s"
        )
    given = parser.parse_args(arguments[1:])
    try:
        if command == "install-cni":
            said = install.install(given.bundle, given.target)
        else:
            said = "written" if install_conf(given.template, given.target) else "up to date"
    except (OSError, ValueError, preflight.UnfitError) as error:
        print(f"flanneld {command}: {error}", file=sys.stderr)
        return 1
    print(f"{given.target}: {said}")
    return 0
