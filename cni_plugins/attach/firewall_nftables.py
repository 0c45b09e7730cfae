"""Forwarded packets by nftables: one look and one transaction for an ADD, however many pods there are."""

from __future__ import annotations

from cni_plugins.address import format_address
from cni_plugins.kernel import nftset
from cni_plugins.kernel.nft import Nft
from cni_plugins.kernel.nftbatch import Batch
from cni_plugins.rules.firewall_nftables import (
    LAYOUT,
    PODS,
    TABLE,
    isolation,
)
from cni_plugins.rules.masquerade import attachment_hash, comment, network_hash
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni_plugins.address import Prefix
    from cni_plugins.rules.firewall import Wanted

    Attachment = tuple[str, str, str]


def add(attachment: Attachment, addresses: Sequence[Prefix], wanted: Wanted, bridge: str) -> None:
    """Add a container's addresses, taking over what is another's, and its bridge's isolation.

    Raises:
        OSError: the kernel refused.
    """
    text = comment(*attachment)
    with Nft() as tables:

        def plan() -> Batch:
            batch = tables.start(LAYOUT)
            for host in addresses:
                pods = PODS[host.version]
                if nftset.comment(tables, pods, host.address) is not None:
                    nftset.delete(batch, pods, host.address)
                nftset.add(batch, pods, host.address, text)
            for among, key in isolation(bridge, wanted.policy):
                nftset.add(batch, among, key)
            return batch

        tables.change(plan)


def remove(attachment: Attachment, addresses: Sequence[Prefix] | None) -> None:
    """Remove a container's addresses, if they are still its own.

    Args:
        attachment: network, container id, interface.
        addresses: which; None: search all.

    Raises:
        OSError: the kernel refused.
    """
    prefix = f"{attachment_hash(*attachment)},"
    _delete(lambda text: text.startswith(prefix), addresses)


def collect(network: str, valid: set[tuple[str, str]]) -> None:
    """Remove the addresses of a network's attachments, except some.

    Raises:
        OSError: the kernel refused.
    """
    spared = {attachment_hash(network, container_id, ifname) for container_id, ifname in valid}
    prefix = f"{network_hash(network)}-"
    for key, text in _delete(
        lambda text: text.startswith(prefix) and text.partition(",")[0] not in spared, None
    ):
        skel.removed(network, f"{format_address(key)} from the firewall ({text.partition(', ')[2]})")


def _delete(mine: Callable[[str], bool], addresses: Sequence[Prefix] | None) -> list[tuple[bytes, str]]:
    """Delete a container's addresses, or search all for them; return those that were there, and whose."""
    gone: list[tuple[bytes, str]] = []
    with Nft() as tables:

        def plan() -> Batch:
            gone.clear()
            batch = Batch()
            for version, pods in PODS.items():
                if addresses is None:
                    found = nftset.elements(tables, pods)
                else:
                    keys = [host.address for host in addresses if host.version == version]
                    found = [(key, nftset.comment(tables, pods, key) or "") for key in keys]
                for key, text in found:
                    if mine(text):
                        nftset.delete(batch, pods, key)
                        gone.append((key, text))
            return batch

        tables.change(plan)
    return gone


def check(attachment: Attachment, addresses: Sequence[Prefix], wanted: Wanted, bridge: str) -> None:
    """Compare the kernel's table with what `add` makes.

    Raises:
        CheckFailedError: something is missing; the message says what.
        OSError: the kernel refused to say.
    """
    prefix = f"{attachment_hash(*attachment)},"
    with Nft() as tables:
        if tables.start(LAYOUT):
            raise CheckFailedError(
                f"the chains of nftables table inet {TABLE.name} are not as firewall makes them",
                "the next ADD with this backend repairs them",
            )
        for host in addresses:
            pods = PODS[host.version]
            if not (nftset.comment(tables, pods, host.address) or "").startswith(prefix):
                raise CheckFailedError(
                    f"{format_address(host.address)} is missing in nftables set {pods.name} of {TABLE.name}"
                )
        for among, key in isolation(bridge, wanted.policy):
            if nftset.comment(tables, among, key) is None:
                raise CheckFailedError(
                    f"bridge {bridge} is missing in nftables set {among.name} of {TABLE.name}"
                )
