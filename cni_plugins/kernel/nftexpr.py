"""What a rule of nf_tables says: its expressions, each a short function named as in nft(8).

A rule is expressions one after the other: bytes joined with `+`. The first that does not match ends it:

    nftexpr.protocol("tcp") + nftexpr.port("dport", 80) + nftexpr.dnat(address, 8080)

Expressions and registers are those that nft itself makes (`nft --debug=netlink`), so that `nft list ruleset`
shows a rule as its author would have written it. Numbers: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from cni_plugins.kernel.nlattr import (
    attr,
    attr_str,
    attr_u32,
    attribute_map,
    attributes,
    nested,
    required,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix

_LIST_ELEM = 1
_EXPR_NAME = 1
_EXPR_DATA = 2
_DATA_VALUE = 1
_CMP_DATA = 3
_DATA_VERDICT = 2
_LINK_HEADER = 0
_NETWORK_HEADER = 1
_TRANSPORT_HEADER = 2
_META_MARK = 3
_META_IIFNAME = 6
_META_OIFNAME = 7
_META_NFPROTO = 15
_META_L4PROTO = 16
_EQUAL = 0
_NOT_EQUAL = 1
_JUMP = -3
_GOTO = -4
_RETURN = -5
_VERDICT_REGISTER = 0
_FIB_RESULT_ADDRTYPE = 3
_FIB_F_DADDR = 2
_RTN_LOCAL = 2  # linux/rtnetlink.h
_CT_STATE = 0
_ESTABLISHED, _RELATED = 1 << 1, 1 << 2  # NF_CT_STATE_BIT in linux/netfilter/nf_conntrack_common.h
_CT_STATUS = 2
_IPS_DST_NAT = 1 << 5  # linux/netfilter/nf_conntrack_common.h
_NAT_DNAT = 1
_NAT_RANGE_MAP_IPS_AND_PORTS = 3  # linux/netfilter/nf_nat.h
_IFNAMSIZ = 16

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10
_OFFSETS = {("saddr", 4): 12, ("daddr", 4): 16, ("saddr", 16): 8, ("daddr", 16): 24}
_PORT_OFFSETS = {"sport": 0, "dport": 2}


def family(version: int) -> bytes:
    """Return `meta nfproto`: an inet, bridge or netdev table's rule needs it before an address.

    Args:
        version: 4 or 6.
    """
    return _meta(_META_NFPROTO) + _compare(bytes((NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6,)))


def address(field: str, prefix: Prefix, *, equal: bool = True) -> bytes:
    """Return `ip saddr 10.0.0.0/8`, `ip6 daddr != …` and the like; host bits of the prefix are ignored.

    Args:
        field: "saddr" or "daddr".
        prefix: of one host, or of a subnet.
        equal: false for `!=`.
    """
    offset = _OFFSETS[field, len(prefix.address)]
    value = prefix.first()
    size, odd = divmod(prefix.length, 8)
    if prefix.length and not odd:  # whole bytes: nft loads no more than these
        return _payload(_NETWORK_HEADER, offset, size) + _compare(value[:size], equal=equal)
    size = len(value)
    mask = (~((1 << (prefix.bits - prefix.length)) - 1)).to_bytes(size + 1, "big", signed=True)[1:]
    return _payload(_NETWORK_HEADER, offset, size) + _masked(mask) + _compare(value, equal=equal)


def address_among(field: str, version: int, name: str) -> bytes:
    """Return `ip saddr @NAME` and the like: the address is an element of a set.

    Args:
        field: "saddr" or "daddr".
        version: 4 or 6.
        name: the set's, of the same table.
    """
    size = 4 if version == 4 else 16
    return _payload(_NETWORK_HEADER, _OFFSETS[field, size], size) + _lookup(name)


def protocol(name: str) -> bytes:
    """Return `meta l4proto`: needed before a port.

    Args:
        name: a key of PROTOCOLS.
    """
    return _meta(_META_L4PROTO) + _compare(bytes((PROTOCOLS[name],)))


def port(field: str, number: int) -> bytes:
    """Return `dport 80`, which all of PROTOCOLS have in the same place.

    Args:
        field: "sport" or "dport".
        number: 0 to 65535.
    """
    return _payload(_TRANSPORT_HEADER, _PORT_OFFSETS[field], 2) + _compare(number.to_bytes(2, "big"))


def ether_saddr(mac: bytes) -> bytes:
    """Return `ether saddr`, of six bytes; for the bridge family."""
    return _payload(_LINK_HEADER, 6, 6) + _compare(mac)


def iifname(name: str) -> bytes:
    """Return `iifname "NAME"`: the interface a packet came in by, need not exist."""
    return _meta(_META_IIFNAME) + _compare(interface(name))


def oifname(name: str) -> bytes:
    """Return `oifname "NAME"`: the interface a packet leaves by, need not exist."""
    return _meta(_META_OIFNAME) + _compare(interface(name))


def iifname_among(name: str) -> bytes:
    """Return `iifname @NAME`: the interface a packet came in by is an element of a set."""
    return _meta(_META_IIFNAME) + _lookup(name)


def oifname_among(name: str) -> bytes:
    """Return `oifname @NAME`: the interface a packet leaves by is an element of a set."""
    return _meta(_META_OIFNAME) + _lookup(name)


def interfaces_among(name: str) -> bytes:
    """Return `iifname . oifname @NAME`: the pair of both interfaces is an element of a set."""
    return _meta(_META_IIFNAME) + _meta(_META_OIFNAME, 2) + _lookup(name)


def answers() -> bytes:
    """Return `ct state established,related`: the packet belongs to a connection that is known already."""
    return (
        _expression("ct", _be32(2, _CT_STATE), _be32(1, 1))
        + _masked(_u32(_ESTABLISHED | _RELATED))
        + _compare(bytes(4), equal=False)
    )


def mark(value: int) -> bytes:
    """Return `meta mark`, of all 32 bits."""
    return _meta(_META_MARK) + _compare(_u32(value))


def fib_daddr_local() -> bytes:
    """Return `fib daddr type local`: the packet is for one of this machine's addresses."""
    return _expression("fib", _be32(1, 1), _be32(2, _FIB_RESULT_ADDRTYPE), _be32(3, _FIB_F_DADDR)) + _compare(
        _u32(_RTN_LOCAL)
    )


