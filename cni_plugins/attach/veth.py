"""The veth pair between a container and the host: bridge and ptp share it (veth(4))."""

from __future__ import annotations

import posix

from cni_plugins.attach import owner
from cni_plugins.attach.undo import Teardown
from cni_plugins.kernel import link, notes, sysctl
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.lazy import Lazy
from cni_plugins.spec import skel
from cni_plugins.spec.errors import ConflictError, already_attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach.undo import Undo
    from cni_plugins.kernel import newlink
    from cni_plugins.spec.request import Request

    Attachment = tuple[str, str, str]
else:
    newlink = Lazy("cni_plugins.kernel.newlink")

_KIND = "veth"
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

    The host end is up, in its bridge, and ignores router advertisements; the container's end is down. The
    host end's alias names its owner, so that GC finds it. The kernel takes no alias in the request that makes
    a link: until a second request sets it, a note names the owner. If the names are too long for an alias,
    the note stays.

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
    attachment = _attachment(request)
    undo.forget(notes.remove, _KIND, attachment)
    for _try in range(_NAME_TRIES):
        name = "veth" + posix.getrandom(4).hex()
        notes.write(_KIND, attachment, [name])
        try:
            with undo.made(link.delete, host, name):
                newlink.create_veth(host, name, request.ifname, netns, master=master, mtu=mtu, mac=mac)
        except OSError as error:
            if error.errno != _EEXIST:
                raise
            if link.find(inside, request.ifname) is not None:
                raise already_attached(request.ifname) from None
        else:
            if link.mark(host, name, owner.alias(request)):
                notes.remove(_KIND, attachment)
            sysctl.write_if_present(f"net/ipv6/conf/{name}/accept_ra", "0")
            return name
    raise ConflictError(f"no free name for a veth pair after {_NAME_TRIES} tries")


def forget(request: Request) -> None:
    """Remove a noted pair without an alias: its ADD was killed, or the names are too long for one.

    Raises:
        OSError: it cannot be removed.
    """
    _remove_unmarked(_attachment(request))


def gc(request: Request) -> None:
    """Remove the pairs of this network's attachments that are gone, though their namespaces are still there.

    Pairs whose host end names no owner are another suite's, or an earlier version's: they stay.

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
    for noted in notes.attachments(_KIND):
        if noted[0] == request.network and noted[1:] not in valid:
            teardown.step(_collect_unmarked, noted)
    teardown.finish()


def _attachment(request: Request) -> Attachment:
    return request.network, request.container_id, request.ifname


def _remove_unmarked(attachment: Attachment) -> str:
    """Remove the noted pair, which has no alias; return its name."""
    gone = ""
    for name in notes.read(_KIND, attachment) or []:
        with Netlink() as host:
            found = link.find(host, name)
            if found is not None and found.kind == "veth" and not found.alias and link.delete(host, name):
                gone = name
    notes.remove(_KIND, attachment)
    return gone


def _collect_unmarked(attachment: Attachment) -> None:
    name = _remove_unmarked(attachment)
    if name:
        skel.removed(attachment[0], f"the veth pair {name} of {' '.join(attachment[1:])}")


def _remove(host: Netlink, name: str, network: str, container_id: str, ifname: str) -> None:
    if link.delete(host, name):
        skel.removed(network, f"the veth pair {name} of {container_id} {ifname}")
