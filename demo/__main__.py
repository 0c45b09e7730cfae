"""`python -m demo [FOLDER OF THE PLUGINS]`: two pods on a flannel network, with masquerade and a host port.

Everything happens in namespaces of its own (integration/node.py): a machine with an uplink, a host outside
that has no route to the pods, and the pods. Exit status 0 when every step went as it should.
"""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter

from demo.screen import Screen, StepFailedError
from demo.steps import ROOT, Demo
from integration.node import Node


def main() -> int:
    """Return 0 when every step succeeded."""
    plugins = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else f"{ROOT}/dist/cni")
    screen = Screen(sys.stdout)
    if not os.access(f"{plugins}/cnictl", os.X_OK):
        sys.stderr.write(f"demo: no cnictl in {plugins}; `make demo` builds it\n")
        return 1
    if os.geteuid() != 0:
        sys.stderr.write("demo: only root can make network namespaces\n")
        return 1
    began = perf_counter()
    before = _own_state()
    with Node(plugins) as node:
        Demo(node, plugins, screen).run()
    screen.heading("This machine")
    screen.step("its own links and packet filter are unchanged", lambda: _unchanged(before))
    screen.summary(perf_counter() - began)
    return 1 if screen.failures else 0


def _own_state() -> list[bytes]:
    commands = (["ip", "-brief", "link"], ["nft", "--stateless", "list", "ruleset"])
    return [subprocess.run(command, capture_output=True, check=True).stdout for command in commands]


def _unchanged(before: list[bytes]) -> str:
    if _own_state() != before:
        raise StepFailedError("they differ from before")
    return ""


if __name__ == "__main__":
    sys.exit(main())
