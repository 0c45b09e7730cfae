"""vlan: a tagged VLAN of one of the host's interfaces (IEEE 802.1Q; CNI 1.1.0, section 2).

It owns the vlan link in the container, which goes with the namespace: a VLAN of a master is one container's.
Addresses come from an IPAM delegate.
"""

from __future__ import annotations

from cni_plugins.attach import sublink
from cni_plugins.kernel.sublink import vlan_id
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.config.sublink import VlanConf
    from cni_plugins.spec.request import Request

_MAX_VLAN = 4094


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


PLUGIN = sublink.plugin("vlan", "VlanConf", _plan)
