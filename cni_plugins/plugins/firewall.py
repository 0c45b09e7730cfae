"""firewall: lets a container's traffic through the host's firewall (CNI 1.1.0; a chained plugin).

Owns, in the host's namespace, the container's addresses in one of: the sets of nftables `table inet
cni_plugins_firewall`; rules of the iptables chain CNI-FORWARD; a zone of firewalld. And, in /run/cni/firewall
and firewall-addresses, notes of what was made and whose an address is. What isolates bridges stays, as do
chains: it is not one container's.

An accept in nftables ends one base chain and no other, so that a host whose iptables drops forwarded packets,
as Docker sets it up, can only be helped by iptables: it is the default wherever it has a say.
"""

from __future__ import annotations

from cni_plugins.attach import firewall_nftables
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import firewalld, nftprobe, notes, programs, sysctl
from cni_plugins.lazy import Lazy
from cni_plugins.rules.firewall import (
    FIREWALLD,
    IPTABLES,
    ISOLATED,
    NFTABLES,
    OPEN,
    Note,
    Wanted,
    addresses_of,
    zone_of,
)
from cni_plugins.rules.firewall_nftables import IPTABLES_TABLES
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CheckFailedError, InvalidConfigError, NotAvailableError
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_plugins.address import Prefix
    from cni_plugins.attach import firewall_firewalld, firewall_iptables
    from cni_plugins.kernel import iptables
    from cni_plugins.rules import firewall_iptables as iptables_rules
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result

    Attachment = tuple[str, str, str]
else:
    firewall_firewalld = Lazy("cni_plugins.attach.firewall_firewalld")
    firewall_iptables = Lazy("cni_plugins.attach.firewall_iptables")
    iptables = Lazy("cni_plugins.kernel.iptables")
    iptables_rules = Lazy("cni_plugins.rules.firewall_iptables")

_KIND = "firewall"
_BRIDGE_FILTER = "net/bridge/bridge-nf-call-iptables"


def add(request: Request) -> Result:
    """Let the addresses' traffic through; return the result before this plugin, unchanged."""
    wanted = Wanted(request.conf)
    result = request.prev_result
    if result is None:
        raise InvalidConfigError(
            "missing prevResult from earlier plugin",
            "list firewall after the plugin that makes the interface",
        )
    bridge = wanted.bridge(result)
    attachment = _attachment(request)
    backend = _choose(wanted)
    note = Note(backend, wanted.zone, addresses_of(result))
    if not note.addresses:
        return result
    with notes.lock(_KIND), Undo() as undo:
        older = Note.parse(notes.read(_KIND, attachment))
        if older is not None and older.lines() != note.lines():  # an ADD repeated otherwise, without a DEL
            _remove(attachment, older)
            older = None
        undo.push(_remove, attachment, note)
        _let_through(attachment, note, wanted, bridge, known=older is not None)
    return result


def _let_through(attachment: Attachment, note: Note, wanted: Wanted, bridge: str, *, known: bool) -> None:
    # The notes come first: whenever this process is killed, they tell a DEL what there may be.
    notes.write(_KIND, attachment, note.lines())
    for host in note.addresses:
        known = known or notes.claimed(_KIND, host.address) is not None
        notes.claim(_KIND, host.address, attachment)
    if note.backend == NFTABLES:
        firewall_nftables.add(attachment, note.addresses, wanted, bridge)
        if wanted.backend and firewall_nftables.iptables_drops(_families(note.addresses)):
            skel.warn("firewall: iptables drops what it does not accept itself; nftables cannot change that")
        return
    if note.backend == FIREWALLD:
        firewall_firewalld.add(wanted.zone, note.addresses)
    for family, members in _by_family(note.addresses):
        if note.backend == IPTABLES or bridge:
            own = members if note.backend == IPTABLES else []
            firewall_iptables.add(_frame(note, wanted, bridge), family, own, known=known)


def delete(request: Request) -> None:
    """Remove what lets the addresses' traffic through, whichever backend has it."""
    attachment = _attachment(request)
    previous = addresses_of(request.prev_result) if request.prev_result is not None else []
    with notes.lock(_KIND):
        note = Note.parse(notes.read(_KIND, attachment)) or Note("", zone_of(request.conf), [])
        note.addresses += [host for host in previous if host not in note.addresses]
        _remove(attachment, note)


