"""Whether nf_tables is there at all, and what others have in it: asked without a child process."""

from __future__ import annotations

import errno

from cni_plugins.kernel.nft import IPV4, Nft, Table

UNUSABLE = (
    errno.EPROTONOSUPPORT,
    errno.EOPNOTSUPP,
    errno.EAFNOSUPPORT,
    errno.EINVAL,
    errno.ENOENT,
)
"""What the kernel says when nf_tables, or a type of chain, is neither built in nor to be loaded."""


def usable() -> bool:
    """Tell whether the kernel serves nf_tables; nothing is changed by asking.

    Raises:
        OSError: the kernel refused for another reason.
    """
    return _ask(Table(IPV4, "filter"), "FORWARD") is not None


def holds_chain(table: Table, chain: str) -> bool:
    """Tell whether nf_tables has a chain, such as one that iptables made.

    Raises:
        OSError: the kernel refused.
    """
    return bool(_ask(table, chain))


def _ask(table: Table, chain: str) -> bool | None:
    try:
        with Nft() as tables:
            return tables.chain_use(table, chain) is not None
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        return None
