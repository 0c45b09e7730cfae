"""The network between machines: subnets with a switch each, and one router between them.

Machines are nodes (integration/node.py), each with an `uplink` in one of the subnets and a default route to
the router. In subnet 1 the router is 198.18.1.1 and 2001:db8:1::1, and the machine with the number 11 is
198.18.1.11 and 2001:db8:1::11; so on for others. 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
"""

from __future__ import annotations

from integration.closing import Closing
from integration.node import PEER, Node

UPLINK = "uplink"


def address(subnet: int, number: int, family: int = 4) -> str:
    """Return a machine's address on the underlay."""
    return f"198.18.{subnet}.{number}" if family == 4 else f"2001:db8:{subnet}::{number}"


class Underlay(Closing):
    """A router and the subnets it joins; a context manager that closes its machines, too.

    Args:
        plugins: the folder of the machines' CNI plugins.

    Attributes:
        router: the node between the subnets.
        machines: every machine by its subnet and number.
    """

    def __init__(self, plugins: str = PEER) -> None:
        self.plugins = plugins
        self.machines: dict[tuple[int, int], Node] = {}
        self.router = Node(plugins)
        self._subnets: set[int] = set()
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.router.run(["sysctl", "-qw", f"{key}=1"])

    def close(self) -> None:
        """End all machines and the router."""
        for node in [*self.machines.values(), self.router]:
            node.close()
        self.machines.clear()

    def join(self, subnet: int, number: int, *, mtu: int = 1500) -> Node:
        """Connect a new machine to a subnet, which is made when it is the first there."""
        self._make_subnet(subnet)
        self.machines[subnet, number] = Node(self.plugins)
        return self.plug(subnet, number, mtu=mtu)

    def plug(self, subnet: int, number: int, *, mtu: int = 1500) -> Node:
        """Give a machine its uplink, with addresses and default routes."""
        node = self.machines[subnet, number]
        port = f"p{subnet}-{number}"
        ends = ["name", port, "type", "veth", "peer", "name", UPLINK, "netns", str(node.pid)]
        self.router.run(["ip", "link", "add", *ends])
        self.router.run(["ip", "link", "set", port, "up", "mtu", str(mtu), "master", f"lan{subnet}"])
        node.run(["ip", "link", "set", UPLINK, "up", "mtu", str(mtu), "addrgenmode", "none"])
        # One that the kernel made could be used only after two seconds of looking for duplicates.
        own = [
            (address(subnet, number), 24),
            (address(subnet, number, 6), 64),
            (f"fe80::{subnet}:{number}", 64),
        ]
        for ip, length in own:
            node.run(
                ["ip", "address", "add", f"{ip}/{length}", "dev", UPLINK, *(["nodad"] if ":" in ip else [])]
            )
        for family in (4, 6):
            node.run(["ip", f"-{family}", "route", "add", "default", "via", address(subnet, 1, family)])
        return node

    def leave(self, subnet: int, number: int) -> None:
        """Switch a machine off: its cable goes at once, its namespaces when the kernel gets to it."""
        self.unplug(subnet, number)
        self.machines.pop((subnet, number)).close()

    def unplug(self, subnet: int, number: int) -> None:
        """Take a machine's uplink away."""
        self.router.run(["ip", "link", "delete", f"p{subnet}-{number}"])

    def _make_subnet(self, subnet: int) -> None:
        if subnet in self._subnets:
            return
        self._subnets.add(subnet)
        lan = f"lan{subnet}"
        # Without an address of its own it has that of a port, another one when that machine leaves.
        self.router.run(
            ["ip", "link", "add", lan, "address", f"02:00:00:00:01:{subnet:02x}", "type", "bridge"]
        )
        self.router.run(["ip", "link", "set", lan, "up", "addrgenmode", "none"])
        for ip, length in ((address(subnet, 1), 24), (address(subnet, 1, 6), 64), (f"fe80::{subnet}:1", 64)):
            self.router.run(
                ["ip", "address", "add", f"{ip}/{length}", "dev", lan, *(["nodad"] if ":" in ip else [])]
            )
