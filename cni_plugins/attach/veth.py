"""The veth pair between a container and the host: bridge and ptp share it (veth(4))."""

from __future__ import annotations

import posix

from cni_plugins.attach.undo import Teardown
from cni_plugins.kernel import link, sysctl
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.spec import skel
from cni_plugins.spec.errors import AlreadyAttachedError, ConflictError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach.undo import Undo
    from cni_plugins.spec.request import Request

_EEXIST = 17
_NAME_TRIES = 10


def create(
    request: Request,
    host: Netlink,
    inside: Netlink,
    netns: int,
    undo: Undo,
    *,
    master: int = 0,
    mtu: int = 0,
    mac: bytes = b"",
) -> str:
    """Make the pair and return the name of its host end: `veth` and 8 random hex digits.

    The host end is up, in its bridge, and takes no router's advertisements; the container's end is down. The
    host end's alias says whose it is, and by that GC finds its own. A kernel asked to make a link takes no
    alias: a process killed before the second request leaves a pair that DEL, or the namespace's end, removes.

    Args:
        request: the ADD; the container's end has its interface name.
        host: the host's namespace.
        inside: the container's.
        netns: descriptor of the container's.
        undo: what deletes the pair when the ADD fails later is pushed there.
        master: index of the host end's bridge; 0 for none.
        mtu: of both ends, in bytes; 0: the kernel's choice.
        mac: the container end's address; empty: the kernel's choice.

    Raises:
        AlreadyAttachedError: the container has an interface of that name.
        OSError: the kernel refused.
    """
    for _try in range(_NAME_TRIES):
        name = "veth" + posix.getrandom(4).hex()
        try:
            link.create_veth(host, name, request.ifname, netns, master=master, mtu=mtu, mac=mac)
        except OSError as error:
            if error.errno != _EEXIST:
                raise
            if link.find(inside, request.ifname) is not None:
                raise AlreadyAttachedError(
                    f"interface {request.ifname!r} already exists in the container",
                    "DEL the attachment that made it, or use another interface name",
                ) from None
        else:
            undo.push(link.delete, host, name)
            # None of the three can hold a colon.
            link.mark(host, name, f"{request.network}:{request.container_id}:{request.ifname}")
            sysctl.write_if_present(f"net/ipv6/conf/{name}/accept_ra", "0")
            return name
    raise ConflictError(f"no free name for a veth pair after {_NAME_TRIES} tries")


def gc(request: Request) -> None:
    """Remove the pairs of this network's attachments that are gone, though their namespaces are still there.

    Pairs whose host end does not say whose it is are another suite's, or of an earlier version: they stay.

    Raises:
        CNIError: some could not be removed; the others are.
    """
    valid = request.valid_attachments()
    teardown = Teardown()
    with Netlink() as host:
        for each in link.links(host):
            network, *attachment = each.alias.split(":")
            if each.kind == "veth" and network == request.network and len(attachment) == 2:
                container_id, ifname = attachment
                if (container_id, ifname) not in valid:
                    teardown.step(_remove, host, each.name, request.network, container_id, ifname)
    teardown.finish()


def _remove(host: Netlink, name: str, network: str, container_id: str, ifname: str) -> None:
    if link.delete(host, name):
        skel.removed(network, f"the veth pair {name} of {container_id} {ifname}")
