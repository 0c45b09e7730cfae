"""CHECK and STATUS of a link in the container that a plan describes."""

from __future__ import annotations

from cni_plugins.attach import ipam, ready, verify
from cni_plugins.attach.sublink import find_parent
from cni_plugins.kernel import link
from cni_plugins.kernel.netlink import Netlink
from cni_plugins.kernel.netns import Namespace
from cni_plugins.spec.errors import CheckFailedError, CNIError, NotAvailableError
from cni_plugins.spec.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach.sublink import Plan
    from cni_plugins.kernel.link import Link
    from cni_plugins.spec.request import Request


def check(request: Request, plan: Plan) -> None:
    """Compare everything ADD set with the kernel.

    Raises:
        CheckFailedError: something differs.
    """
    result = verify.previous(request)
    index, expected = verify.container_interface(request, result)
    ipam.forward(request)
    with Namespace(request.netns) as netns, Netlink() as host, netns.netlink() as inside:
        found = verify.present(inside, request.ifname, plan.kind, "container")
        mac = expected.mac or link.format_mac(plan.mac)
        verify.matches(found, Interface(found.name, mac, expected.mtu or plan.mtu))
        for option in plan.options:
            if not option.holds(found):
                raise CheckFailedError(
                    f"interface {found.name!r} of the container does not have {option.label}"
                )
        if plan.parent:
            _check_parent(inside if plan.in_container else host, plan, found)
        verify.addresses(inside, found, index, result)
        verify.routes(inside, found, result)


def look(request: Request, plan: Plan) -> None:
    """Look for what an ADD needs: the driver, the parent, IPAM.

    Raises:
        NotAvailableError: something is missing.
    """
    ready.links(plan.kind)
    if plan.has_parent and not plan.in_container:
        try:
            with Netlink() as host:
                find_parent(host, plan)
        except CNIError as error:
            raise NotAvailableError(error.msg, error.details) from None
    ipam.forward(request)


def _check_parent(nl: Netlink, plan: Plan, found: Link) -> None:
    """Look whether a container's link is on the one that the configuration names."""
    parent = link.find(nl, plan.parent)
    if parent is None:
        raise CheckFailedError(f"master {plan.parent!r} is gone")
    if parent.index != found.peer:
        raise CheckFailedError(f"interface {found.name!r} of the container is not on master {plan.parent!r}")
