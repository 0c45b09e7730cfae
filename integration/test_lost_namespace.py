"""DEL where CNI_NETNS leads to a plain file: what a namespace was mounted on stays when the mount is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_plugins.multicall import MODULES
from integration.checks import bridge, ipam, ptp, unmount_netns

if TYPE_CHECKING:
    from integration.node import Node

CONFS: dict[str, dict[str, Any]] = {
    "bridge": bridge(ipMasq=True),
    "ptp": ptp(ipMasq=True),
    "macvlan": {"master": "uplink", "ipam": ipam()},
    "ipvlan": {"master": "uplink", "ipam": ipam()},
    "vlan": {"master": "uplink", "vlanId": 5, "ipam": ipam()},
    "dummy": {"ipam": ipam()},
    "host-device": {"device": "uplink", "ipam": ipam()},
    "tap": {"ipam": ipam()},
    "loopback": {},
    "vrf": {"vrfname": "red"},
    "sbr": {},
    "tuning": {"mtu": 1400},
    "bandwidth": {},
    "portmap": {},
    "firewall": {},
}


def test_delete_by_every_plugin(node: Node) -> None:
    assert {*CONFS} == {*MODULES} - {"dhcp", "flannel", "host-local", "static"}
    node.netns("c1")
    unmount_netns(node, "c1")
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.2/24"}]}
    for plugin, conf in CONFS.items():
        whole = {"cniVersion": "1.1.0", "name": "net", "prevResult": previous, **conf}
        node.delete(plugin, whole, netns="c1")
