"""What one kernel has and another lacks, by a name that a test can ask for: `@pytest.mark.kernel("dummy")`.

A feature is looked for by using it, in a node of its own: no file says for certain what a kernel can do, and
modules load on demand.
"""

from __future__ import annotations

import functools

from integration.node import Node

_PARENT = "ip link add parent type veth peer name other"
_INGRESS = "tc qdisc add dev lo clsact; tc filter add dev lo ingress"

FEATURES = {
    "bridge netfilter": "modprobe -q br_netfilter || :; test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
    "bridge VLAN filtering": "ip link add probe type bridge vlan_filtering 1",
    "802.1Q": f"{_PARENT}; ip link add link parent name probe type vlan id 10",
    "dummy": "ip link add probe type dummy",
    "ip_tables": "iptables-legacy -t nat -S && ip6tables-legacy -t nat -S",
    "ipip": "ip link add probe type ipip local 192.0.2.1 remote 192.0.2.2",
    "ipvlan": f"{_PARENT}; ip link add link parent name probe type ipvlan mode l2",
    "matchall": f"{_INGRESS} matchall action pass",
    "netem": "tc qdisc add dev lo root netem delay 1ms",
    # Those of the VM alone: a test takes them from the machine.
    "PCI network cards": "grep -qx cni-tests /sys/class/dmi/id/product_name",
    "police": f"{_INGRESS} u32 match u32 0 0 police rate 1mbit burst 10k",
    "vrf": "ip link add probe type vrf table 10",
    "wireguard": "ip link add probe type wireguard",
}
"""Shell commands that succeed where the feature is there."""


@functools.cache
def has(feature: str) -> bool:
    """Tell whether the kernel has a feature.

    Raises:
        KeyError: FEATURES does not name it.
    """
    with Node() as node:
        return node.run(["sh", "-ec", FEATURES[feature]], check=False).returncode == 0
