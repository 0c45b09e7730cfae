"""The process that removes control groups: `python3 -IS janitor.py GROUP`, its owner at its standard input.

Control groups belong to the whole machine: they do not go with a namespace, as links, rules and mounts do.
So this process waits for the end of its standard input, which comes however the owner ends, then ends every
process in GROUP and below it and removes the folders, in each hierarchy of the machine.
"""

import os
import signal
import sys
import time

PATIENCE = 120.0
"""Seconds until it gives up on a process that does not end or a folder that cannot be removed."""


def hierarchies() -> list[str]:
    """Return the mount points of the control group hierarchies, several of version 1, or one of version 2."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    return [mount[1] for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def groups(group: str) -> list[str]:
    """Return the folders of a control group, in each hierarchy that has it."""
    return [top + group for top in hierarchies() if os.path.exists(top + group)]


def main(group: str) -> int:
    """Wait for the owner to end, then clean up; return the exit status."""
    while os.read(0, 1):
        pass
    deadline = time.monotonic() + PATIENCE
    while left := groups(group):
        if time.monotonic() > deadline:
            sys.stderr.write(f"control groups that could not be removed: {', '.join(left)}\n")
            return 1
        for top in left:
            _clean(top)
        time.sleep(0.005)
    return 0


def _clean(top: str) -> None:
    """End what runs in a group and below it, and remove what is empty already."""
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                for line in file:
                    os.kill(int(line), signal.SIGKILL)
            os.rmdir(folder)
        except OSError:
            continue  # a process is still ending, or has ended or made a group meanwhile: next round


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
