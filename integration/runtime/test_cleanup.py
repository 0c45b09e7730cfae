"""Nothing of a containerd may stay on the machine, however its test ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from integration.runtime.janitor import groups
from integration.suite import ROOT
from integration.waiting import until

pytestmark = [pytest.mark.runtime, pytest.mark.peer]

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from integration.node import PEER, Node
from integration.runtime.containerd import Containerd
plugin = {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.66.0.0/24"}}
node = Node(PEER)
runtime = Containerd(node, {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]})
pod = runtime.run_pod("one")
pod.serve()
print(runtime.group, flush=True)
sys.stdin.read()
"""


def members(folders: list[str]) -> set[int]:
    """Return the processes in groups and below them."""
    found: set[int] = set()
    for top in folders:
        for folder, _, _ in os.walk(top):
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                found |= {int(line) for line in file}
    return found


def runs(pid: int) -> bool:
    """Tell whether a process has not ended; one that only waits for its status to be read has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_is_left_when_its_owner_is_killed() -> None:
    command = [sys.executable, "-c", SCRIPT, ROOT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        group = owner.stdout.readline().strip()
        pids = members(groups(group))
        names = set()
        for pid in pids:
            with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                names.add(file.read().strip())
        assert names == {"containerd", "containerd-shim", "busybox"}
        owner.send_signal(signal.SIGKILL)
    until(lambda: not groups(group) and not any(runs(pid) for pid in pids))
