"""STATUS: whether the kernel and its packet filter have what an ADD will need (CNI 1.1.0, section 2)."""

from __future__ import annotations

from cni_plugins.kernel import iptables, newlink, nftprobe
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.spec.errors import NotAvailableError

NFTABLES = "nftables"


def links(*kinds: str) -> None:
    """Look for drivers of links.

    Args:
        kinds: their names, as "veth".

    Raises:
        NotAvailableError: the kernel lacks one.
    """
    with Netlink() as host:
        for kind in kinds:
            if not newlink.has_kind(host, kind):
                raise NotAvailableError(
                    f"the kernel has no {kind} links", f"modprobe {kind}, or another kernel"
                )


def packet_filter(backend: str | None, key: str) -> None:
    """Look whether the backend of packet filter rules works.

    Args:
        backend: "nftables" or "iptables"; nothing: nftables.
        key: what in the configuration asks for rules.

    Raises:
        NotAvailableError: it does not.
    """
    if backend in (None, "", NFTABLES):
        problem = _nftables_problem()
        if problem:
            raise NotAvailableError(
                f"{key} needs nftables, which cannot be used: {problem}",
                "load the kernel's nf_tables and nft_chain_nat, and let the plugins have CAP_NET_ADMIN",
            )
    elif not iptables.available(4):
        raise NotAvailableError(f"{key} needs iptables, which cannot be used", "install it, or use nftables")


def _nftables_problem() -> str:
    try:
        return "" if nftprobe.usable() else "the kernel does not have it"
    except OSError as error:
        return error.strerror or str(error)
