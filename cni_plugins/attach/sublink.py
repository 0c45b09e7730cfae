"""A link in the container on top of one of the host: what macvlan, ipvlan, vlan and dummy have in common.

It is made in the container under its final name, so that it goes with the namespace at the latest. IPAM is
asked once it is there, since a DHCP client needs it. Its alias names its owner, for a DEL that comes too
late.
"""

from __future__ import annotations

from binascii import crc32

from cni_plugins.attach import ipam, owner
from cni_plugins.attach.detach import detach
from cni_plugins.attach.undo import Teardown, Undo
from cni_plugins.kernel import link, sublink
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import (
    ConflictError,
    InvalidConfigError,
    KernelError,
    already_attached,
)
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Interface, Result, dns_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.attach import configure, sublink_state
    from cni_plugins.kernel import linkset, route
    from cni_plugins.kernel.link import Link
    from cni_plugins.kernel.sublink import Option
    from cni_plugins.spec.request import Request
else:
    configure = Lazy("cni_plugins.attach.configure")
    linkset = Lazy("cni_plugins.kernel.linkset")
    sublink_state = Lazy("cni_plugins.attach.sublink_state")
    route = Lazy("cni_plugins.kernel.route")

_EEXIST = 17


class Plan:
    """What a plugin wants made.

    Attributes:
        kind: the link's driver.
        options: properties that only this kind has.
        has_parent: whether it is on another link.
        parent: that link's name; empty: the default route's.
        in_container: whether that link is in the container too.
        mtu: in bytes; 0: the parent's.
        mac: its address; empty: the kernel's choice.
        shares_parent_mac: whether it has one address with its parent, which can change it afterwards only.
        needs_parent_up: whether it can only be up when its parent is.
    """

    __slots__ = (
        "has_parent",
        "in_container",
        "kind",
        "mac",
        "mtu",
        "needs_parent_up",
        "options",
        "parent",
        "shares_parent_mac",
    )

    def __init__(self, kind: str, options: tuple[Option, ...] = (), *, has_parent: bool = True) -> None:
        self.kind = kind
        self.options = options
        self.has_parent = has_parent
        self.parent = ""
        self.in_container = False
        self.mtu = 0
        self.mac = b""
        self.shares_parent_mac = False
        self.needs_parent_up = True


def plugin(
    name: str,
    model: str,
    plan: Callable[[Request], Plan],
    *,
    add: Callable[[Request], Result] | None = None,
    status: Callable[[Request], None] | None = None,
) -> Plugin:
    """Return the record of a plugin that makes what its plan says.

    Args:
        name: see `Plugin`; so is the model.
        model: the name of its configuration's model.
        plan: reads the configuration; raises when it is not valid.
        add: its own, if it does more.
        status: its own, if it looks at more.
    """

    def _add(request: Request) -> Result:
        return make(request, plan(request))

    def _check(request: Request) -> None:
        sublink_state.check(request, plan(request))

    def _status(request: Request) -> None:
        sublink_state.look(request, plan(request))

    return Plugin(name, model, add=add or _add, delete=delete, check=_check, status=status or _status, gc=gc)


def make(request: Request, plan: Plan, given: Result | None = None) -> Result:
    """Make the link, get addresses, configure it.

    Args:
        request: the ADD.
        plan: what to make.
        given: addresses and routes to take in the place of IPAM's; without them and without an IPAM plugin
            the link is only brought up.

    Raises:
        AlreadyAttachedError: the container has an interface of that name.
        ConflictError: something else has what the link needs for itself.
        InvalidConfigError: the MTU is more than the parent's, or there is no default route.
        KernelError: the parent is missing or down.
    """
    # Undoing comes before closing what it needs.
    with Namespace(request.netns) as netns, Netlink() as host, netns.netlink() as inside, Undo() as undo:
        parent = find_parent(inside if plan.in_container else host, plan)
        _create(request, plan, parent, host, inside, netns, undo)
        if plan.mac and plan.shares_parent_mac:
            link.set_mac(inside, link.get(inside, request.ifname).index, plan.mac)
        return complete(request, netns, inside, undo, given, alias=owner.alias(request))


