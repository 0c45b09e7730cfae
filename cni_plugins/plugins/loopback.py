"""loopback: the container's own `lo`, up with 127.0.0.1 and ::1 (CNI 1.1.0, section 2).

It owns nothing: the kernel gives every namespace its loopback interface, and takes it back.
"""

from __future__ import annotations

from cni_plugins.address import Prefix
from cni_plugins.kernel import addr, link
from cni_plugins.kernel.netns import Namespace, find_namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import CheckFailedError
from cni_plugins.spec.plugin import Plugin
from cni_plugins.spec.result import Interface, IPConfig, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import owner, verify
    from cni_plugins.spec.request import Request
else:
    owner = Lazy("cni_plugins.attach.owner")
    verify = Lazy("cni_plugins.attach.verify")

_NAME = "lo"  # whatever CNI_IFNAME says


def add(request: Request) -> Result:
    """Bring `lo` up; return prevResult when there is one, else what `lo` has."""
    with Namespace(request.netns) as netns, netns.netlink() as inside:
        lo = link.get(inside, _NAME)
        link.set_up(inside, lo.index)
        held = addr.of_link(inside, lo.index)
    if request.prev_result is not None:
        return request.prev_result
    result = Result()
    result.interfaces.append(Interface(_NAME, lo.mac, sandbox=request.netns))
    for prefix in held:
        if prefix.address in (bytes((127, 0, 0, 1)), bytes(15) + b"\1"):
            result.ips.append(IPConfig(Prefix(prefix.address, prefix.length), interface=0))
    return result


def delete(request: Request) -> None:
    """Take `lo` down, as the reference does, unless the namespace is gone or another container's by now.

    `lo` itself does not say whose it is; the interfaces beside it may.
    """
    if not request.netns:
        return
    netns = find_namespace(request.netns)
    if netns is None:
        return
    with netns, netns.netlink() as inside:
        links = link.links(inside)
        if not owner.is_shared(request, links, _NAME):
            link.set_down(inside, next(each.index for each in links if each.name == _NAME))


def check(request: Request) -> None:
    """`lo` must be up and have its addresses."""
    with Namespace(request.netns) as netns, netns.netlink() as inside:
        lo = verify.present(inside, _NAME, where="container")
        if Prefix(bytes((127, 0, 0, 1)), 8) not in addr.of_link(inside, lo.index):
            raise CheckFailedError("127.0.0.1/8 is missing on lo")


def status(_request: Request) -> None:
    """Every kernel has a loopback interface."""


def gc(_request: Request) -> None:
    """Nothing outlives the namespace."""


PLUGIN = Plugin("loopback", "LoopbackConf", add=add, delete=delete, check=check, status=status, gc=gc)
