"""What our codecs read and write, as text: the main module of a program for any architecture.

integration/test_arm64.py builds it as the plugins' executable is built, and compares what it prints with what
the same functions say in the interpreter that runs the tests. Its input is tests/kernel_replies.txt, and then
for each document to decode a line with `json` and the document in hexadecimal.
"""

from __future__ import annotations

import posix

from cni_plugins.address import Prefix
from cni_plugins.kernel import (
    addr,
    bridgeport,
    conntrack,
    link,
    linkset,
    neigh,
    newlink,
    nft,
    nftbatch,
    nftexpr,
    nftset,
    route,
    rule,
    sublink,
    tc,
    tunnel,
)
from cni_plugins.spec import codec
from cni_plugins.spec.errors import DecodeError
from tests.kernel_readers import HEADER, READERS, Script, scripted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni_plugins.kernel.nfnetlink import Netfilter

MAC = bytes((2, 0, 0, 1, 2, 3))
FOUR, SIX = bytes((10, 1, 2, 3)), bytes((0xFD, *range(15)))
_ACK = 4
_ERROR = 2


class Agreeing(Script):
    """Stands in for a socket: every request is acknowledged, and nothing more is said."""

    def __init__(self) -> None:
        super().__init__([])

    def send(self, data: bytes) -> int:
        super().send(data)
        at = 0
        while at + 16 <= len(data):
            length, _kind, flags, sequence, _port = HEADER.unpack_from(data, at)
            if flags & _ACK:
                header = data[at : at + 16]
                self._waiting.append(HEADER.pack(36, _ERROR, 0x100, sequence, 0) + bytes(4) + header)
            at += (length + 3) & ~3
        return len(data)


def _vxlan(nl: Netfilter) -> None:
    for local in (FOUR, SIX):
        parameters = tunnel.Vxlan(4097, local, 8472, 3, gbp=True)
        tunnel.create_vxlan(nl, "flannel.1", parameters, mac=MAC, mtu=1450)


def _routes(nl: Netfilter) -> None:
    for address, gateway in (("10.9.0.0/16", FOUR), ("fd00::/64", SIX), ("0.0.0.0/0", None)):
        made = route.Route(Prefix.parse(address), gateway, 0x01020304)
        route.add(nl, made, onlink=True)
        made.table, made.priority, made.mtu, made.advmss, made.src = 0x10203, 77, 1400, 1300, gateway
        route.add(nl, made, replace=True)
        route.delete(nl, made)


def _neighbours(nl: Netfilter) -> None:
    for dst in (FOUR, SIX):
        for forwarding in (False, True):
            entry = neigh.Neighbour(0x01020304, dst, MAC, forwarding=forwarding)
            neigh.put(nl, entry)
            neigh.delete(nl, entry)


def _batch(nl: Netfilter) -> None:
    tables = nft.Nft.__new__(nft.Nft)
    tables._netlink = nl
    table = nftbatch.Table(nftbatch.INET, "cni", "made by a test")
    pods = nftset.Set(table, "pods", (nftset.IPV4_ADDR,))
    hook = nftbatch.Chain("nat", "of a test", "nat", 1, -100)
    expressions = (
        nftexpr.family(4)
        + nftexpr.address("daddr", Prefix.parse("10.1.2.0/23"))
        + nftexpr.protocol("tcp")
        + nftexpr.port("dport", 8080)
        + nftexpr.mark(0x01020304)
        + nftexpr.dnat(FOUR, 80)
    )
    rules = [nftbatch.Rule("nat", expressions, "net c1"), nftbatch.Rule("nat", nftexpr.masquerade(), "")]
    batch = nftbatch.Batch()
    batch.add_layout(nftbatch.Layout(table, [hook], rules, [pods]))
    nftset.add(batch, pods, FOUR, "net c1")
    nftset.delete(batch, pods, FOUR)
    batch.delete_rule(table, "nat", 0x0102030405060708)
    tables.commit(batch)


def _veth(nl: Netfilter) -> None:
    newlink.create_veth(nl, "veth0", "eth0", 0x01020304, master=7, mtu=1450, mac=MAC)


def _sublinks(nl: Netfilter) -> None:
    for kind, option in (
        ("macvlan", sublink.macvlan_mode("bridge")),
        ("ipvlan", sublink.ipvlan_mode("l3s")),
        ("vlan", sublink.vlan_id(4094)),
    ):
        sublink.create(nl, kind, "eth0", options=[option], parent=3, netns=9, mtu=1400, mac=MAC)


