"""Changing what a link is: its master, flags, name and namespace (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import errno

from cni_plugins.kernel.link import (
    IFF_ALLMULTI,
    IFF_PROMISC,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_TXQLEN,
    RTM_NEWLINK,
    header,
)
from cni_plugins.kernel.nlattr import attr, attr_str, attr_u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.netlink import Netlink


def set_master(nl: Netlink, port: Link, master: Link | None) -> None:
    """Make a link a port of a bridge, or a member of a VRF.

    None: it is of nothing any more, as one is that is gone.
    """
    body = header(port.index) + attr_u32(IFLA_MASTER, master.index if master else 0)
    doing = f"put {port.name!r} into {master.kind} {master.name!r}" if master else f"free {port.name!r}"
    nl.tell(RTM_NEWLINK, body, f"failed to {doing}", gone=() if master else (errno.ENODEV,))


def set_promiscuous(nl: Netlink, index: int) -> None:
    """Let a link take in every frame."""
    nl.tell(RTM_NEWLINK, header(index, IFF_PROMISC, IFF_PROMISC), f"failed to make link {index} promiscuous")


def configure(
    nl: Netlink,
    index: int,
    *,
    mac: bytes = b"",
    mtu: int = 0,
    promiscuous: bool | None = None,
    all_multicast: bool | None = None,
    tx_queue_len: int | None = None,
) -> None:
    """Change several properties of a link in one request; what is not given stays.

    Raises:
        OSError: the kernel refused one; those before it are changed.
    """
    flags = change = 0
    for wanted, flag in ((promiscuous, IFF_PROMISC), (all_multicast, IFF_ALLMULTI)):
        if wanted is not None:
            change |= flag
            flags |= flag if wanted else 0
    body = header(index, flags, change)
    if mac:
        body += attr(IFLA_ADDRESS, mac)
    if mtu:
        body += attr_u32(IFLA_MTU, mtu)
    if tx_queue_len is not None:
        body += attr_u32(IFLA_TXQLEN, tx_queue_len)
    nl.tell(RTM_NEWLINK, body, f"failed to change link {index}")


def rename(nl: Netlink, index: int, name: str) -> None:
    """Give a link that is down another name.

    Raises:
        OSError: EEXIST: it is taken.
    """
    nl.tell(
        RTM_NEWLINK,
        header(index) + attr_str(IFLA_IFNAME, name),
        f"failed to rename link {index} {name!r}",
    )


def move(nl: Netlink, index: int, netns: int | None, name: str, alias: str, *, up: bool = False) -> None:
    """Give a link another namespace, a name and a text left on it, in one request.

    Args:
        nl: the namespace it is in.
        index: its index there.
        netns: descriptor of the namespace to move it to; None: it stays, and must be down.
        name: its name there; a %d in it is a number that makes it free.
        alias: the text; empty: none.
        up: bring it up there; else it is down.

    Raises:
        OSError: EEXIST: the name is taken there. The link can have moved nevertheless.
    """
    body = header(index, IFF_UP if up else 0, IFF_UP) + attr_str(IFLA_IFNAME, name)
    if netns is not None:
        body += attr_u32(IFLA_NET_NS_FD, netns)
    body += attr_str(IFLA_IFALIAS, alias) if alias else attr(IFLA_IFALIAS, b"")
    nl.tell(RTM_NEWLINK, body, f"failed to move link {index} and name it {name!r}")
