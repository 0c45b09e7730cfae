"""A machine for a test: network and mount namespaces in which plugins may do what they want.

Inside a node, /run is empty and writable, changes to /etc, /opt and /var/lib are the node's own, what the
machine keeps there of containers is hidden (holder.HIDDEN), /sys shows the node's interfaces, and the host's
tables, addresses and files stay as they are. All of it goes when the node is closed, and also when the
process that made it is killed (see holder.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from integration import namespaces
from integration.closing import Closing
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PEER = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins puts the Go reference plugins."""
NSENTER = "/usr/bin/nsenter"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = (("mnt", namespaces.NEWNS), ("net", namespaces.NEWNET))


class Node(Closing):
    """Namespaces of a test's own; a context manager.

    Args:
        plugins: the folder of the plugins that `cni` runs, the CNI_PATH of every call.

    Attributes:
        pid: the process that holds the namespaces.
    """

    def __init__(self, plugins: str = PEER) -> None:
        self.plugins = plugins
        self._started: list[subprocess.Popen[bytes]] = []
        self._holder = subprocess.Popen(
            [sys.executable, "-IS", os.path.join(os.path.dirname(__file__), "holder.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C must reach us alone: the holder has what runs inside to end first.
            start_new_session=True,
        )
        self.pid = self._holder.pid
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError("the node's namespaces could not be made; the holder said why on stderr")
        self.run(["ip", "link", "set", "lo", "up"])

    def close(self) -> None:
        """End every process inside and remove the namespaces."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        # The holder ends what it finds inside; one that is still on its way in is not there to be found.
        for process in self._started:
            if process.poll() is None:
                process.kill()
        self._holder.stdin.close()
        self._holder.wait()
        for process in self._started:
            process.wait()
        self._holder.stdout.close()

    def path(self, inside: str) -> str:
        """Return the path by which a process outside reaches a file of the node."""
        return f"/proc/{self.pid}/root{inside}"

    def argv(self, command: Sequence[str], netns: str = "") -> list[str]:
        """Return the command line that runs a program inside, in a container's namespace if one is named."""
        network = self.path(f"/run/netns/{netns}") if netns else f"/proc/{self.pid}/ns/net"
        return [NSENTER, f"--net={network}", f"--mount=/proc/{self.pid}/ns/mnt", "--", *command]

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        *,
        check: bool = True,
        netns: str = "",
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program inside to its end.

        Args:
            command: the program, searched for in PATH, and its arguments.
            env: its environment besides PATH; it inherits none.
            stdin: what it reads.
            check: raise when it fails, with what it printed.
            netns: the name of a container's namespace to run in.
            timeout: seconds.

        Raises:
            AssertionError: `check`, and the exit status is not 0.
        """
        done = subprocess.run(
            self.argv(command, netns),
            env={"PATH": PATH, **(env or {})},
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{said}")
        return done

    def exec(self, netns: str, *command: str, check: bool = True) -> str:
        """Run a program in a container's namespace; return what it printed on standard output."""
        return self.run(command, netns=netns, check=check).stdout.decode()

    def popen(self, command: Sequence[str], netns: str = "", **options: Any) -> subprocess.Popen[bytes]:
        """Start a program inside and go on; it is ended with the node at the latest."""
        options.setdefault("env", {"PATH": PATH})
        process: subprocess.Popen[bytes] = subprocess.Popen(self.argv(command, netns), **options)
        self._started.append(process)
        return process

    def netns(self, name: str) -> str:
        """Make a container's namespace, as `ip netns add` would; return its path inside the node."""
        path = f"/run/netns/{name}"
        with self.entered():
            with open(path, "x", encoding="ascii"):
                pass
            # /proc/self is the process's first thread, which may be another one than the one that moves.
            namespaces.unshare(namespaces.NEWNET)
            namespaces.mount("/proc/thread-self/ns/net", path, flags=namespaces.MS_BIND)
        return path

    def remove_netns(self, name: str) -> None:
        """Remove a container's namespace; the kernel takes its links with it, some milliseconds later."""
        with self.entered():
            namespaces.unmount(f"/run/netns/{name}")
            os.unlink(f"/run/netns/{name}")

    @contextmanager
    def entered(self, netns: str = "") -> Iterator[None]:
        """Move the calling thread inside, to a container's network namespace if one is named, and back.

        Every path in the block is the node's; the working directory is its root. The block must not start a
        thread that outlives it, nor close the node.
        """
        network = self.path(f"/run/netns/{netns}") if netns else f"/proc/{self.pid}/ns/net"
        with _moved({"mnt": f"/proc/{self.pid}/ns/mnt", "net": network}):
            yield

    def cni(
        self,
        verb: str,
        plugin: str,
        conf: Mapping[str, Any],
        *,
        container: str = "c1",
        ifname: str = "eth0",
        netns: str = "",
        args: str = "",
        plugins: str = "",
    ) -> tuple[int, Any]:
        """Call a plugin as a runtime would.

        Args:
            verb: CNI_COMMAND.
            plugin: its name.
            conf: its configuration; `type` is filled in.
            container: CNI_CONTAINERID.
            ifname: CNI_IFNAME.
            netns: CNI_NETNS: a namespace's name, or any path with a slash, or nothing.
            args: CNI_ARGS.
            plugins: the folder to take it, and its delegates, from, if not the node's.

        Returns:
            The exit status and the decoded answer; None when the plugin printed nothing.
        """
        folder = plugins or self.plugins
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": f"/run/netns/{netns}" if netns and "/" not in netns else netns,
            "CNI_ARGS": args,
            "CNI_PATH": folder,
        }
        stdin = json.dumps({"type": plugin, **conf}).encode()
        done = self.run([f"{folder}/{plugin}"], env, stdin, check=False)
        if done.stderr:
            sys.stderr.write(f"{plugin} {verb}: {done.stderr.decode(errors='replace')}\n")
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def add(self, plugin: str, conf: Mapping[str, Any], **how: Any) -> Any:
        """Call ADD, demand success and return the result."""
        status, answer = self.cni("ADD", plugin, conf, **how)
        assert status == 0, answer
        return answer

    def delete(self, plugin: str, conf: Mapping[str, Any], **how: Any) -> None:
        """Call DEL and demand success and silence."""
        assert self.cni("DEL", plugin, conf, **how) == (0, None)

    def ruleset(self) -> str:
        """Return the node's nftables, with handles and counters left out."""
        return self.run(["nft", "--stateless", "list", "ruleset"]).stdout.decode()

    def links(self, netns: str = "") -> dict[str, Any]:
        """Return the interfaces by name, as `ip -json -details address` describes them."""
        listed = self.run(["ip", "-json", "-details", "address"], netns=netns).stdout
        return {link["ifname"]: link for link in json.loads(listed)}


@contextmanager
def _moved(targets: Mapping[str, str]) -> Iterator[None]:
    """Move the calling thread to the namespaces at some paths, and back when the block ends."""
    opened: list[int] = []

    def open_path(path: str) -> int:
        opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return opened[-1]

    try:
        folder = open_path(".")
        kinds = [(kind, flag) for kind, flag in NAMESPACES if kind in targets]
        back = [(open_path(f"/proc/thread-self/ns/{kind}"), flag) for kind, flag in kinds]
        there = [(open_path(targets[kind]), flag) for kind, flag in kinds]
        namespaces.unshare_fs()
        try:
            for fd, flag in there:
                namespaces.setns(fd, flag)
            yield
        finally:
            for fd, flag in back:
                namespaces.setns(fd, flag)
            os.fchdir(folder)
    finally:
        for fd in opened:
            os.close(fd)
