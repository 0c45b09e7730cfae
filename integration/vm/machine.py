"""A machine with another kernel and the host's files: qemu without KVM, networks and disks.

Its / is the host's, read-only over 9p, under a tmpfs: it sees every program, Python package and test of the
host, and whatever it writes is gone with it. It dies with the process that started it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.vm.kernel import Kernel

HERE = os.path.dirname(os.path.abspath(__file__))
BUSYBOX = "/bin/busybox"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
FOLDERS = ("bin", "dev", "proc", "host", "scratch", "root", "modules")
CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off"
QEMU = (
    "qemu-system-x86_64",
    *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"),
    *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none", "-serial", "stdio"),
)


def run(kernel: Kernel, command: Sequence[str], env: Mapping[str, str], results: str, timeout: float) -> int:
    """Run a command as root in a machine of its own, in the working directory; show what it prints.

    Args:
        kernel: what to boot.
        command: program and arguments.
        env: its environment; it inherits none.
        results: a folder, the only one whose changes outlive the machine.
        timeout: seconds from power-on to power-off.

    Returns:
        The command's exit status.

    Raises:
        RuntimeError: the machine did not get to the command's end, or was not done in time.
    """
    with tempfile.TemporaryDirectory(prefix=".vm-", dir=results) as run_folder:
        words = ["exec", "env", "-i", *(f"{name}={value}" for name, value in env.items()), *command]
        with open(f"{run_folder}/command", "w", encoding="utf-8") as file:
            file.write(shlex.join(words) + "\n")
        initramfs = f"{run_folder}/initramfs"
        _make_initramfs(kernel, run_folder, initramfs)
        late = _watch(_argv(kernel, initramfs, results), timeout)
