"""firewall: lets a container's traffic through the host's firewall (CNI 1.1.0; a chained plugin).

It owns, on the host, the entries for the container's addresses in one of: the sets of nftables `table inet
cni_plugins_firewall`; the iptables chain CNI-FORWARD; a zone of firewalld. Notes in /run/cni/firewall and
firewall-addresses say what was made and whose an address is. Chains, and the rules that isolate bridges,
stay: they belong to no single container.

An accept in nftables ends its own base chain only. On a host whose iptables drops forwarded packets, as
Docker sets it up, only iptables can let them through: so it is the default wherever it decides about
forwarded packets.
"""

from __future__ import annotations

from cni_plugins.attach import firewall
from cni_plugins.attach.undo import Undo
from cni_plugins.kernel import notes, sysctl
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
from cni_plugins.spec import skel
from cni_plugins.spec.errors import InvalidConfigError, NotAvailableError
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import ready
    from cni_plugins.kernel import firewalld, nftprobe
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    ready = Lazy("cni_plugins.attach.ready")
    firewalld = Lazy("cni_plugins.kernel.firewalld")
    nftprobe = Lazy("cni_plugins.kernel.nftprobe")

_BRIDGE_FILTERS = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


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
    backend = firewall.choose(wanted)
    note = Note(backend, wanted.zone, addresses_of(result))
    if not note.addresses:
        return result
    with notes.lock(firewall.KIND), Undo() as undo:
        older = Note.parse(notes.read(firewall.KIND, attachment))
        if older is not None and older.lines() != note.lines():  # an ADD repeated otherwise, without a DEL
            firewall.remove(attachment, older)
            older = None
        undo.push(firewall.remove, attachment, note)
        firewall.let_through(attachment, note, wanted, bridge, known=older is not None)
    return result


def delete(request: Request) -> None:
    """Remove what lets the addresses' traffic through, whichever backend has it."""
    attachment = _attachment(request)
    previous = addresses_of(request.prev_result) if request.prev_result is not None else []
    with notes.lock(firewall.KIND):
        note = Note.parse(notes.read(firewall.KIND, attachment)) or Note("", zone_of(request.conf), [])
        note.addresses += [host for host in previous if host not in note.addresses]
        firewall.remove(attachment, note)


def check(request: Request) -> None:
    """Compare what the backend has with what ADD makes."""
    wanted = Wanted(request.conf)
    result = request.prev_result
    assert result is not None
    bridge = wanted.bridge(result)
    firewall.compare(_attachment(request), addresses_of(result), wanted, bridge)


def status(request: Request) -> None:
    """Tell whether the backend that ADD would take works.

    If iptables drops packets by policy, rules of the administrator may accept them still: that is only a
    warning.
    """
    ready.notes(firewall.KIND)
    wanted = Wanted(request.conf)
    backend = firewall.choose(wanted)
    if backend == FIREWALLD and (absence := firewalld.absence()):
        raise NotAvailableError(
            f"firewalld is not on the system's message bus: {absence}", "start it, or leave `backend` out"
        )
    if backend == NFTABLES and not nftprobe.usable():
        raise NotAvailableError("nftables cannot be used on this host", "load the kernel's nf_tables")
    if backend == NFTABLES and wanted.backend and firewall.iptables_drops():
        if nftprobe.iptables_lets_nothing_pass():
            raise NotAvailableError(firewall.DROPPED, "leave `backend` out, or let the chain FORWARD accept")
        skel.warn(f"firewall: {firewall.DROPPED}")
    if backend == IPTABLES:
        ready.by_iptables("backend", "filter", "choose another backend")
    elif backend == FIREWALLD and wanted.policy != OPEN:
        ready.by_iptables("ingressPolicy", "filter", "choose another policy")
    for version in _families(request) if wanted.policy == ISOLATED else ():
        if not _is_on(_BRIDGE_FILTERS[version]):
            raise NotAvailableError(
                f"IPv{version} packets between ports of a bridge do not pass the packet filter, "
                "and cannot be isolated",
                f"load br_netfilter and set {_BRIDGE_FILTERS[version].replace('/', '.')} to 1",
            )


def _families(request: Request) -> list[int]:
    """Return 4, and 6 if the network has IPv6 addresses, which only the notes of earlier ADDs can tell."""
    for attachment in notes.attachments(firewall.KIND):
        if attachment[0] == request.network:
            note = Note.parse(notes.read(firewall.KIND, attachment))
            if note is not None and any(host.version == 6 for host in note.addresses):
                return [4, 6]
    return [4]


def _is_on(key: str) -> bool:
    try:
        return sysctl.read(key) == "1"
    except FileNotFoundError:
        return False


def gc(request: Request) -> None:
    """Remove what belongs to attachments that are gone."""
    with notes.lock(firewall.KIND):
        firewall.collect(request.network, request.valid_attachments())


def _attachment(request: Request) -> tuple[str, str, str]:
    return request.network, request.container_id, request.ifname


PLUGIN = Plugin("firewall", "FirewallConf", add=add, delete=delete, check=check, status=status, gc=gc)
