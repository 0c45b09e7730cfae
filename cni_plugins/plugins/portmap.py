"""portmap: ports of the host forwarded to a container (CNI 1.1.0; chained after an interface plugin).

It owns, on the host, the container's rules in the nftables tables `ip cni_hostport` and `ip6 cni_hostport`,
or in iptables chains named after it; `route_localnet` of the interface that leads to it; and a note of what
was made, in /run/cni/portmap. Without mappings none of this is touched.

DEL and GC remove what either backend made, ours or the reference's, with one exception: GC leaves the
reference's nftables rules alone, since these do not say which network they belong to.
"""

from __future__ import annotations

from cni_plugins.attach import hostports_nftables
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import link, nftprobe, notes, route, sysctl
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.nfnetlink import Netfilter
from cni_plugins.kernel.nftbatch import IPV4, IPV6, Table
from cni_plugins.lazy import Lazy
from cni_plugins.rules.portmap import (
    IPTABLES,
    NFTABLES,
    backend,
    container_addresses,
    mappings,
    valid_mappings,
)
from cni_plugins.rules.portmap_nftables import comment
from cni_plugins.rules.portmap_note import Note, udp_targets
from cni_plugins.spec import skel
from cni_plugins.spec.errors import InvalidConfigError, NotAvailableError
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix
    from cni_plugins.attach import hostports_iptables, ready
    from cni_plugins.kernel import conntrack, iptables
    from cni_plugins.rules import portmap_iptables
    from cni_plugins.rules.portmap import Mapping
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result

    Attachment = tuple[str, str, str]
else:
    ready = Lazy("cni_plugins.attach.ready")
    hostports_iptables = Lazy("cni_plugins.attach.hostports_iptables")
    conntrack = Lazy("cni_plugins.kernel.conntrack")
    iptables = Lazy("cni_plugins.kernel.iptables")
    portmap_iptables = Lazy("cni_plugins.rules.portmap_iptables")

_KIND = "portmap"
_FAMILIES = (4, 6)
_NFPROTO = {4: IPV4, 6: IPV6}


def add(request: Request) -> Result:
    """Forward the ports; return the result before this plugin, unchanged."""
    if request.prev_result is None:
        raise InvalidConfigError(
            "must be called as chained plugin", "list portmap after the plugin that makes the interface"
        )
    chosen, wanted = backend(request.conf), mappings(request.conf)
    if not wanted:
        return request.prev_result
    addresses = container_addresses(request.prev_result, request.ifname)
    attachment = _attachment(request)
    note = Note("")
    note.addresses = {version: prefix.address for version, prefix in addresses.items()}
    note.udp = udp_targets(wanted)
    # A DEL that is told of no mappings looks for rules only where there is a note.
    with notes.begin(_KIND, attachment, note.lines()) as begun, Undo() as undo:
        if begun.older is not None:  # an ADD repeated without a DEL
            _remove(attachment, Note.parse(begun.older))
            notes.write(_KIND, attachment, note.lines())
        undo.forget(notes.remove, _KIND, attachment)
        undo.push(_remove, attachment, note)
        _forward(request, note, chosen, wanted, addresses)
        begun.fill(note.lines())
        if request.conf.snat and 4 in addresses:
            _let_localhost_out(addresses[4].address)
    _forget_flows(note.udp, note.addresses, everywhere=True)
    return request.prev_result


def _forward(
    request: Request, note: Note, chosen: str, wanted: list[Mapping], addresses: dict[int, Prefix]
) -> None:
    """Add the rules, by iptables when that is chosen, or when either will do and nftables does not work."""
    attachment = _attachment(request)
    made_by = chosen or NFTABLES
    if made_by == NFTABLES:
        try:
            hostports_nftables.forward(request.conf, request.container_id, wanted, note.addresses, note)
        except OSError as error:
            fallback = not chosen and error.errno in nftprobe.UNUSABLE and iptables.available(4)
            if not fallback:
                raise
            made_by = IPTABLES
    if made_by == IPTABLES:
        for version, address in addresses.items():
            if any(version in mapping.families for mapping in wanted):
                hostports_iptables.forward(request.conf, attachment[:2], wanted, address)
    # Not before: when one of them fails, what it has made need not be known, and undoing searches.
    note.backend = made_by


def delete(request: Request) -> None:
    """Remove the rules, and the UDP flows that still go to the container."""
    attachment = _attachment(request)
    lines = notes.read(_KIND, attachment)
    note = Note.parse(lines)
    given = valid_mappings(request.conf)
    if note is None and lines is None and not given:
        return
    teardown = Teardown()
    teardown.step(_remove, attachment, note)
    if note is not None:
        _forget_flows(note.udp, note.addresses)
    else:
        previous = request.prev_result
        found = container_addresses(previous, request.ifname) if previous else {}
        addresses = {version: prefix.address for version, prefix in found.items()}
        _forget_flows(udp_targets(given), addresses, everywhere=not addresses)
    teardown.finish()
    notes.remove(_KIND, attachment)


