"""What several tests of plugins ask for: configurations, pods, and looks at a node from outside the plugins.

Every look goes by iproute2, nft, plain files or sockets; none by this suite's own code.
"""

from __future__ import annotations

import json
import os
import re
import socket
from typing import TYPE_CHECKING, Any

from integration import namespaces
from integration.closing import Closing
from integration.node import PEER
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from integration.node import Node

V4, V6 = "10.77.0.0/24", "fd00:77::/64"
GW4, GW6 = "10.77.0.1", "fd00:77::1"
OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8::2"
DEFAULT = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
UPLINK4, UPLINK6 = "192.0.2.1", "2001:db8::1"
CHECK_FAILED = 101
CONFLICT = 105
ALREADY_ATTACHED = 107
_OF_PODS = re.compile(r"10\.77\.|fd00:77:|cni-br-iface-|CNI-DN-|CNI-[0-9a-f]{8}|\bveth")
_SHARED_FILE = re.compile(r"/(lock|last_reserved_ip\.\d+|iptables\.lock|children\.lock)$")


def ipam(*subnets: str, **keys: Any) -> dict[str, Any]:
    """Return host-local's configuration with one range set for each subnet; V4 when none is given."""
    ranges = [[{"subnet": subnet}] for subnet in subnets or (V4,)]
    return {"type": "host-local", "ranges": ranges, **keys}


def bridge(**keys: Any) -> dict[str, Any]:
    """Return a bridge network's configuration: a gateway and IPv4, unless the keys say otherwise."""
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "bridge": "br0",
        "isGateway": True,
        "ipam": ipam(),
        **keys,
    }


def dual_stack(**keys: Any) -> dict[str, Any]:
    """Return a bridge network's configuration with both families and default routes."""
    return bridge(**{"isDefaultGateway": True, "ipam": ipam(V4, V6), **keys})


def ptp(**keys: Any) -> dict[str, Any]:
    """Return a ptp network's configuration: both families and default routes, unless told otherwise."""
    return {"cniVersion": "1.1.0", "name": "net", "ipam": ipam(V4, V6, routes=DEFAULT), **keys}


def static(*given: str, gateway: str = GW4, **keys: Any) -> dict[str, Any]:
    """Return static's configuration with these addresses."""
    listed = [{"address": each, "gateway": gateway} for each in given]
    return {"type": "static", "addresses": listed, **keys}


def folder_of_both(node: Node, ours: str, theirs: str) -> str:
    """Make a folder of two plugins, one of ours and one of the reference's; return it."""
    folder = "/opt/both"
    os.mkdir(node.path(folder))
    for side, plugin in ((node.plugins, ours), (PEER, theirs)):
        os.symlink(f"{side}/{plugin}", node.path(f"{folder}/{plugin}"))
    return folder


def host_end(result: Any) -> str:
    """Return the name of the host's end of a ptp's result."""
    return str(result["interfaces"][0]["name"])


def pods(node: Node, conf: Mapping[str, Any], *names: str, plugin: str = "bridge", **how: Any) -> list[Any]:
    """Make a namespace for each name, attach it to a network and return the results."""
    results = []
    for name in names:
        node.netns(name)
        results.append(node.add(plugin, conf, container=name, netns=name, **how))
    return results


def unmount_netns(node: Node, name: str) -> None:
    """Let a container's namespace go and leave the file that it was mounted on, as a reboot can."""
    with node.entered():
        namespaces.unmount(f"/run/netns/{name}")


def refusal(node: Node, verb: str, plugin: str, conf: Mapping[str, Any], **how: Any) -> Any:
    """Call a plugin that must refuse; return its error object."""
    status, answer = node.cni(verb, plugin, conf, **how)
    assert status == 1, answer
    assert set(answer) <= {"cniVersion", "code", "msg", "details"}
    return answer


def check(node: Node, plugin: str, conf: Mapping[str, Any], result: Any, **how: Any) -> str:
    """Call CHECK; return what it found, or nothing when all is well."""
    how.setdefault("netns", "c1")
    status, answer = node.cni("CHECK", plugin, {**conf, "prevResult": result}, **how)
    if status == 0:
        assert answer is None
        return ""
    assert answer["code"] == CHECK_FAILED, answer
    return str(answer["msg"])


def port_of(result: Any) -> str:
    """Return the name of the host's end of a bridge's result."""
    return str(result["interfaces"][1]["name"])


def address_of(result: Any, number: int = 0) -> str:
    """Return an address of a result, without its length."""
    return str(result["ips"][number]["address"]).partition("/")[0]


def addresses(link: Any) -> set[str]:
    """Return a link's addresses of global scope, from a description by Node.links."""
    return {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] == "global"}


def routes(node: Node, netns: str, family: int = 4) -> set[tuple[str, str]]:
    """Return a container's routes: destination, and gateway or nothing; link-local ones are left out."""
    listed = json.loads(node.exec(netns, "ip", f"-{family}", "-json", "route"))
    pairs = {(route["dst"], route.get("gateway", "")) for route in listed}
    return {pair for pair in pairs if not pair[0].startswith(("fe80:", "ff00:"))}


