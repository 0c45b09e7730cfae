"""Who owns a container's interface: its alias says so, or that of a veth pair's host end."""

from __future__ import annotations

from cni_plugins.kernel import link
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.spec import skel
from cni_plugins.spec.request import ifname_problem, valid_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request


def alias(request: Request) -> str:
    """Return the alias that names the owner; none of its three parts can hold a colon."""
    return f"{request.network}:{request.container_id}:{request.ifname}"


def is_anothers(request: Request, found: Link) -> bool:
    """Tell whether an interface in a DEL's namespace is another container's; say so on standard error.

    By the time of a DEL, a path such as /proc/PID/ns/net may lead to another container's namespace. Only the
    container is compared: chained plugins of another network may share the interface. A link without our
    alias counts as this container's, because the reference plugins set none.
    """
    return _is_told_of(request, found, found.name)


def is_shared(request: Request, links: Iterable[Link], name: str) -> bool:
    """Tell whether a namespace has an interface of another container; say so on standard error.

    Args:
        request: the DEL.
        links: what is in the namespace.
        name: the interface that stays as it is if so.
    """
    return any(_is_told_of(request, each, name) for each in links)


def _is_told_of(request: Request, found: Link, name: str) -> bool:
    said = _said_of(found).split(":")
    if len(said) != 3 or said[1] == request.container_id:
        return False
    if not (valid_identifier(said[0]) and valid_identifier(said[1])) or ifname_problem(said[2]):
        return False  # somebody else's words
    skel.warn(f"{name} in {request.netns} is left alone: {found.name} is of {' '.join(said)}")
    return True


def _said_of(found: Link) -> str:
    if found.kind != "veth":
        return found.alias
    if not found.peer:
        return ""
    with Netlink() as host:
        host_end = link.find(host, index=found.peer)
    if host_end is None or host_end.kind != "veth" or host_end.peer != found.index:
        return ""  # its other end is not on the host
    return host_end.alias
