"""The network lists that are put to the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cni_plugins.multicall import MODULES
from integration import dhcp
from integration.checks import DEFAULT, V4, V6, ipam
from integration.flannel import DUAL, write_subnet_env
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node

NAME = "net"
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
]
OTHER_PORTS = [{**port, "hostPort": 1 + int(str(port["hostPort"]))} for port in PORTS]


class Network(NamedTuple):
    """A list and what it stands on.

    Attributes:
        name: what the table calls it.
        plugins: the list's plugins.
        ports: whether the runtime forwards ports.
    """

    name: str
    plugins: list[dict[str, Any]]
    ports: bool = False

    @property
    def paired(self) -> bool:
        """Whether the container's interface has another end on the host."""
        return self.plugins[0]["type"] in ("bridge", "flannel", "ptp")

    def config(self, position: int, ports: list[dict[str, Any]] | None) -> dict[str, Any]:
        """Return what a plugin of the list gets on standard input, without prevResult."""
        config = {"cniVersion": "1.1.0", "name": NAME, **self.plugins[position]}
        if self.ports and ports is not None:
            config["runtimeConfig"] = {"portMappings": ports}
        return config

    def prepare(self, node: Node) -> None:
        """Make what a list finds on a node: the flannel daemon's file, an uplink, a DHCP server."""
        kinds = {plugin["type"] for plugin in self.plugins}
        if any(plugin.get("ipam", {}).get("type") == "dhcp" for plugin in self.plugins):
            _serve_addresses(node)
            return
        if "flannel" in kinds:
            write_subnet_env(node, DUAL)
        if kinds & {"macvlan", "ipvlan"}:
            node.netns("outside")
            node.run(
                ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "outside"]
            )
            node.run(["ip", "link", "set", "uplink", "up"])
            node.run(["ip", "link", "set", "eth0", "up"], netns="outside")
            # The kernel gives it one up to a second after it has a carrier: no attachment does.
            link_local = ["ip", "-6", "-oneline", "address", "show", "dev", "uplink", "scope", "link"]
            until(lambda: node.run(link_local).stdout)


def _serve_addresses(node: Node) -> None:
    """Start a DHCP server on the other end of the link `lan`, and the daemon of the node's plugins.

    The server's file of leases is below /run, so that a lease that nobody gave back is seen. None has an end:
    what is there changes by the plugins alone.
    """
    dhcp.lan(node, bridged=False)
    # By this the daemon releases the lease of an interface that is gone.
    node.run(["ip", "address", "add", "10.77.0.2/24", "dev", "lan"])
    dhcp.start_dnsmasq(node, lease="infinite", said="/dev/null")
    dhcp.start_daemon(node, said="/dev/null")


_IPAM = ipam(V4, V6, routes=DEFAULT)
_RATES = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
_TUNING = {"type": "tuning", "mtu": 1400, "promisc": True, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}

_ALL = [
    Network(
        "flannel, portmap",
        [
            {"type": "flannel", "delegate": {"isDefaultGateway": True, "hairpinMode": True}},
            {"type": "portmap", "snat": True},
        ],
        ports=True,
    ),
    Network(
        "bridge, firewall, bandwidth, tuning",
        [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "macspoofchk": True,
                "ipam": _IPAM,
            },
            {"type": "firewall"},
            {"type": "bandwidth", **_RATES},
            _TUNING,
        ],
    ),
    Network("ptp with ipMasq", [{"type": "ptp", "ipMasq": True, "ipam": _IPAM}]),
    Network(
        "bridge, portmap by iptables",
        [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "ipMasqBackend": "iptables",
                "ipam": _IPAM,
            },
            {"type": "portmap", "snat": True, "backend": "iptables"},
        ],
        ports=True,
    ),
    Network("macvlan", [{"type": "macvlan", "master": "uplink", "ipam": _IPAM}]),
    Network("dhcp by macvlan", [{"type": "macvlan", "master": "lan", "ipam": {"type": "dhcp"}}]),
]


def networks(only: str = "") -> list[Network]:
    """Return the lists, without plugins that the suite does not have; those whose name has some words."""
    found = []
    for network in _ALL:
        plugins = [plugin for plugin in network.plugins if plugin["type"] in MODULES]
        if plugins and only in network.name:
            found.append(network._replace(plugins=plugins))
    return found
