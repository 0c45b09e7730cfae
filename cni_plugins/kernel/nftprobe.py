"""Whether nf_tables is there at all, and what others have in it: asked without a child process."""

from __future__ import annotations

import errno

from cni_plugins.kernel import iptables
from cni_plugins.kernel.nft import Nft
from cni_plugins.kernel.nftbatch import IPV4, IPV6, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

UNUSABLE = (
    errno.EPROTONOSUPPORT,
    errno.EOPNOTSUPP,
    errno.EAFNOSUPPORT,
    errno.EINVAL,
    errno.ENOENT,
)
"""What the kernel says when nf_tables, or a type of chain, is neither built in nor to be loaded."""


IPTABLES_FILTER = {4: Table(IPV4, "filter"), 6: Table(IPV6, "filter")}
"""The tables in which iptables-nft keeps its table filter, by family."""
_FORWARD = "FORWARD"


def usable() -> bool:
    """Tell whether the kernel serves nf_tables; nothing is changed by asking.

    Raises:
        OSError: the kernel refused for another reason.
    """
    try:
        with Nft() as tables:
            tables.chain_use(IPTABLES_FILTER[4], _FORWARD, served=True)
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        return False
    return True


def holds_chain(table: Table, chain: str) -> bool:
    """Tell whether nf_tables has a chain, such as one that iptables made.

    Raises:
        OSError: the kernel refused.
    """
    try:
        with Nft() as tables:
            return tables.chain_use(table, chain) is not None
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        return False


def iptables_decides() -> bool | None:
    """Tell whether iptables has a say on forwarded packets: rules, or a policy to drop.

    The rules of the older kernel interface, x_tables, cannot be seen here: it counts where it is in use.

    Returns:
        None: the kernel does not serve nf_tables.

    Raises:
        OSError: the kernel refused for another reason.
    """
    if any(iptables.legacy_in_use(family, table.name) for family, table in IPTABLES_FILTER.items()):
        return usable() or None
    try:
        with Nft() as tables:
            return any(tables.decides(table, _FORWARD, served=True) for table in IPTABLES_FILTER.values())
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        return None


def iptables_drops(families: Iterable[int]) -> bool:
    """Tell whether iptables, on nf_tables, drops forwarded packets that none of its rules accepts.

    Args:
        families: 4, 6: which to look at.

    Raises:
        OSError: the kernel refused.
    """
    with Nft() as tables:
        return any(tables.drops(IPTABLES_FILTER[family], _FORWARD) for family in families)


def iptables_lets_nothing_pass() -> bool:
    """Tell whether iptables, on nf_tables, drops all forwarded packets, with no rule that may accept one.

    Raises:
        OSError: the kernel refused.
    """
    with Nft() as tables:
        return all(
            tables.drops(table, _FORWARD) and tables.chain_use(table, _FORWARD) == 0
            for table in IPTABLES_FILTER.values()
        )
