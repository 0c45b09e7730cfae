"""A machine with another kernel and the host's files: qemu without KVM, network and disk.

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
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What the initramfs has to load; the rest loads on demand."""
FOLDERS = ("bin", "dev", "proc", "host", "scratch", "root", "modules")
QEMU = (
    # The machine must not outlive us, however we end (prctl(2), PR_SET_PDEATHSIG).
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
    *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"),
    # Network cards without a cable, for tests of their addresses; by the name a test knows the machine.
    *("-smbios", "type=1,product=cni-tests", "-device", "e1000", "-device", "virtio-net-pci"),
    # What the command prints comes by a port that, unlike the console, is no terminal.
    *("-chardev", "file,id=output,path=/dev/stdout", "-device", "virtio-serial-pci"),
    *("-device", "virtserialport,chardev=output", "-append", "console=ttyS0 quiet panic=-1 mitigations=off"),
)


def run(kernel: Kernel, command: Sequence[str], env: Mapping[str, str], folder: str, timeout: float) -> int:
    """Run a command as root in a machine of its own, in our working directory; show what it prints.

    Args:
        kernel: what to boot.
        command: program and arguments.
        env: its environment; it inherits none.
        folder: where it may leave files for us; nothing else that it writes outlives the machine.
        timeout: seconds from power-on to power-off.

    Returns:
        The command's exit status.

    Raises:
        RuntimeError: the machine ended before the command did, or was not done in time.
    """
    words = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *command]
    settings = {
        "MODULES": kernel.modules,
        "FOLDER": folder,
        "GUEST": os.path.join(HERE, "guest.sh"),
        "DIRECTORY": os.getcwd(),
        "COMMAND": shlex.join(words),
    }
    status, console = os.path.join(folder, "status"), os.path.join(folder, "console")
    with tempfile.TemporaryDirectory() as made:
        initramfs = _make_initramfs(made, kernel, settings)
        shares = [*_share("host", "/", "readonly=on,multidevs=remap"), *_share("results", folder)]
        boot = [*QEMU, "-kernel", kernel.image, "-initrd", initramfs, "-serial", f"file:{console}", *shares]
        in_time = _show(boot, timeout)
    if os.path.exists(status):
        with open(status, encoding="ascii") as file:
            return int(file.read())
    with open(console, encoding="utf-8", errors="replace") as file:
        sys.stdout.write(file.read())
    raise RuntimeError(
        "the machine ended before the command did" if in_time else f"not done after {timeout:.0f} s"
    )


def _share(tag: str, folder: str, options: str = "multidevs=remap") -> list[str]:
    source = f"local,id={tag},path={folder},security_model=none,{options}"
    return ["-fsdev", source, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _make_initramfs(folder: str, kernel: Kernel, settings: Mapping[str, str]) -> str:
    """Make the archive that the kernel unpacks and runs /init of; return its path."""
    top = os.path.join(folder, "top")
    for name in FOLDERS:
        os.makedirs(os.path.join(top, name))
    shutil.copy(BUSYBOX, os.path.join(top, "bin"))
    shutil.copy(os.path.join(HERE, "init"), top)
    for number, path in enumerate(kernel.files(*MODULES)):
        shutil.copy(path, os.path.join(top, "modules", f"{number:02}"))
    with open(os.path.join(top, "settings"), "w", encoding="utf-8") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    archive = os.path.join(folder, "initramfs")
    pack = f"find . | {BUSYBOX} cpio -o -H newc -F {shlex.quote(archive)}"
    subprocess.run(["sh", "-ec", pack], check=True, cwd=top, stderr=subprocess.DEVNULL)
    return archive


def _show(boot: Sequence[str], timeout: float) -> bool:
    """Run qemu to its end and show what comes out of it; tell whether it ended in time."""
    with subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        alarm = threading.Timer(timeout, machine.kill)
        alarm.start()
        try:
            for line in machine.stdout:
                sys.stdout.write(line.decode(errors="replace"))
                sys.stdout.flush()
            machine.wait()
        finally:
            in_time = alarm.is_alive()
            alarm.cancel()
            machine.kill()
    return in_time
