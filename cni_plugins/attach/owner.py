"""Whose a container's interface is: the alias of a veth pair's host end says so."""

from __future__ import annotations

from cni_plugins.kernel import link
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.spec import skel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request


def alias(request: Request) -> str:
    """Return what a host end says; none of the three can hold a colon."""
    return f"{request.network}:{request.container_id}:{request.ifname}"


def is_anothers(request: Request, found: Link) -> bool:
    """Tell whether an interface in a DEL's namespace is another container's; say so on standard error.

    A path such as /proc/PID/ns/net may lead to another container's namespace by the time of a DEL. Chained
    plugins of other networks may have the same interface: only the container counts.
    """
    if found.kind != "veth" or not found.peer:
        return False
    with Netlink() as host:
        host_end = link.find(host, index=found.peer)
    if host_end is None or host_end.kind != "veth" or host_end.peer != found.index:
        return False  # its other end is not on the host
    said = host_end.alias.split(":")
    if len(said) != 3 or said[1] == request.container_id:
        return False
    skel.warn(f"{found.name} in {request.netns} is left alone: it is of {' '.join(said)}")
    return True
