"""Firewalls of a node: which iptables it has, and firewalld on a message bus of its own."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from integration.checks import OUTSIDE4, V4, V6, files, outside, ping
from integration.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.node import Node

OF = {"ip": "iptables", "ip6": "ip6tables"}
FORWARD = '-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD'
"""The rule by which iptables comes to the pods' rules."""
BACKENDS = ("nftables", "iptables")


def conf(result: Any = None, **keys: Any) -> dict[str, Any]:
    """Return firewall's configuration, chained on a result."""
    given = {"cniVersion": "1.1.0", "name": "net", **keys}
    return given if result is None else {**given, "prevResult": result}


def choose_iptables(node: Node, variant: str) -> None:
    """Let `iptables` and its relatives be the variant "nft" or "legacy"; the host's own stay."""
    for name in ("iptables", "ip6tables"):
        for end in ("", "-restore", "-save"):
            link = node.path(f"/etc/alternatives/{name}{end}")
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink(f"/usr/sbin/{name}-{variant}{end}", link)
    version = node.run(["iptables", "--version"]).stdout.decode()
    assert ("legacy" if variant == "legacy" else "nf_tables") in version


def iptables(node: Node, chain: str = "", family: int = 4) -> list[str]:
    """Return the rules of the table filter, or of a chain in it, as iptables prints them."""
    program = "iptables" if family == 4 else "ip6tables"
    return node.run([program, "-S", *([chain] if chain else [])]).stdout.decode().splitlines()


def drop_forwarded(node: Node) -> None:
    """Set iptables' policy for forwarded packets to DROP, as Docker does."""
    for program in OF.values():
        node.run([program, "-P", "FORWARD", "DROP"])


def elements(node: Node, name: str) -> str:
    """Return what nft says of a set of our table."""
    done = node.run(["nft", "list", "set", "inet", "cni_plugins_firewall", name], check=False)
    return done.stdout.decode().partition("elements = ")[2]


def reachable_outside(node: Node) -> None:
    """Make a host outside that knows the way to the pods, and let the node forward."""
    outside(node)
    for subnet, gateway in ((V4, "192.0.2.1"), (V6, "2001:db8::1")):
        node.exec("outside", "ip", "route", "add", subnet, "via", gateway)


def blocked(node: Node, netns: str, target: str = OUTSIDE4) -> bool:
    """Tell whether no answer comes from a target that would answer at once."""
    return not ping(node, netns, target, wait=0.4)


def admin(name: str = "CNI-ADMIN") -> str:
    """Return the rule that leads to the administrator's chain."""
    return f'-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j {name}'


def accepted(address: str) -> list[str]:
    """Return the rules of an address."""
    return [
        f"-A CNI-FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A CNI-FORWARD -s {address} -j ACCEPT",
    ]


def notes(node: Node) -> set[str]:
    """Return what firewall has noted."""
    return {path for path in files(node) if "/firewall" in path}


def traces(node: Node) -> list[str]:
    """Return what is left of pods in either backend and in the notes."""
    rules = [line for family in (4, 6) for line in iptables(node, family=family) if "ACCEPT" in line]
    return [
        *[line for line in rules if not line.startswith("-P")],
        *[elements(node, name) for name in ("pods4", "pods6") if elements(node, name)],
        *sorted(notes(node)),
    ]


@contextmanager
def firewalld(node: Node) -> Iterator[None]:
    """Run a message bus and Debian's firewalld inside; the block begins when it is on the bus.

    Raises:
        TimeoutError: it did not get there.
    """
    os.makedirs(node.path("/run/dbus"))
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bus = node.popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"], **quiet)
    with _ended(bus):
        until(lambda: os.path.exists(node.path("/run/dbus/system_bus_socket")))
        with _ended(node.popen(["firewalld", "--nofork", "--nopid"], **quiet)):
            until(lambda: node.run(["firewall-cmd", "--state"], check=False).returncode == 0)
            yield


def zone_sources(node: Node, zone: str) -> set[str]:
    """Return the sources of a zone, as firewall-cmd prints them."""
    return set(node.run(["firewall-cmd", f"--zone={zone}", "--list-sources"]).stdout.decode().split())


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()
