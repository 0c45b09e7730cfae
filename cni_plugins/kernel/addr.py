"""Addresses of links (rtnetlink(7), linux/if_addr.h)."""

from __future__ import annotations

import errno
from _struct import Struct

from cni_plugins.address import Prefix
from cni_plugins.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL
from cni_plugins.kernel.nlattr import attr, attr_u32, attribute_map, required, uint, unpack
from cni_plugins.lazy import Lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import time

    from cni_plugins.kernel.netlink import Netlink
else:
    time = Lazy("time")

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4
_IFA_FLAGS = 8
IFA_F_NODAD = 0x02
_IFA_F_DADFAILED = 0x08
_IFA_F_TENTATIVE = 0x40
IFA_F_NOPREFIXROUTE = 0x200
RTMGRP_IPV6_IFADDR = 0x100

AF_INET = 2
AF_INET6 = 10

_IFADDRMSG = Struct("=BBBBi")


def _message(index: int, prefix: Prefix, scope: int = 0) -> bytes:
    family = AF_INET if prefix.version == 4 else AF_INET6
    return (
        _IFADDRMSG.pack(family, prefix.length, 0, scope, index)
        + attr(_IFA_LOCAL, prefix.address)
        + attr(_IFA_ADDRESS, prefix.address)
    )


def flags_for(prefix: Prefix, *, dad: bool = False) -> int:
    """Return the flags with which an address is usable at once, unless duplicates are to be looked for."""
    return 0 if prefix.version == 4 or dad else IFA_F_NODAD


def link_local(mac: bytes) -> Prefix:
    """Return the address that the kernel makes of a link's six-byte MAC address (RFC 4291, appendix A)."""
    return Prefix(b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:], 64)


def add(nl: Netlink, index: int, prefix: Prefix, *, flags: int = 0, scope: int = 0) -> None:
    """Give a link an address.

    Args:
        nl: the link's namespace.
        index: the link.
        prefix: the address and its subnet's length.
        flags: IFA_F_…; with NODAD an IPv6 address is usable at once, with NOPREFIXROUTE the kernel makes no
            route to its subnet.
        scope: RT_SCOPE_… of an IPv4 address: how far away it may be used as a source.

    Raises:
        OSError: EEXIST: the link has it already.
    """
    body = _message(index, prefix, scope)
    if prefix.version == 4 and prefix.length < 31:  # RFC 3021: a /31 has no broadcast address
        body += attr(_IFA_BROADCAST, prefix.last())
    if flags:
        body += attr_u32(_IFA_FLAGS, flags)
    nl.tell(RTM_NEWADDR, body, f"failed to add address {prefix} to link {index}", NLM_F_CREATE | NLM_F_EXCL)


def delete(nl: Netlink, index: int, prefix: Prefix) -> None:
    """Take an address from a link; one that is gone already is no error."""
    nl.tell(
        RTM_DELADDR,
        _message(index, prefix),
        f"failed to delete address {prefix} of link {index}",
        gone=(errno.EADDRNOTAVAIL,),
    )


def of_link(nl: Netlink, index: int, family: int = 0) -> list[Prefix]:
    """Return a link's addresses, in the kernel's order.

    Args:
        nl: the link's namespace.
        index: the link.
        family: AF_INET, AF_INET6, or 0 for both.
    """
    prefixes = []
    what = f"the addresses of link {index}"
    for reply in nl.dump(RTM_GETADDR, _IFADDRMSG.pack(family, 0, 0, 0, index), what):
        _family, length, _flags, _scope, owner = unpack(_IFADDRMSG, reply.body)
        found = attribute_map(reply.body, 8)
        address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if owner == index and address:
            prefixes.append(received(address, length))
    return prefixes


def received(address: bytes, length: int) -> Prefix:
    """Return the prefix that a message of the kernel's names.

    Raises:
        OSError: EBADMSG: no address has so many bytes, or none of that many a prefix of that length.
    """
    if len(address) not in (4, 16) or length > len(address) * 8:
        raise OSError(errno.EBADMSG, f"the kernel's reply has an address {address.hex()}/{length}")
    return Prefix(address, length)


def settle(nl: Netlink, events: Netlink, index: int, seconds: float) -> None:
    """Wait until the kernel has looked for duplicates of a link's IPv6 addresses (RFC 4862, section 5.4).

    Args:
        nl: the link's namespace.
        events: a socket there, in the group RTMGRP_IPV6_IFADDR.
        index: the link.
        seconds: how long to wait.

    Raises:
        OSError: EADDRINUSE: somebody else has one of them; ETIMEDOUT: it is still looking.
    """
    deadline = time.monotonic() + seconds
    while True:
        flags = 0
        for reply in nl.dump(RTM_GETADDR, _IFADDRMSG.pack(AF_INET6, 0, 0, 0, index), "addresses"):
            _family, length, small, _scope, _owner = unpack(_IFADDRMSG, reply.body)
            found = attribute_map(reply.body, 8)
            own = uint(found[_IFA_FLAGS]) if _IFA_FLAGS in found else small
            if own & _IFA_F_DADFAILED:
                address = received(required(found, _IFA_ADDRESS), length)
                raise OSError(errno.EADDRINUSE, f"{address} is in use by somebody else on the network")
            flags |= own
        if not flags & _IFA_F_TENTATIVE:
            return
        events.wait(deadline - time.monotonic())
