"""portmap beside the reference's: the same rules, each removing what the other made."""

from __future__ import annotations

import json

import pytest

from integration.node import PEER, Node
from integration.portmaps import (
    NODE4,
    cni_rules,
    conf,
    make_pod,
    mapping,
    nat,
    pod4,
    pod6,
)


def test_reference_format(net: Node) -> None:
    """What nft shows is, letter for letter, what it shows of the reference's rules."""
    pod = make_pod(net, 2)
    net.add("portmap", conf(2, mapping(8080, 80), mapping(53, 53, "udp", hostIP=NODE4)), netns=pod)
    shown = net.run(["nft", "--stateless", "list", "table", "ip", "cni_hostport"]).stdout.decode()
    assert (
        shown
        == f"""table ip cni_hostport {{
	comment "CNI portmap plugin"
	chain hostports {{
		tcp dport 8080 dnat to {pod4(2)}:80 comment "c1"
		ip daddr {NODE4} udp dport 53 dnat to {pod4(2)}:53 comment "c1"
	}}

	chain hostip_hostports {{
	}}

	chain hostports_all {{
		jump hostip_hostports
		jump hostports
	}}

	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump hostports_all
	}}

	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump hostports_all
	}}

	chain masquerading {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 127.0.0.1 ip daddr {pod4(2)} masquerade comment "c1"
		ip saddr {pod4(2)} ip daddr {pod4(2)} masquerade comment "c1"
	}}
}}
"""
    )
    shown = net.run(
        ["nft", "--stateless", "list", "chain", "ip6", "cni_hostport", "hostports"]
    ).stdout.decode()
    assert f'tcp dport 8080 dnat to [{pod6(2)}]:80 comment "c1"' in shown
    assert "udp" not in shown


@pytest.mark.peer
def test_swapped_with_the_reference(net: Node) -> None:
    """Debian's portmap 1.1.1 knows only iptables."""
    pod = make_pod(net, 2)
    given = conf(2, mapping(80, 80), mapping(53, 53, "udp"))
    net.add("portmap", given, netns=pod, plugins=PEER)
    assert net.cni("CHECK", "portmap", given, netns=pod) == (0, None)
    net.delete("portmap", given, netns=pod)
    assert cni_rules(net) == ""

    # Its CHECK looks for the rules of each family in both, and so can pass only where one is hidden from it
    single = conf(2, mapping(80, 80), mapping(53, 53, "udp"), families="4")
    net.add("portmap", {**single, "backend": "iptables"}, netns=pod)
    net.run(["sh", "-ec", "mkdir /run/only; ln -s /usr/sbin/iptables /run/only/iptables"])
    env = {
        "CNI_COMMAND": "CHECK",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/pod2",
        "CNI_PATH": PEER,
        "PATH": "/run/only",
    }
    net.run([f"{PEER}/portmap"], env, json.dumps({**single, "type": "portmap"}).encode())
    net.delete("portmap", single, netns=pod, plugins=PEER)
    assert cni_rules(net) == ""

    ours = {**given, "backend": "iptables"}
    net.add("portmap", ours, netns=pod)
    net.delete("portmap", given, netns=pod, plugins=PEER)
    assert cni_rules(net) == ""
    net.delete("portmap", ours, netns=pod)

    # One of each on the same base chains
    net.add("portmap", given, netns=pod, plugins=PEER, container="go")
    net.add("portmap", ours, netns=pod, container="py")
    shown = nat(net).splitlines()
    assert sum(line.startswith(("-A PREROUTING", "-A OUTPUT", "-A POSTROUTING")) for line in shown) == 3
    collect = {"cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": []}
    assert net.cni("GC", "portmap", collect) == (0, None)
    assert cni_rules(net) == ""
