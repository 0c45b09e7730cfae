"""The suite run from its source: a folder of plugin names, all links to one script."""

from __future__ import annotations

import os
import sys

from cni_plugins.multicall import MODULES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = """#!{python} -IS
import sys

sys.path.insert(0, {root!r})
from cni_plugins.multicall import main

main(sys.argv[0])
"""


def make(folder: str) -> str:
    """Fill an empty folder with the plugins of this source tree; return it.

    It starts as the frozen bundle does, without site packages and without the user's environment.
    """
    script = os.path.join(folder, ".suite")
    with open(script, "w", encoding="utf-8") as file:
        file.write(SCRIPT.format(python=sys.executable, root=ROOT))
    os.chmod(script, 0o755)
    for name in MODULES:
        os.symlink(".suite", os.path.join(folder, name))
    return folder