def check(request: Request) -> None:
    """Compare what the backend has with what ADD makes."""
    wanted = Wanted(request.conf)
    result = request.prev_result
    assert result is not None
    bridge = wanted.bridge(result)
    attachment = _attachment(request)
    addresses = addresses_of(result)
    note = Note.parse(notes.read(_KIND, attachment)) or Note(_choose(wanted), wanted.zone, addresses)
    if note.backend == NFTABLES:
        firewall_nftables.check(attachment, addresses, wanted, bridge)
        families = _families(addresses)
        if not wanted.backend and (
            firewall_nftables.iptables_drops(families) or any(map(firewall_iptables.drops, families))
        ):
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


def status(request: Request) -> None:
    """Tell whether the backend that ADD would take works."""
    wanted = Wanted(request.conf)
    backend = _choose(wanted)
    if backend == FIREWALLD and not firewalld.running():
        raise NotAvailableError(
            "firewalld is not on the system's message bus", "start it, or leave `backend` out"
        )
    if backend == NFTABLES and not nftprobe.usable():
        raise NotAvailableError("nftables cannot be used on this host", "load the kernel's nf_tables")
    by_iptables = backend == IPTABLES or (backend == FIREWALLD and wanted.policy != OPEN)
    if by_iptables and not iptables.available(4, "filter"):
        raise NotAvailableError("iptables cannot be used on this host", "install it")
    if wanted.policy == ISOLATED and not _filters_bridges():
        raise NotAvailableError(
            "packets between ports of a bridge do not pass the packet filter, and cannot be isolated",
            "load br_netfilter and set net.bridge.bridge-nf-call-iptables to 1",
        )


def _filters_bridges() -> bool:
    try:
        return sysctl.read(_BRIDGE_FILTER) == "1"
    except FileNotFoundError:
        return False


def gc(request: Request) -> None:
    """Remove what belongs to attachments that are gone."""
    valid = request.valid_attachments()
    teardown = Teardown()
    with notes.lock(_KIND):
        notes.sweep(_KIND)
        for attachment in notes.attachments(_KIND):
            if attachment[0] == request.network and attachment[1:] not in valid:
                note = Note.parse(notes.read(_KIND, attachment))
                teardown.step(_remove, attachment, note or Note("", "", []))
        if nftprobe.usable():
            teardown.step(firewall_nftables.collect, request.network, valid)
    teardown.finish()


def _attachment(request: Request) -> Attachment:
    return request.network, request.container_id, request.ifname


def _choose(wanted: Wanted) -> str:
    """Return the backend that is asked for, or the one that decides on forwarded packets here."""
    if wanted.backend:
        return wanted.backend
    if firewalld.running():
        return FIREWALLD
    if wanted.own_chain or not nftprobe.usable():
        return IPTABLES
    if firewall_nftables.iptables_decides() and (
        programs.installed("iptables") or firewall_nftables.iptables_drops(tuple(IPTABLES_TABLES))
    ):
        return IPTABLES
    return NFTABLES


def _remove(attachment: Attachment, note: Note) -> None:
    """Remove an attachment's addresses from wherever they are, then what was noted.

    Args:
        attachment: whose.
        note: what is known; with no backend, the reference may have made it, or nobody.
    """
    # What rules of iptables and firewalld are for, they do not say: another's addresses stay.
    own = [host for host in note.addresses if notes.claimed(_KIND, host.address) in (None, attachment)]
    teardown = Teardown()
    if nftprobe.usable():
        teardown.step(firewall_nftables.remove, attachment, note.addresses if note.backend else None)
    for family, members in _by_family(own):
        if _iptables_may_hold(family):
            teardown.step(firewall_iptables.remove, family, members)
    if own and note.backend in ("", FIREWALLD):
        teardown.step(firewall_firewalld.remove, note.zone, own)
    teardown.finish()
    for host in own:
        notes.release(_KIND, host.address, attachment)
    notes.remove(_KIND, attachment)


def _iptables_may_hold(family: int) -> bool:
    """Tell whether it is worth to start iptables: it works on nf_tables, or on x_tables, which tells less."""
    table = IPTABLES_TABLES[family]
    return nftprobe.holds_chain(table, iptables_rules.CHAIN) or iptables.legacy_in_use(family, table.name)


def _frame(note: Note, wanted: Wanted, bridge: str) -> iptables_rules.Frame:
    admin_chain = wanted.admin_chain if note.backend == IPTABLES else ""
    return iptables_rules.Frame(admin_chain, bridge, wanted.policy)


def _by_family(addresses: Sequence[Prefix]) -> Iterator[tuple[int, list[Prefix]]]:
    for family in _families(addresses):
        yield family, [host for host in addresses if host.version == family]


def _families(addresses: Sequence[Prefix]) -> list[int]:
    return sorted({host.version for host in addresses})


PLUGIN = Plugin("firewall", "FirewallConf", add=add, delete=delete, check=check, status=status, gc=gc)
