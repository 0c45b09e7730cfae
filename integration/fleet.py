"""Machines with a daemon each, on an underlay with a real etcd: what the daemon is tested and shown on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from integration.closing import Closing
from integration.etcd import CONFIG, SUBNETS, Etcd
from integration.flannel import SUBNET_FILE
from integration.node import PATH, PEER
from integration.suite import ROOT
from integration.underlay import Underlay, address
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from integration.node import Node

NETWORK = "10.244.0.0/16"
VXLAN = {"Network": NETWORK, "Backend": {"Type": "vxlan", "DirectRouting": True}}
HEALTH = 8081
ETCD = "198.18.0.1"
TLS = "/run/tls"
_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


def program() -> list[str]:
    """Return the daemon's command: the frozen one that FLANNELD names, or the source tree's."""
    given = os.environ.get("FLANNELD")
    return [os.path.abspath(given)] if given else [sys.executable, "-m", "flanneld"]


class Member:
    """A machine with a daemon and pods.

    Attributes:
        node: its namespaces.
        name: what it is called in a cluster.
        address: where it is on the underlay.
        daemon: the process, while it runs.
        pods: their first addresses by name: IPv4 but where there is none.
    """

    def __init__(self, node: Node, subnet: int, number: int) -> None:
        self.node = node
        self.subnet = subnet
        self.name = f"node-{number}"
        self._number = number
        self.address = address(subnet, number)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.pods: dict[str, str] = {}
        self._pods: dict[str, dict[int, str]] = {}
        for key in _FORWARDING:
            node.run(["sysctl", "-qw", f"{key}=1"])

    def at(self, family: int) -> str:
        """Return where it is on the underlay, in family 4 or 6."""
        return address(self.subnet, self._number, family)

    def pod_at(self, name: str, family: int) -> str:
        """Return a pod's address of family 4 or 6."""
        return self._pods[name][family]

    def start(self, flags: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Start the daemon, and wait until the paths are up."""
        self.launch(flags, variables)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the paths are up."""
        wait(lambda: "are up" in self.get("/readyz") or self.daemon_ended())
        assert not self.daemon_ended(), "the daemon ended; SHOW_LOGS=1 shows what it said"

    def launch(self, flags: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Start the daemon."""
        self.daemon = self.node.popen(
            [*program(), f"--healthz-port={HEALTH}", "--healthz-ip=127.0.0.1", *flags],
            env={"PATH": PATH, "PYTHONPATH": ROOT, **(variables or {})},
            stderr=subprocess.DEVNULL if not os.environ.get("SHOW_LOGS") else None,
        )

    def daemon_ended(self) -> bool:
        """Tell whether the daemon is no more."""
        return self.daemon is None or self.daemon.poll() is not None

    def stop(self) -> int:
        """End the daemon as systemd or a kubelet would; return its exit status."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(PATIENCE)

    def subnet_env(self) -> dict[str, str]:
        """Return what subnet.env says."""
        with open(self.node.path(SUBNET_FILE), encoding="ascii") as file:
            return dict(line.rstrip("\n").split("=", 1) for line in file)

    def add_pod(self, name: str, **keys: Any) -> str:
        """Attach a pod with the flannel plugin; return its first address."""
        self.node.netns(name)
        self.node.exec(name, "ip", "link", "set", "lo", "up")
        conf = {"cniVersion": "1.0.0", "name": "cbr0", "delegate": {"isDefaultGateway": True}, **keys}
        result = self.node.add("flannel", conf, container=name, netns=name)
        found = [item["address"].partition("/")[0] for item in result["ips"]]
        self._pods[name] = {6 if ":" in ip else 4: ip for ip in found}
        self.pods[name] = found[0]
        return self.pods[name]

    def get(self, path: str) -> str:
        """Return what the daemon's health server answers; nothing when it is not well, or not there."""
        with self.node.entered():
            connection = HTTPConnection("127.0.0.1", HEALTH, timeout=PATIENCE)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                said = answer.read().decode()
            except (HTTPException, OSError):
                return ""
            finally:
                connection.close()
        return said if answer.status == HTTPStatus.OK else ""

    def ip(self, *words: str) -> Any:
        """Return what ip(8) lists, decoded."""
        return json.loads(self.node.run(["ip", "-json", *words]).stdout or b"[]")

    def forwarding(self, device: str = "flannel.1") -> Any:
        """Return a device's FDB, decoded."""
        return json.loads(self.node.run(["bridge", "-json", "fdb", "show", "dev", device]).stdout)


class Fleet(Closing):
    """Members on an underlay, and etcd on the router; a context manager.

    Args:
        plugins: the folder of the CNI plugins.
        config: net-conf.json.
        flags: of every daemon.
        tls: files of etcd's, by their names in /run/tls of the router: it speaks https then.
        options: further words of etcd's command line.
    """

    def __init__(
        self,
        plugins: str = PEER,
        config: Mapping[str, Any] = VXLAN,
        flags: Sequence[str] = ("--ip-masq",),
        *,
        tls: Mapping[str, bytes] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.members: dict[str, Member] = {}
        self.flags = list(flags)
        self.underlay = Underlay(plugins)
        try:
            self.underlay.router.run(["ip", "address", "add", f"{ETCD}/32", "dev", "lo"])
            write_files(self.underlay.router, tls or {})
            url = f"{'https' if tls else 'http'}://{ETCD}:2379"
            self.etcd = Etcd(self.underlay.router, url, options=options)
            self.etcd.put(CONFIG, json.dumps(config))
        except BaseException:
            self.underlay.close()
            raise

    def close(self) -> None:
        """End all machines."""
        self.underlay.close()

    def join(self, subnet: int, number: int, **options: Any) -> Member:
        """Switch a machine on, without its daemon."""
        member = Member(self.underlay.join(subnet, number, **options), subnet, number)
        self.members[member.name] = member
        return member

    @contextmanager
    def gathered(
        self, config: Mapping[str, Any], places: Sequence[tuple[int, int]]
    ) -> Iterator[list[Member]]:
        """Machines with daemons under a configuration of their own, which are forgotten after the block."""
        self.etcd.put(CONFIG, json.dumps(config))
        try:
            members = [self.join(*place) for place in places]
            self.start(*members)
            yield members
        finally:
            for place in list(self.underlay.machines):
                self.underlay.leave(*place)
            self.members.clear()
            self.etcd.ctl("del", "--prefix", SUBNETS)

    def start(self, *members: Member) -> None:
        """Start daemons, all or these, at the same time."""
        started = members or tuple(self.members.values())
        for member in started:
            member.launch([f"--etcd-endpoints={self.etcd.url}", *self.flags])
        for member in started:
            member.wait_until_ready()

    def populate(self, *places: tuple[int, int]) -> None:
        """Let machines join, start their daemons, and make a pod on each, of the machine's name.

        Args:
            places: the machines, as subnet and number.
        """
        for place in places:
            self.join(*place)
        self.start()
        for name, member in self.members.items():
            member.add_pod(name)

    def leave(self, name: str, *, forget: bool = True) -> None:
        """Switch a machine off and, as an administrator would, delete its lease."""
        member = self.members.pop(name)
        subnet = member.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0-")
        for place, node in list(self.underlay.machines.items()):
            if node is member.node:
                self.underlay.leave(*place)
        if forget:
            self.etcd.ctl("del", SUBNETS + subnet)


def write_files(node: Node, files: Mapping[str, bytes]) -> None:
    """Put files into a node's /run/tls."""
    for name, content in files.items():
        os.makedirs(node.path(TLS), exist_ok=True)
        with open(node.path(f"{TLS}/{name}"), "wb") as file:
            file.write(content)


def wait(ready: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait until something is so; return how many seconds it took.

    Raises:
        AssertionError: it did not come to pass.
    """
    began = time.monotonic()
    while not ready():
        passed = time.monotonic() - began
        assert passed < seconds, f"it did not come to pass in {seconds} seconds"
        time.sleep(max(0.02, passed / 50))  # to look costs time, too, where all is slow
    return time.monotonic() - began
