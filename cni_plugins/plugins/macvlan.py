"""macvlan: an interface with its own MAC address on top of one of the host's (CNI 1.1.0, section 2).

It owns the macvlan link in the container, which goes with the namespace. Addresses come from an IPAM
delegate; without one the link is layer 2 only. In the mode `passthru` a master serves one container, shares
its MAC address with it, and is promiscuous.
"""

from __future__ import annotations

from cni_plugins.attach import sublink
from cni_plugins.kernel.sublink import MACVLAN_MODES, macvlan_broadcast_queue, macvlan_mode
from cni_plugins.lazy import Lazy
from cni_plugins.spec.errors import InvalidConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.attach import configure
    from cni_plugins.config.sublink import MacvlanConf
    from cni_plugins.spec.request import Request
else:
    configure = Lazy("cni_plugins.attach.configure")


def _plan(request: Request) -> sublink.Plan:
    conf: MacvlanConf = request.conf
    mode = conf.mode or "bridge"
    if mode not in MACVLAN_MODES:
        raise InvalidConfigError(
            f'unknown macvlan mode: "{conf.mode}"', f"modes are {', '.join(MACVLAN_MODES)}"
        )
    options = [macvlan_mode(mode)]
    if conf.bcqueuelen:
        options.append(macvlan_broadcast_queue(conf.bcqueuelen))
    plan = sublink.Plan("macvlan", tuple(options))
    plan.parent, plan.in_container, plan.mtu = conf.master, conf.link_in_container, conf.mtu
    # Most specific first: the runtime, then the configuration's arguments, then the environment.
    mac = conf.runtime_config.mac or conf.args.cni.mac or request.cni_args().get("MAC", "") or conf.mac
    if mac:
        plan.mac, plan.shares_parent_mac = configure.parse_mac(mac), mode == "passthru"
    return plan


PLUGIN = sublink.plugin("macvlan", "MacvlanConf", _plan)
