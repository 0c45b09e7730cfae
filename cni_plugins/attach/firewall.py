"""Letting a container's addresses through: which backend does it, what is noted, and where it may be undone.

What changes something expects the caller to hold the lock of the notes: iptables' rules and firewalld's
sources do not say whose they are, so that what the notes say must stay true while they change.
"""

from __future__ import annotations

from cni_plugins.attach.undo import Teardown
from cni_plugins.kernel import notes, programs
from cni_plugins.lazy import Lazy
from cni_plugins.rules.firewall import (
    ADMIN_CHAIN,
    FIREWALLD,
    IPTABLES,
    NFTABLES,
    TABLE_NAME,
    Note,
    Wanted,
)
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_plugins.address import Prefix
    from cni_plugins.attach import firewall_firewalld, firewall_iptables, firewall_nftables
    from cni_plugins.kernel import firewalld, iptables, nftbatch, nftprobe
    from cni_plugins.rules import firewall_iptables as iptables_rules

    Attachment = tuple[str, str, str]
else:
    firewall_firewalld = Lazy("cni_plugins.attach.firewall_firewalld")
    firewall_iptables = Lazy("cni_plugins.attach.firewall_iptables")
    firewall_nftables = Lazy("cni_plugins.attach.firewall_nftables")
    firewalld = Lazy("cni_plugins.kernel.firewalld")
    iptables = Lazy("cni_plugins.kernel.iptables")
    nftbatch = Lazy("cni_plugins.kernel.nftbatch")
    nftprobe = Lazy("cni_plugins.kernel.nftprobe")
    iptables_rules = Lazy("cni_plugins.rules.firewall_iptables")

KIND = "firewall"
"""The kind of its notes."""
DROPPED = "iptables drops what it does not accept itself; nftables cannot change that"


def choose(wanted: Wanted) -> str:
    """Return the backend that is asked for, or the one that decides on forwarded packets here.

    Raises:
        OSError: the kernel refused to say.
    """
    if wanted.backend:
        return wanted.backend
    if firewalld.running():
        return FIREWALLD
    decides = None if wanted.own_chain else nftprobe.iptables_decides()
    if decides is None or (
        decides and (programs.installed("iptables") or nftprobe.iptables_drops(nftprobe.IPTABLES_FILTER))
    ):
        return IPTABLES
    return NFTABLES


def iptables_drops(families: Iterable[int] = (4, 6)) -> bool:
    """Tell whether iptables of either kind drops forwarded packets that none of its rules accepts.

    Raises:
        ProgramError: iptables of the older kind is in use, and cannot be asked.
        OSError: the kernel refused to say.
    """
    families = list(families)
    return nftprobe.iptables_drops(families) or any(map(firewall_iptables.drops, families))


def let_through(attachment: Attachment, note: Note, wanted: Wanted, bridge: str, *, known: bool) -> None:
    """Note what is to be made, and make it.

    Args:
        attachment: whose.
        note: the backend and the addresses.
        wanted: what the configuration asks for.
        bridge: the bridge to isolate; empty: none.
        known: the same may be there already.

    Raises:
        ProgramError: iptables or firewalld refused.
        OSError: the kernel refused.
    """
    # The notes come first: whenever this process is killed, they tell a DEL what there may be.
    notes.write(KIND, attachment, note.lines())
    for host in note.addresses:
        known = known or notes.claimed(KIND, host.address) is not None
        notes.claim(KIND, host.address, attachment)
    if note.backend == NFTABLES:
        firewall_nftables.add(attachment, note.addresses, wanted, bridge)
        if wanted.backend and nftprobe.iptables_drops(_families(note.addresses)):
            skel.warn(f"firewall: {DROPPED}")
        return
    if note.backend == FIREWALLD:
        firewall_firewalld.add(wanted.zone, note.addresses)
    for family, members in _by_family(note.addresses):
        if note.backend == IPTABLES or bridge:
            own = members if note.backend == IPTABLES else []
            firewall_iptables.add(_frame(note, wanted, bridge), family, own, known=known)


