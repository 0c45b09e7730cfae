"""The process that owns a node's namespaces: `python3 -IS holder.py`, with the owner at its standard input.

It makes new network and mount namespaces, prepares them, writes "ready" and waits for the end of its standard
input. That end comes with the owner's, however the owner ends, since the kernel closes the pipe. The holder
then ends every process inside the node; with the last of them the kernel removes the namespaces, and with
those each link, rule, mount and file.
"""

import os
import signal
import stat
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from integration.namespaces import (
    MS_BIND,
    MS_MOVE,
    MS_PRIVATE,
    MS_REC,
    NEWNET,
    NEWNS,
    mount,
    unshare,
)

SCRATCH = "/run/.node"
OVERLAID = ("/etc", "/opt", "/var/lib")
"""Folders that are seen as they are, and whose changes stay in the node."""
HIDDEN = (
    "/etc/cni",
    "/etc/containers",
    "/etc/firewalld",
    "/etc/kube-flannel",
    "/opt/cni",
    "/opt/cni-plugins",
    "/var/lib/cni",
    "/var/lib/containers",
    "/var/lib/dhcp",
)
"""What a machine that runs containers keeps there: a node is a machine on which nothing has run yet."""

PARAMETERS = ("ip_forward", "conf/all/rp_filter", "conf/default/rp_filter")
"""What a new network namespace has from the machine, where they are often set: parameters of IPv4."""


def main() -> None:
    """Hold a node until standard input ends."""
    owner = os.getppid()
    unshare(NEWNS | NEWNET)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("node", "/run", "tmpfs", data="mode=755")
    os.makedirs("/run/netns")
    os.makedirs("/run/lock")
    _own_sysfs()
    reset_parameters()
    for folder in OVERLAID:
        _overlay(folder)
    os.write(1, b"ready\n")
    while os.read(0, 1):
        pass
    while _end_everyone(owner):
        os.sched_yield()


def reset_parameters() -> None:
    """Give this network namespace's parameters the values that the kernel begins with."""
    for name in PARAMETERS:
        with open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file:
            file.write("0")


def _own_sysfs() -> None:
    """Show this network namespace's interfaces in /sys; the cgroups stay in their place."""
    new = f"{SCRATCH}/sys"
    os.makedirs(new)
    mount("sysfs", new, "sysfs")
    mount("/sys/fs/cgroup", f"{new}/fs/cgroup", flags=MS_BIND | MS_REC)
    mount(new, "/sys", flags=MS_MOVE)


def _overlay(folder: str) -> None:
    parts = {part: f"{SCRATCH}{folder}/{part}" for part in ("upperdir", "workdir")}
    for path in parts.values():
        os.makedirs(path)
    for path in HIDDEN:
        if path.startswith(f"{folder}/") and os.path.lexists(path):
            _hide(parts["upperdir"] + path.removeprefix(folder))
    options = ",".join(f"{part}={path}" for part, path in parts.items())
    mount("overlay", folder, "overlay", data=f"lowerdir={folder},{options}")


def _hide(path: str) -> None:
    """Put what an overlay makes of a removed name in its upper layer (kernel: filesystems/overlayfs)."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _end_everyone(owner: int) -> bool:
    """Send SIGKILL to every process inside, except the owner; tell whether there was one."""
    # Everything is compared by the namespaces' inode, since a program may have moved itself to one of the
    # containers' network namespaces or, as `ip netns exec` does, made a mount namespace of its own.
    inside = {_inode(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")}
    inside |= {_inode(entry.path) for entry in os.scandir("/run/netns")}
    found = False
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (owner, os.getpid()):
            continue
        try:
            if {_inode(f"/proc/{name}/ns/{kind}") for kind in ("mnt", "net")} & inside:
                os.kill(int(name), signal.SIGKILL)
                found = True
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended meanwhile, is a zombie, or may not be looked at: not ours
    return found


def _inode(path: str) -> int:
    return os.stat(path).st_ino


if __name__ == "__main__":
    main()
