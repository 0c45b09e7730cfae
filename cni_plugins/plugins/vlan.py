"""vlan: a tagged VLAN of one of the host's interfaces (IEEE 802.1Q; CNI 1.1.0, section 2).

It owns the vlan link in the container, which goes with the namespace: a VLAN of a master is one container's.
Addresses come from an IPAM delegate.
"""

from __future__ import annotations

from cni_plugins.attach import sublink
from cni_plugins.kernel.sublink import vlan_id
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.sublink import VlanConf
    from cni_plugins.spec.request import Request
    from cni_plugins.spec.result import Result

_MAX_VLAN = 4094


def add(request: Request) -> Result:
    """Make the link, get addresses, configure it."""
    return sublink.add(request, _plan(request))


def check(request: Request) -> None:
    """Compare everything ADD set with the kernel."""
    sublink.check(request, _plan(request))


def status(request: Request) -> None:
    """Look for the driver, the master and IPAM."""
    sublink.status(request, _plan(request))


def _plan(request: Request) -> sublink.Plan:
    conf: VlanConf = request.conf
    if not 0 <= conf.vlan_id <= _MAX_VLAN:
        raise InvalidConfigError(
            f"invalid VLAN ID {conf.vlan_id} (must be between 0 and {_MAX_VLAN} inclusive)"
        )
    if not conf.ipam.type:
        raise InvalidConfigError("vlan needs an IPAM plugin", 'set ipam.type, as in "host-local"')
    plan = sublink.Plan("vlan", (vlan_id(conf.vlan_id),))
    plan.parent, plan.in_container, plan.mtu = conf.master, conf.link_in_container, conf.mtu
    return plan


PLUGIN = Plugin("vlan", "VlanConf", add=add, delete=sublink.delete, check=check, status=status, gc=sublink.gc)
