"""STATUS: whether the node has what an ADD will need (CNI 1.1.0, section 2)."""

from __future__ import annotations

from cni_plugins.kernel import files, iptables, newlink, nftprobe
from cni_plugins.kernel import notes as kept
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.spec.errors import NotAvailableError

NFTABLES = "nftables"
_MODULES = {"vlan": "8021q"}
"""Modules that have another name than their kind of link."""


def links(*kinds: str) -> None:
    """Look for drivers of links.

    Args:
        kinds: their names, such as "veth".

    Raises:
        NotAvailableError: the kernel lacks one.
    """
    with Netlink() as host:
        for kind in kinds:
            if not newlink.has_kind(host, kind):
                module = _MODULES.get(kind, kind)
                raise NotAvailableError(
                    f"the kernel has no {kind} links", f"modprobe {module}, or another kernel"
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
    else:
        by_iptables(key, "nat", "use nftables")


def by_iptables(key: str, table: str, other: str) -> None:
    """Look whether iptables works.

    Args:
        key: what in the configuration asks for its rules.
        table: "nat" or "filter".
        other: what else can be done than to set it right.

    Raises:
        NotAvailableError: it does not; with what it says.
    """
    problem = iptables.problem(4, table)
    if problem:
        raise NotAvailableError(
            f"{key} needs iptables, which cannot be used: {problem}",
            f"install it, load the kernel's tables that it works on, or {other}",
        )


def notes(*kinds: str) -> None:
    """Look whether notes can be written.

    Args:
        kinds: of the notes; all are small files in folders of one.

    Raises:
        NotAvailableError: they cannot.
    """
    for kind in kinds:
        folder(f"{kept.FOLDER}/{kind}", "notes of what DEL has to remove")


def folder(path: str, what: str) -> None:
    """Look whether a folder can be written, or made.

    Args:
        path: the folder.
        what: what is kept there.

    Raises:
        NotAvailableError: it cannot: the filesystem is full or read-only.
    """
    place = files.nearest(path)
    try:
        files.try_writing(place)
    except OSError as error:
        raise NotAvailableError(
            f"cannot write in {place}: {error.strerror}",
            f"{what} are kept in {path}: see `df {place}`, `df -i {place}` and `findmnt -T {place}`",
        ) from None


def _nftables_problem() -> str:
    try:
        return "" if nftprobe.usable() else "the kernel does not have it"
    except OSError as error:
        return error.strerror or str(error)