def _addresses(nl: Netfilter) -> None:
    for text in ("10.1.2.3/24", "fd00::3/64"):
        addr.add(nl, 0x01020304, Prefix.parse(text), flags=0x82, scope=253)
        addr.delete(nl, 0x01020304, Prefix.parse(text))


def _tc(nl: Netfilter) -> None:
    tc.add_tbf(nl, 0x01020304, tc.Tbf.shaping(123_456_789, 987_654))
    tc.add_ingress(nl, 2)
    tc.add_redirect(nl, 2, 0x01020304)
    tc.delete_root(nl, 2)
    tc.delete_ingress(nl, 2)


def _vlans(nl: Netfilter) -> None:
    bridgeport.add_vlans(nl, 2, 10, 4094, untagged=True)
    bridgeport.add_vlans(nl, 2, 7, 7, on_bridge=True)
    bridgeport.delete_vlan(nl, 2, 7)
    bridgeport.set_port(nl, 2, hairpin=True, isolated=True)


def _rules(nl: Netfilter) -> None:
    for text in ("10.1.2.3/32", "fd00::3/128"):
        made = rule.Rule(Prefix.parse(text), 0x10203, 77)
        rule.add(nl, made)
        rule.delete(nl, made)


WRITERS: dict[str, Callable[[Netfilter], Any]] = {
    "addresses": _addresses,
    "batch": _batch,
    "bridge": lambda nl: newlink.create_bridge(nl, "cni0", MAC, mtu=1450, vlan_filtering=True),
    "change": lambda nl: linkset.configure(nl, 2, mac=MAC, mtu=9000, promiscuous=True, tx_queue_len=77),
    "flows": lambda nl: conntrack.forget(nl, conntrack.Flows(6, [(5353, SIX)])),
    "ipip": lambda nl: tunnel.create_ipip(nl, "flannel.ipip", FOUR, mtu=1480),
    "move": lambda nl: linkset.move(nl, 2, 9, "eth%d", "net:c1:eth0", up=True),
    "neighbours": _neighbours,
    "routes": _routes,
    "rules": _rules,
    "sublinks": _sublinks,
    "tc": _tc,
    "up": lambda nl: link.set_up(nl, 2, "net:c1:eth0"),
    "veth": _veth,
    "vlans": _vlans,
    "vxlan": _vxlan,
}
"""What writes messages of every kind, with numbers whose bytes differ."""


def described(value: Any) -> str:
    """Return a value as text that depends on nothing but its content."""
    if isinstance(value, dict):
        items = [f"{described(key)}: {described(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, set | frozenset):
        return "set" + str(sorted(described(item) for item in value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join([described(item) for item in value]) + "]"
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return ascii(value)
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    fields = [f"{name}={described(getattr(value, name))}" for name in sorted(names)]
    return f"{type(value).__name__}({', '.join(fields)})"


def asked(function: Callable[[Netfilter], Any], nl: Netfilter, script: Script) -> str:
    """Return what a function says and what it has sent."""
    try:
        answer = described(function(nl))
    except OSError as error:
        answer = f"error {error.errno}"
    return f"{answer}\t{','.join(data.hex() for data in script.sent)}"


def report(text: str) -> str:
    """Return a line for each line of the input, and one for each writer."""
    lines = []
    for line in text.splitlines():
        name, _tab, rest = line.partition("\t")
        if name == "json":
            try:
                value = codec.decode(bytes.fromhex(rest), "it")
                lines.append(f"{described(value)}\t{codec.encode_pretty(value).hex()}")
            except DecodeError as error:
                lines.append(error.msg)
        elif name in READERS:
            nl = scripted(
                [[bytes.fromhex(each) for each in part.split(",") if each] for part in rest.split(";")]
            )
            lines.append(f"{name}\t{asked(READERS[name], nl, nl._socket)}")  # type: ignore[arg-type]
    for name, function in WRITERS.items():
        nl, script = scripted([]), Agreeing()
        nl._socket = script  # type: ignore[assignment]
        lines.append(f"{name}\t{asked(function, nl, script)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Answer standard input on standard output."""
    text = b""
    while part := posix.read(0, 1 << 16):
        text += part
    said = report(text.decode()).encode()
    while said:
        said = said[posix.write(1, said) :]
    posix._exit(0)