def forwarded() -> bytes:
    """Return `ct status dnat`: the connection's destination was rewritten."""
    return (
        _expression("ct", _be32(2, _CT_STATUS), _be32(1, 1))
        + _masked(_u32(_IPS_DST_NAT))
        + _compare(bytes(4), equal=False)
    )


def dnat(to: bytes, number: int) -> bytes:
    """Return `dnat to ADDRESS:PORT`, in a table of the address's own family or inet."""
    version = NFPROTO_IPV4 if len(to) == 4 else NFPROTO_IPV6
    return (
        _immediate(1, to)
        + _immediate(2, number.to_bytes(2, "big"))
        + _expression(
            "nat",
            _be32(1, _NAT_DNAT),
            _be32(2, version),
            _be32(3, 1),
            _be32(5, 2),
            _be32(7, _NAT_RANGE_MAP_IPS_AND_PORTS),
        )
    )


def masquerade() -> bytes:
    """Return `masquerade`: the source becomes the leaving interface's address."""
    return _expression("masq")


def jump(chain: str) -> bytes:
    """Return `jump CHAIN`."""
    return _verdict(_JUMP, chain)


def goto(chain: str) -> bytes:
    """Return `goto CHAIN`."""
    return _verdict(_GOTO, chain)


def leave() -> bytes:
    """Return `return`: back to the calling chain."""
    return _verdict(_RETURN)


def accept() -> bytes:
    """Return `accept`."""
    return _verdict(1)


def drop() -> bytes:
    """Return `drop`."""
    return _verdict(0)


def compared(expressions: bytes) -> list[bytes]:
    """Return the values that a rule in the kernel compares packets with, in order.

    Addresses, ports, names and so on, as the functions above write them; enough to tell whom a rule is for,
    and the same whichever program, and version of it, made the rule.
    """
    values = []
    for _elem, expression in attributes(expressions):
        parts = attribute_map(expression)
        if text(required(parts, _EXPR_NAME)) == "cmp":
            data = attribute_map(required(attribute_map(required(parts, _EXPR_DATA)), _CMP_DATA))
            values.append(required(data, _DATA_VALUE))
    return values


def interface(name: str) -> bytes:
    """Return an interface's name as rules compare it."""
    return name.encode("utf-8", "surrogateescape").ljust(_IFNAMSIZ, b"\0")


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(_LIST_ELEM, attr_str(_EXPR_NAME, name), nested(_EXPR_DATA, *attributes))


def _be32(kind: int, value: int) -> bytes:
    return attr(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _be32(1, 1), _be32(2, base), _be32(3, offset), _be32(4, length))


def _meta(key: int, register: int = 1) -> bytes:
    return _expression("meta", _be32(2, key), _be32(1, register))


def _lookup(name: str) -> bytes:
    return _expression("lookup", attr_str(1, name), _be32(2, 1))


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    operator = _EQUAL if equal else _NOT_EQUAL
    return _expression("cmp", _be32(1, 1), _be32(2, operator), nested(_CMP_DATA, attr(_DATA_VALUE, value)))


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        _be32(1, 1),
        _be32(2, 1),
        _be32(3, len(mask)),
        nested(4, attr(_DATA_VALUE, mask)),
        nested(5, attr(_DATA_VALUE, bytes(len(mask)))),
    )


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", _be32(1, register), nested(2, attr(_DATA_VALUE, value)))


def _verdict(code: int, chain: str = "") -> bytes:
    attributes = [_be32(1, code)]
    if chain:
        attributes.append(attr_str(2, chain))
    return _expression(
        "immediate", _be32(1, _VERDICT_REGISTER), nested(2, nested(_DATA_VERDICT, *attributes))
    )


def _u32(value: int) -> bytes:
    return attr_u32(0, value)[4:]  # the machine's order