def compare(attachment: Attachment, addresses: list[Prefix], wanted: Wanted, bridge: str) -> None:
    """Compare what the backend has with what `let_through` makes.

    Raises:
        CheckFailedError: something is missing; the message says what.
        ProgramError: iptables or firewalld cannot be asked.
        OSError: the kernel refused to say.
    """
    note = Note.parse(notes.read(KIND, attachment)) or Note(choose(wanted), wanted.zone, addresses)
    if note.backend == NFTABLES:
        firewall_nftables.check(attachment, addresses, wanted, bridge)
        families = _families(addresses)
        if not wanted.backend and iptables_drops(families):
            raise CheckFailedError(
                "the container was attached when iptables let forwarded packets pass, and now it drops them",
                "attach it anew, or set the policy of iptables' chain FORWARD to ACCEPT",
            )
        return
    if note.backend == FIREWALLD:
        firewall_firewalld.check(note.zone, addresses)
    for family, members in _by_family(addresses):
        if note.backend == IPTABLES or bridge:
            own = members if note.backend == IPTABLES else []
            firewall_iptables.check(_frame(note, wanted, bridge), family, own)


def remove(attachment: Attachment, note: Note) -> None:
    """Remove an attachment's addresses from wherever they are, then what was noted.

    Args:
        attachment: whose.
        note: what is known; with no backend, the reference may have made it, or nobody.

    Raises:
        CNIError: steps that failed; all were gone through, and the notes stay.
    """
    # What rules of iptables and firewalld are for, they do not say: another's addresses stay.
    claims = {host: notes.claimed(KIND, host.address) for host in note.addresses}
    own = [host for host, owner in claims.items() if owner in (None, attachment)]
    teardown = Teardown()
    teardown.step(_remove_elements, attachment, note)
    for family, members in _by_family(own):
        teardown.step(_remove_rules, family, members, once=note.backend == IPTABLES)
    if own and note.backend in ("", FIREWALLD):
        teardown.step(firewall_firewalld.remove, note.zone, own)
    teardown.finish()
    for host in own:
        if claims[host] is not None:
            notes.release(KIND, host.address)
    notes.remove(KIND, attachment)


def _remove_elements(attachment: Attachment, note: Note) -> None:
    if _nftables_may_hold():
        firewall_nftables.remove(attachment, note.addresses if note.backend else None)


def _remove_rules(family: int, addresses: Sequence[Prefix], *, once: bool) -> None:
    if _iptables_may_hold(family):
        firewall_iptables.remove(family, addresses, once=once)


def collect(network: str, valid: set[tuple[str, str]]) -> None:
    """Remove what belongs to a network's attachments, except some.

    Raises:
        CNIError: steps that failed.
    """
    teardown = Teardown()
    teardown.step(notes.sweep, KIND)
    for attachment in notes.attachments(KIND):
        if attachment[0] == network and attachment[1:] not in valid:
            teardown.step(_collect, attachment)
    teardown.step(_collect_unnoted, network, valid)
    teardown.finish()


def _collect(attachment: Attachment) -> None:
    note = Note.parse(notes.read(KIND, attachment))
    remove(attachment, note or Note("", "", []))
    skel.removed(attachment[0], f"what let {' '.join(attachment[1:])} through the firewall")


def _collect_unnoted(network: str, valid: set[tuple[str, str]]) -> None:
    if _nftables_may_hold():
        firewall_nftables.collect(network, valid)


def _nftables_may_hold() -> bool:
    """Tell whether it is worth to load what knows our table."""
    return nftprobe.holds_chain(nftbatch.Table(nftbatch.INET, TABLE_NAME), ADMIN_CHAIN)


def _iptables_may_hold(family: int) -> bool:
    """Tell whether it is worth to start iptables: it works on nf_tables, or on x_tables, which tells less."""
    table = nftprobe.IPTABLES_FILTER[family]
    return nftprobe.holds_chain(table, iptables_rules.CHAIN) or iptables.legacy_in_use(family, table.name)


def _frame(note: Note, wanted: Wanted, bridge: str) -> iptables_rules.Frame:
    admin_chain = wanted.admin_chain if note.backend == IPTABLES else ""
    return iptables_rules.Frame(admin_chain, bridge, wanted.policy)


def _by_family(addresses: Sequence[Prefix]) -> Iterator[tuple[int, list[Prefix]]]:
    for family in _families(addresses):
        yield family, [host for host in addresses if host.version == family]


def _families(addresses: Sequence[Prefix]) -> list[int]:
    return sorted({host.version for host in addresses})
