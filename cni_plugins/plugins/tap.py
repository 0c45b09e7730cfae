"""tap: a device through which a program in the container takes part in a network (CNI 1.1.0, section 2).

It owns the tap in the container, persistent until the namespace goes. Addresses come from an IPAM delegate. A
policy may let a virtual machine's process open the tap by its SELinux context. The context cannot be read
back, so CHECK does not look at it.
"""

from __future__ import annotations

import errno

from cni_plugins.attach import configure, ipam, owner, sublink
from cni_plugins.attach.undo import Undo
from cni_plugins.kernel import link, linkset, tuntap
from cni_plugins.kernel.netns import Namespace
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import (
    CheckFailedError,
    KernelError,
    NotAvailableError,
    already_attached,
)
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import sublink_state
    from cni_plugins.config.devices import TapConf
    from cni_plugins.kernel import programs, selinux
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    programs = Lazy("cni_plugins.kernel.programs")
    selinux = Lazy("cni_plugins.kernel.selinux")
    sublink_state = Lazy("cni_plugins.attach.sublink_state")

_ADVICE = {
    **dict.fromkeys((errno.ENOENT, errno.ENODEV, errno.ENXIO), "modprobe tun"),
    **dict.fromkeys((errno.EPERM, errno.EACCES), "let the plugins run as root, where devices may be opened"),
}


def add(request: Request) -> Result:
    """Make the tap, join the bridge, get addresses, configure it."""
    conf: TapConf = request.conf
    mac = _mac(request)
    with Namespace(request.netns) as netns, netns.netlink() as inside, Undo() as undo:
        # Opening a tap that exists would take it over.
        netns.lock()
        if link.find(inside, request.ifname) is not None:
            raise already_attached(request.ifname)
        with netns.entered():
            tuntap.create(
                request.ifname,
                owner=conf.owner,
                group=conf.group,
                multi_queue=conf.multi_queue,
                selinux_context=conf.selinux_context,
            )
        undo.push(link.delete, inside, request.ifname)
        made = link.get(inside, request.ifname)
        if mac or conf.mtu:
            linkset.configure(inside, made.index, mac=mac, mtu=conf.mtu)
        if conf.bridge:
            master = link.find(inside, conf.bridge)
            if master is None:
                raise KernelError(
                    f"failed to get bridge {conf.bridge!r}: the container has none of that name",
                    "the bridge is one in the container's namespace",
                )
            linkset.set_master(inside, made, master)
        return sublink.complete(request, netns, inside, undo, alias=owner.alias(request))


def check(request: Request) -> None:
    """Compare everything ADD set with the kernel."""
    conf: TapConf = request.conf
    plan = sublink.Plan(
        "tun",
        tuntap.options(owner=conf.owner, group=conf.group, multi_queue=conf.multi_queue),
        has_parent=False,
    )
    plan.mtu, plan.mac = conf.mtu, _mac(request)
    sublink_state.check(request, plan)
    if conf.bridge:
        with Namespace(request.netns) as netns, netns.netlink() as inside:
            master = link.find(inside, conf.bridge)
            if master is None or link.get(inside, request.ifname).master != master.index:
                raise CheckFailedError(f"interface {request.ifname!r} is no port of bridge {conf.bridge!r}")


def status(request: Request) -> None:
    """Look for the driver and IPAM."""
    try:
        tuntap.probe()
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        raise NotAvailableError(
            f"cannot open {tuntap.DEVICE}: {error.strerror}", _ADVICE[error.errno]
        ) from None
    if request.conf.selinux_context and selinux.enabled() and not programs.installed("ip"):
        raise NotAvailableError("ip, which makes a tap in an SELinux context, is missing", "install iproute2")
    ipam.forward(request)


def _mac(request: Request) -> bytes:
    """Return the address asked for: by the runtime, the environment or the configuration, in this order."""
    conf: TapConf = request.conf
    return configure.parse_mac(conf.runtime_config.mac or request.cni_args().get("MAC", "") or conf.mac)


PLUGIN = Plugin("tap", "TapConf", add=add, delete=sublink.delete, check=check, status=status, gc=sublink.gc)