def check(request: Request) -> None:
    """Compare each mapping's rules with the kernel's."""
    chosen, wanted = backend(request.conf), mappings(request.conf)
    if not wanted or request.prev_result is None:
        return
    addresses = container_addresses(request.prev_result, request.ifname)
    attachment = _attachment(request)
    note = Note.parse(notes.read(_KIND, attachment))
    if note is not None:
        by_iptables = note.backend == IPTABLES
    else:  # the reference made them
        by_iptables = chosen == IPTABLES or not hostports_nftables.has_rules(request.container_id)
    if not by_iptables:
        plain = {version: prefix.address for version, prefix in addresses.items()}
        hostports_nftables.check(request.conf, request.container_id, wanted, plain)
        return
    for version, address in addresses.items():
        if any(version in mapping.families for mapping in wanted):
            hostports_iptables.check(request.conf, attachment[:2], wanted, address)


def status(request: Request) -> None:
    """Tell whether the backend that ADD would take works, and notes can be written."""
    ready.notes(_KIND)
    chosen = backend(request.conf)
    if chosen != IPTABLES and nftprobe.usable():
        return
    problem = "" if chosen == NFTABLES else iptables.problem(4)
    if chosen != NFTABLES and not problem:
        return
    said = f"{chosen} cannot be used on this host" if chosen else "neither nftables nor iptables can be used"
    raise NotAvailableError(
        f"{said}: {problem}" if problem else said,
        "load the kernel's nf_tables and nft_chain_nat, or install iptables",
    )


def gc(request: Request) -> None:
    """Remove what belongs to attachments that are gone."""
    valid = request.valid_attachments()
    teardown = Teardown()
    for attachment in notes.attachments(_KIND):
        if attachment[0] == request.network and attachment[1:] not in valid:
            teardown.step(_collect, attachment)
    spared = {container_id for container_id, _ifname in valid}
    for version in _FAMILIES:
        teardown.step(_collect_chains, request.network, spared, version)
    teardown.finish()


def _collect(attachment: Attachment) -> None:
    note = Note.parse(notes.read(_KIND, attachment))
    _remove(attachment, note)
    if note is not None:
        _forget_flows(note.udp, note.addresses)
    notes.remove(_KIND, attachment)
    skel.removed(attachment[0], f"host ports of {' '.join(attachment[1:])}")


def _attachment(request: Request) -> Attachment:
    return request.network, request.container_id, request.ifname


def _remove(attachment: Attachment, note: Note | None) -> None:
    """Remove an attachment's rules: what the note says, or without one whatever either backend has.

    Raises:
        CNIError: steps that failed; all were gone through.
    """
    if note is not None and not note.backend:
        note = None
    teardown = Teardown()
    if note is None or note.backend == NFTABLES:
        teardown.step(_remove_rules, attachment, note)
    if note is None or note.backend == IPTABLES:
        for version in _FAMILIES:
            teardown.step(_remove_chain, attachment[:2], version)
    teardown.finish()


def _remove_rules(attachment: Attachment, note: Note | None) -> None:
    if note is not None or nftprobe.usable():
        noted = note.rules if note is not None else None
        hostports_nftables.remove(attachment[1], noted, lambda: _rules_of_others(attachment))


def _remove_chain(container: tuple[str, str], version: int) -> None:
    if _iptables_may_hold(version, portmap_iptables.container_chain(*container)):
        hostports_iptables.remove(container, version)


def _collect_chains(network: str, spared: set[str], version: int) -> None:
    if _iptables_may_hold(version, portmap_iptables.DNAT_CHAIN):
        hostports_iptables.collect(network, spared, version)


def _rules_of_others(attachment: Attachment) -> list[tuple[int, str, int]]:
    """Return the noted rules of other attachments that have the same comment.

    They are the same container's, or of one whose id begins alike for as long as a comment is.
    """
    found = []
    for other in notes.attachments(_KIND):
        if comment(other[1]) == comment(attachment[1]) and other != attachment:
            note = Note.parse(notes.read(_KIND, other))
            found += note.rules if note else []
    return found


def _iptables_may_hold(version: int, chain: str) -> bool:
    """Tell whether it is worth to start iptables: it works on nf_tables, or on x_tables, which tells less."""
    table = portmap_iptables.TABLE
    return nftprobe.holds_chain(Table(_NFPROTO[version], table), chain) or iptables.legacy_in_use(
        version, table
    )


def _let_localhost_out(address: bytes) -> None:
    """Let packets from 127.0.0.1 leave towards the container; else the kernel takes them for martians."""
    with Netlink() as netlink:
        index = route.towards(netlink, address)
        name = link.get(netlink, index=index).name if index is not None else ""
    if name:
        sysctl.write(f"net/ipv4/conf/{name}/route_localnet", "1")


def _forget_flows(
    targets: list[tuple[int, bytes | None]], addresses: dict[int, bytes], *, everywhere: bool = False
) -> None:
    """Forget UDP flows to host ports, so that they are looked at anew. A failure is said, and no more.

    Args:
        targets: the ports, each with the host's address or None.
        addresses: the container's, by family.
        everywhere: also flows that do not go to the container.
    """
    if not targets:
        return
    try:
        with Netfilter() as netlink:
            for version in addresses or _FAMILIES:
                to = None if everywhere else addresses.get(version)
                conntrack.forget(netlink, conntrack.Flows(version, targets, to))
    except OSError as error:
        skel.warn(f"portmap: {skel.as_cni_error(error).msg}")


PLUGIN = Plugin("portmap", "PortmapConf", add=add, delete=delete, check=check, status=status, gc=gc)
