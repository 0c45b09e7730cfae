"""ipvlan: an interface on top of one of the host's, with the same MAC address (CNI 1.1.0, section 2).

It owns the ipvlan link in the container, which goes with the namespace. Addresses come from an IPAM delegate.
Chained and without one, they come from the previous result, whose only interface is the default master.
"""

from __future__ import annotations

from cni_plugins.attach import sublink
from cni_plugins.kernel.sublink import IPVLAN_MODES, ipvlan_mode
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import sublink_state
    from cni_plugins.config.sublink import IpvlanConf
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result
else:
    sublink_state = Lazy("cni_plugins.attach.sublink_state")


def add(request: Request) -> Result:
    """Make the link, take or get addresses, configure it."""
    conf: IpvlanConf = request.conf
    plan = _plan(request)
    before = request.prev_result
    if before is not None and not plan.parent:
        if len(before.interfaces) != 1 or not before.interfaces[0].name:
            raise InvalidConfigError(
                "chained master failure: prevResult lacks a single named interface", "name one in master"
            )
        plan.parent = before.interfaces[0].name
    if conf.ipam.type:
        return sublink.make(request, plan)
    if before is None or not before.ips:
        raise InvalidConfigError(
            "ipvlan needs addresses: neither ipam nor prevResult has any", 'set ipam.type, as in "host-local"'
        )
    return sublink.make(request, plan, before)


def status(request: Request) -> None:
    """Look for the driver, IPAM, and the master unless the plugin before makes it."""
    conf: IpvlanConf = request.conf
    plan = _plan(request)
    plan.has_parent = bool(conf.master or conf.ipam.type)
    sublink_state.look(request, plan)


def _plan(request: Request) -> sublink.Plan:
    conf: IpvlanConf = request.conf
    mode = conf.mode or "l2"
    if mode not in IPVLAN_MODES:
        raise InvalidConfigError(
            f'unknown ipvlan mode: "{conf.mode}"', f"modes are {', '.join(IPVLAN_MODES)}"
        )
    plan = sublink.Plan("ipvlan", (ipvlan_mode(mode),))
    plan.parent, plan.in_container, plan.mtu = conf.master, conf.link_in_container, conf.mtu
    plan.needs_parent_up = False
    return plan


PLUGIN = sublink.plugin("ipvlan", "IpvlanConf", _plan, add=add, status=status)