def complete(
    request: Request,
    netns: Namespace,
    inside: Netlink,
    undo: Undo,
    given: Result | None = None,
    *,
    alias: str = "",
) -> Result:
    """Get addresses for the container's interface, which is there already; configure it, bring it up.

    Args:
        request: the ADD.
        netns: the container's namespace.
        inside: a socket there.
        undo: what gives the addresses back is pushed there.
        given: see `make`.
        alias: what the interface says of its owner from then on; empty: what is there stays. A kernel asked
            to make a link takes none, and to bring it up is the first that is asked of every link.
    """
    result = given or Result()
    if given is None and request.conf.ipam.type:
        result = ipam.add(request, undo)
    interface = link.get(inside, request.ifname)
    if result.ips:
        with netns.entered():
            configure.prepare(request.ifname, result)
        configure.apply(inside, interface, result, alias=alias)
        # The kernel announces them when the link comes up. A DHCP client has done that already.
        if interface.is_up:
            configure.announce(inside, interface)
        configure.prefer_dns(request.conf.dns, result)
    else:
        result.dns = dns_from(request.conf.dns)
        link.set_up(inside, interface.index, alias)
    result.interfaces = [Interface(interface.name, interface.mac, interface.mtu, request.netns)]
    for ip in result.ips:
        ip.interface = 0
    return result


def delete(request: Request) -> None:
    """Remove the link and its addresses; what is gone already is no error."""
    teardown = Teardown()
    detach(request, teardown, _provisional_name(request.ifname))
    teardown.finish()


def gc(request: Request) -> None:
    """Let the IPAM plugin remove what is left: links go with their namespaces."""
    ipam.forward(request)


def find_parent(nl: Netlink, plan: Plan) -> Link | None:
    """Return the link to be built on; None for a kind that stands by itself.

    Raises:
        InvalidConfigError: the MTU is more than the parent's, or there is no default route.
        KernelError: the parent is missing or down.
    """
    if not plan.has_parent:
        return None
    name = plan.parent
    if name:
        parent = link.find(nl, name)
        if parent is None:
            raise KernelError(f"failed to look up master {name!r}: no such interface", _name_another(plan))
    else:
        index = route.default_link(nl)
        if index is None:
            raise InvalidConfigError("no default route interface found", _name_another(plan))
        parent = link.get(nl, index=index)
    if not 0 <= plan.mtu <= parent.mtu:
        raise InvalidConfigError(
            f"invalid MTU {plan.mtu}, must be [0, master MTU({parent.mtu})]",
            f"lower mtu, or raise that of {parent.name}",
        )
    if plan.needs_parent_up and not parent.is_up:
        raise KernelError(f"master {parent.name!r} is down", f"ip link set {parent.name} up")
    return parent


def _name_another(plan: Plan) -> str:
    return f"name an interface of the {'container' if plan.in_container else 'host'} in master"


def _create(
    request: Request,
    plan: Plan,
    parent: Link | None,
    host: Netlink,
    inside: Netlink,
    netns: Namespace,
    undo: Undo,
) -> None:
    """Make the link in the container, down, under its name."""
    of_host = parent is not None and not plan.in_container

    def create(name: str) -> None:
        sublink.create(
            host if of_host else inside,
            plan.kind,
            name,
            options=plan.options,
            parent=parent.index if parent is not None else 0,
            netns=netns.fd if of_host else None,
            mtu=plan.mtu,
            mac=plan.mac,
        )

    try:
        with undo.made(link.delete, inside, request.ifname):
            create(request.ifname)
    except OSError as error:
        if error.errno != _EEXIST:
            raise
        if link.find(inside, request.ifname) is not None:
            raise already_attached(request.ifname) from None
        # Before Linux 6.15 also a link of the host must not have the name, and many hosts have an eth0.
        name = _provisional_name(request.ifname)
        try:
            with undo.made(link.delete, inside, name):
                create(name)
        except OSError as second:
            if second.errno != _EEXIST or parent is None:
                raise
            raise ConflictError(
                f"another link on {parent.name!r} has what this one needs: {second.strerror}",
                "give each network on a master a VLAN of its own, and each VLAN one container",
            ) from None
        with undo.made(link.delete, inside, request.ifname):
            linkset.rename(inside, link.get(inside, name).index, request.ifname)


def _provisional_name(ifname: str) -> str:
    """Return the name a link has before it gets its own: the same one at DEL, if this process is killed."""
    return f"cni{crc32(ifname.encode()):08x}"
