"""A netfilter socket's end: it does not wait for the kernel, and the kernel does not forget it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_plugins.kernel import nftexpr
from cni_plugins.kernel.nfnetlink import NETLINK_NETFILTER
from cni_plugins.kernel.nft import Nft
from cni_plugins.kernel.nftbatch import IPV4, Batch, Chain, Rule, Table
from integration.waiting import until

if TYPE_CHECKING:
    from integration.node import Node

TABLE = Table(IPV4, "short-lived")


def sockets() -> int:
    """Count this namespace's netfilter sockets; the kernel has some of its own."""
    with open("/proc/thread-self/net/netlink", encoding="ascii") as file:
        return sum(line.split()[1] == str(NETLINK_NETFILTER) for line in file.readlines()[1:])


@pytest.mark.kernel
def test_sockets_go_after_a_deletion(node: Node) -> None:
    node.ruleset()  # loads the modules, and with them comes the kernel's own socket
    with node.entered():
        before = sockets()
        for _round in range(20):
            with Nft() as tables:
                batch = Batch()
                batch.add_table(TABLE)
                batch.add_chain(TABLE, Chain("chain"))
                batch.add_rule(TABLE, Rule("chain", nftexpr.accept()))
                handle = tables.commit(batch)[-1]
                batch = Batch()
                batch.delete_rule(TABLE, "chain", handle)
                tables.commit(batch)
        until(lambda: sockets() <= before)  # the kernel needs some hundredths of a second
