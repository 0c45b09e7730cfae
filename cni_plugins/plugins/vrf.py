"""vrf: a routing domain of its own for the container's interface (CNI 1.1.0; a chained plugin).

It owns, in the container's namespace, the VRF, which is deleted with its last member, and the interface's
membership, by which its routes are in the VRF's table.
"""

from __future__ import annotations

from cni_plugins.attach.undo import Undo
from cni_plugins.kernel import addr, link, linkset, route, sublink
from cni_plugins.kernel.netns import Namespace, find_namespace
from cni_plugins.kernel.nlattr import attr_u32, uint
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import (
    CheckFailedError,
    ConflictError,
    InvalidConfigError,
    KernelError,
)
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.address import Prefix
    from cni_plugins.attach import owner, ready, verify
    from cni_plugins.config.devices import VrfConf
    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.netlink import Netlink
    from cni_plugins.kernel.route import Route
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    owner = Lazy("cni_plugins.attach.owner")
    ready = Lazy("cni_plugins.attach.ready")
    verify = Lazy("cni_plugins.attach.verify")

_IFLA_VRF_TABLE = 1
_RESERVED_TABLES = (253, 254, 255)
"""default, main and local."""


def add(request: Request) -> Result:
    """Make the interface a member; return the result before this plugin, unchanged."""
    conf = _conf(request)
    if request.prev_result is None:
        raise InvalidConfigError(
            "missing prevResult from earlier plugin", "list vrf after the plugin that makes the interface"
        )
    with Namespace(request.netns) as netns, netns.netlink() as inside, Undo() as undo:
        netns.lock()  # another call may be taking the last member out
        member = link.find(inside, request.ifname)
        if member is None:
            raise KernelError(f"could not get link by name {request.ifname!r}")
        if member.master:
            master = link.get(inside, index=member.master)
            raise ConflictError(f"interface {request.ifname} has already a master set: {master.name}")
        vrf = _find(inside, conf.vrfname)
        if vrf is None:
            vrf = _create(inside, conf, undo)
        elif conf.table and _table(vrf) != conf.table:
            raise ConflictError(
                f"VRF {conf.vrfname} already exist with different routing table {_table(vrf)}"
            )
        _enslave(inside, member, vrf, undo)
    return request.prev_result


def delete(request: Request) -> None:
    """Take the interface out; delete the VRF when nothing is left in it."""
    conf = _conf(request)
    netns = find_namespace(request.netns) if request.netns else None
    if netns is None:
        return  # it took the VRF with it
    with netns, netns.netlink() as inside:
        netns.lock()
        vrf = link.find(inside, conf.vrfname)
        if vrf is None or vrf.kind != "vrf":
            return
        member = link.find(inside, request.ifname)
        if member is not None and member.master == vrf.index and not owner.is_anothers(request, member):
            linkset.set_master(inside, member, None)
        if not any(each.master == vrf.index for each in link.links(inside)):
            link.delete(inside, conf.vrfname)


def check(request: Request) -> None:
    """Look for the VRF, its table, and the interface and its routes in it."""
    conf = _conf(request)
    result = verify.previous(request)
    with Namespace(request.netns) as netns, netns.netlink() as inside:
        vrf = verify.present(inside, conf.vrfname, "vrf", "container")
        if conf.table and _table(vrf) != conf.table:
            raise CheckFailedError(f"VRF {conf.vrfname!r} has routing table {_table(vrf)}, not {conf.table}")
        member = verify.present(inside, request.ifname, where="container")
        if member.master != vrf.index:
            raise CheckFailedError(f"Failed to find {request.ifname} associated to vrf {conf.vrfname}")
        verify.routes(inside, member, result)


def status(_request: Request) -> None:
    """The kernel must have VRFs."""
    ready.links("vrf")


def gc(_request: Request) -> None:
    """Nothing outlives the namespace."""


def _conf(request: Request) -> VrfConf:
    conf: VrfConf = request.conf
    if not conf.vrfname:
        raise InvalidConfigError("configuration is expected to have a valid vrf name", "set vrfname")
    return conf


def _find(inside: Netlink, name: str) -> Link | None:
    found = link.find(inside, name)
    if found is not None and found.kind != "vrf":
        raise ConflictError(f"link {name} is not a VRF", "name the VRF otherwise")
    return found


def _table(vrf: Link) -> int:
    return uint(vrf.data.get(_IFLA_VRF_TABLE, b""))


def _create(inside: Netlink, conf: VrfConf, undo: Undo) -> Link:
    table = conf.table
    if not table:
        taken = {_table(each) for each in link.links(inside) if each.kind == "vrf"} | set(_RESERVED_TABLES)
        table = next(number for number in range(1, len(taken) + 2) if number not in taken)
    option = sublink.Option(f"table {table}", _IFLA_VRF_TABLE, attr_u32(_IFLA_VRF_TABLE, table))
    with undo.made(link.delete, inside, conf.vrfname):
        sublink.create(inside, "vrf", conf.vrfname, options=(option,))
    vrf = link.get(inside, conf.vrfname)
    link.set_up(inside, vrf.index)
    return vrf


def _enslave(inside: Netlink, member: Link, vrf: Link, undo: Undo) -> None:
    """Join. The kernel takes the link down and up, by which it loses routes and, maybe, IPv6 addresses."""
    before = addr.of_link(inside, member.index, addr.AF_INET6)
    routes = [
        each
        for family in (addr.AF_INET, addr.AF_INET6)
        for each in route.of_link(inside, member.index, family)
        if each.table == route.RT_TABLE_MAIN
    ]
    undo.push(_restore, inside, member, before, routes, route.RT_TABLE_MAIN)
    with undo.made(linkset.set_master, inside, member, None):
        linkset.set_master(inside, member, vrf)
    _restore(inside, member, before, routes, _table(vrf))


def _restore(inside: Netlink, member: Link, before: list[Prefix], routes: list[Route], table: int) -> None:
    held = addr.of_link(inside, member.index, addr.AF_INET6)
    for prefix in before:
        if prefix not in held:
            addr.add(inside, member.index, prefix, flags=addr.flags_for(prefix))
    # What next hops are reached by goes first.
    for each in sorted(routes, key=lambda one: one.gateway is not None):
        each.table = table
        route.add(inside, each, replace=True)


PLUGIN = Plugin("vrf", "VrfConf", add=add, delete=delete, check=check, status=status, gc=gc)