def reservations(node: Node, network: str = "net") -> set[str]:
    """Return the addresses that host-local holds for a network."""
    folder = node.path(f"/var/lib/cni/networks/{network}")
    if not os.path.isdir(folder):
        return set()
    return {name for name in os.listdir(folder) if not _SHARED_FILE.search(f"/{name}")}


def files(node: Node) -> set[str]:
    """Return the files and links below /run/cni and /var/lib/cni that belong to attachments."""
    found = set()
    for top in ("/run/cni", "/var/lib/cni"):
        for folder, _folders, names in os.walk(node.path(top)):
            inside = folder.removeprefix(node.path(""))
            found |= {f"{inside}/{name}" for name in names}
    return {path for path in found if not _SHARED_FILE.search(path)}


def pod_rules(node: Node) -> list[str]:
    """Return the lines of the node's nftables, and so of iptables, that are about pods of V4 and V6."""
    return [line.strip() for line in node.ruleset().splitlines() if _OF_PODS.search(line)]


def leftovers(node: Node, *containers: str) -> list[str]:
    """Return all that attachments have left: veth pairs, files, rules, links in these containers."""
    links = [name for name, link in node.links().items() if _is_veth(link)]
    inside = [f"{each}:{name}" for each in containers for name in node.links(each) if name != "lo"]
    return [*links, *inside, *sorted(files(node)), *pod_rules(node)]


def _is_veth(link: Any) -> bool:
    return bool(link.get("linkinfo", {}).get("info_kind") == "veth" and link["ifname"] != "uplink")


def outside(node: Node) -> None:
    """Make the namespace `outside`: a host beyond the node's uplink that knows no pod's subnet."""
    node.netns("outside")
    node.run(["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "outside"])
    ends = (("uplink", "", UPLINK4, UPLINK6, "fe80::1"), ("eth0", "outside", OUTSIDE4, OUTSIDE6, "fe80::2"))
    for name, netns, *_addresses in ends:
        node.run(["ip", "link", "set", name, "up", "addrgenmode", "none"], netns=netns)
    for name, netns, v4, v6, local in ends:
        node.run(["ip", "address", "add", f"{v4}/24", "dev", name], netns=netns)
        # Neighbours of forwarded packets are asked for from the link-local address. One of the kernel's own
        # making could not be used for a second.
        for address in (v6, local):
            node.run(["ip", "address", "add", f"{address}/64", "dev", name, "nodad"], netns=netns)


def ping(node: Node, netns: str, target: str, *options: str, wait: float = 20) -> bool:
    """Send an echo request a second from a container until one is answered; tell whether that came to pass.

    Args:
        node: the node.
        netns: the container.
        target: whom it pings.
        options: of ping(8).
        wait: seconds that all of it may take. Below one, there is one request.
    """
    limit = f"-w{wait:.0f}" if wait >= 1 else f"-W{wait}"
    command = ["ping", "-n", "-q", "-c1", limit, *options, target]
    return node.run(command, netns=netns, check=False).returncode == 0


def source_seen(node: Node, sender: str, receiver: str, target: str, port: int = 4000) -> str:
    """Send a datagram to a receiver's address; return the source it has there, or nothing if it is lost.

    Args:
        node: the node.
        sender: the container that sends; empty: the node itself.
        receiver: the container that receives.
        target: the address that is sent to.
        port: the port that is sent to and listened on.
    """
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with node.entered(receiver):
        server = socket.socket(family, socket.SOCK_DGRAM)
    with server:
        server.settimeout(PATIENCE)
        server.bind(("", port))
        with node.entered(sender), socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"?", (target, port))
        try:
            source: str = server.recvfrom(16)[1][0]
        except TimeoutError:
            return ""
        return source


ETHERTYPE = 0x88B5
"""IEEE 802's EtherType for local experiments: nothing but a test sends it."""
BROADCAST = b"\xff" * 6


def mac_bytes(text: str) -> bytes:
    """Return the bytes of a MAC address."""
    return bytes.fromhex(text.replace(":", ""))


class Wire(Closing):
    """A packet socket on an interface: sends whole frames and sees what comes in; a context manager."""

    def __init__(self, node: Node, netns: str, ifname: str = "eth0", ethertype: int = ETHERTYPE) -> None:
        with node.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
        self._socket.bind((ifname, ethertype))
        self.ethertype = ethertype

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, payload: bytes, *, source: bytes, target: bytes = BROADCAST) -> None:
        """Send a frame."""
        self._socket.send(target + source + self.ethertype.to_bytes(2, "big") + payload.ljust(46, b"\0"))

    def receive(self, timeout: float = PATIENCE) -> bytes:
        """Return the next frame that came in; empty when none does in so many seconds."""
        self._socket.settimeout(timeout)
        while True:
            try:
                frame, (_ifname, _ethertype, kind, *_rest) = self._socket.recvfrom(2048)
            except TimeoutError:
                return b""
            if kind != socket.PACKET_OUTGOING:
                return frame

    def payload(self, timeout: float = PATIENCE) -> bytes:
        """Return the next frame's payload, without padding."""
        return self.receive(timeout)[14:].rstrip(b"\0")

    def frames(self, quiet: float = PATIENCE) -> Iterable[bytes]:
        """Yield what comes in, until nothing has come for so many seconds."""
        while frame := self.receive(quiet):
            yield frame
