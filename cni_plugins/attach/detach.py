"""The end of an attachment: the container's interface goes, and its addresses are given back."""

from __future__ import annotations

from cni_plugins.attach import ipam
from cni_plugins.attach.owner import is_anothers
from cni_plugins.kernel import link, notes
from cni_plugins.kernel.netns import find_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_plugins.attach.undo import Teardown
    from cni_plugins.spec.request import Request

_WITHOUT_INTERFACE = ("host-local", "static")


def detach(request: Request, teardown: Teardown, *others: str) -> None:
    """Delete the interface and give the addresses back, in the order that IPAM needs.

    Args:
        request: the DEL.
        teardown: collects what fails.
        others: names under which the interface may be found besides its own.
    """
    leave(request, teardown, _delete_links, request, (request.ifname, *others))


def leave(request: Request, teardown: Teardown, step: Callable[..., object], *args: object) -> None:
    """Take the step that parts the interface from the container, and give the addresses back.

    On GC the same for the interfaces and addresses of all attachments that are gone.

    An address should go after its interface: nobody else may get it while it still answers. But a DHCP
    client says good-bye over the interface, and so may whatever we do not know.
    """
    address_first = request.conf.ipam.type not in _WITHOUT_INTERFACE
    if address_first:
        teardown.step(ipam.forward, request)
    teardown.step(step, *args)
    if not address_first:
        teardown.step(ipam.forward, request)


def noted(request: Request, kind: str) -> bool:
    """Tell whether an ADD left a note of this kind: of something that may not be configured any more."""
    return notes.exists(kind, (request.network, request.container_id, request.ifname))


def _delete_links(request: Request, names: tuple[str, ...]) -> None:
    """Delete the links of these names in the container; without a namespace there are none any more."""
    if not request.netns:
        return
    netns = find_namespace(request.netns)
    if netns is None:
        return  # it took its interfaces with it
    with netns, netns.netlink() as inside:
        for name in names:
            found = link.find(inside, name)
            if found is not None and not is_anothers(request, found):
                link.delete(inside, name)
