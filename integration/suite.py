"""The suite run from its source: a folder with cnictl and the plugins' names, all links to one script."""

from __future__ import annotations

import os
import sys

from cni_plugins.multicall import MODULES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = """#!{python} -IS
import sys

sys.path.insert(0, {root!r})
from cni_plugins import orphans
from cni_plugins.multicall import main

orphans.FOLDER, orphans.PATH = {run!r}, {run!r} + "/children.lock"
main(sys.argv[0])
"""
CNICTL = """#!{python} -I
import sys

sys.path.insert(0, {root!r})
from conflist.cnictl import main

sys.exit(main())
"""
DAEMON = """#!{python} -I
import sys

sys.path.insert(0, {root!r})
from ipam.dhcp.daemon.main import main

sys.exit(main())
"""


def make(folder: str, run: str = "/run/cni") -> str:
    """Fill an empty folder with the plugins of this source tree; return it.

    It starts as the frozen bundle does, without site packages and without the user's environment.

    Args:
        folder: the folder.
        run: where plugins keep their locks; outside of a node that should not be the machine's own folder.
    """
    for name, script in ((".suite", SCRIPT), ("cnictl", CNICTL), ("dhcp-daemon", DAEMON)):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(script.format(python=sys.executable, root=ROOT, run=run))
        os.chmod(path, 0o755)
    for name in MODULES:
        os.symlink(".suite", os.path.join(folder, name))
    return folder
