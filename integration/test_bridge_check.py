"""CHECK of the bridge plugin finds what someone has broken, and is content again when it is repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    CHECK_FAILED,
    GW4,
    bridge,
    check,
    dual_stack,
    ipam,
    pods,
    port_of,
    refusal,
)

if TYPE_CHECKING:
    from integration.node import Node

BRIDGE_ADDRESSES = "ip address replace 10.77.0.1/24 dev br0; ip address replace fd00:77::1/64 dev br0 nodad"
POD_UP = (
    "ip link set eth0 up; ip address replace fd00:77::2/64 dev eth0 nodad;"
    "ip route replace default via 10.77.0.1; ip -6 route replace default via fd00:77::1"
)
RESERVED = "/var/lib/cni/networks/net/10.77.0.2"
SAVED = "/run/saved"
RESTORE_NFT = f"nft flush ruleset; nft -f {SAVED}"
RESTORE_IPTABLES = f"iptables-restore < {SAVED}.4"

# What breaks it and what repairs it, in the container or on the host ({port}: its end of the pair; {mac}: the
# container's address), and what CHECK says.
CONTAINER: dict[str, tuple[str, str, str]] = {
    "container's interface down": ("ip link set eth0 down", POD_UP, "'eth0' of the container is down"),
    "container's interface renamed": (
        "ip link set eth0 down; ip link set eth0 name eth1",
        f"ip link set eth1 name eth0; {POD_UP}",
        "'eth0' of the container is gone",
    ),
    "IPv4 address deleted": (
        "ip address delete 10.77.0.2/24 dev eth0",
        f"ip address add 10.77.0.2/24 dev eth0; {POD_UP}",
        "address 10.77.0.2/24 is missing on interface 'eth0'",
    ),
    "IPv4 address with another length": (
        "ip address add 10.77.0.2/16 dev eth0; ip address delete 10.77.0.2/24 dev eth0",
        f"ip address add 10.77.0.2/24 dev eth0; ip address delete 10.77.0.2/16 dev eth0; {POD_UP}",
        "address 10.77.0.2/24 is missing",
    ),
    "IPv6 address deleted": (
        "ip address delete fd00:77::2/64 dev eth0",
        POD_UP,
        "address fd00:77::2/64 is missing on interface 'eth0'",
    ),
    "IPv4 route deleted": (
        "ip route delete default",
        POD_UP,
        "route 0.0.0.0/0 via 10.77.0.1 is missing on interface 'eth0'",
    ),
    "IPv4 route through another gateway": (
        "ip route replace default via 10.77.0.9",
        POD_UP,
        "route 0.0.0.0/0 via 10.77.0.1 is missing",
    ),
    "IPv6 route deleted": ("ip -6 route delete default", POD_UP, "route ::/0 via fd00:77::1 is missing"),
    "container's MTU": ("ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "has MTU 1400, not 1500"),
    "container's MAC": (
        "ip link set eth0 address 02:00:00:00:00:99",
        f"ip link set eth0 address {{mac}}; {POD_UP}",
        "has MAC address 02:00:00:00:00:99, not {mac}",
    ),
}
HOST: dict[str, tuple[str, str, str]] = {
    "port down": ("ip link set {port} down", "ip link set {port} up", "'{port}' of the host is down"),
    "port off the bridge": (
        "ip link set {port} nomaster",
        "ip link set {port} master br0; bridge link set dev {port} hairpin on isolated on",
        "'{port}' is not a port of bridge 'br0'",
    ),
    "port on another bridge": (
        "ip link add br1 type bridge; ip link set {port} master br1",
        "ip link set {port} master br0; bridge link set dev {port} hairpin on isolated on",
        "'{port}' is not a port of bridge 'br0'",
    ),
    "port's MTU": ("ip link set {port} mtu 1400", "ip link set {port} mtu 1500", "has MTU 1400, not 1500"),
    "port's MAC": (
        "ip link set {port} address 02:00:00:00:00:98",
        "ip link set {port} address {portmac}",
        "has MAC address 02:00:00:00:00:98, not {portmac}",
    ),
    "bridge's MAC": (
        "ip link set br0 address 02:00:00:00:00:97",
        "ip link set br0 address {brmac}",
        "has MAC address 02:00:00:00:00:97, not {brmac}",
    ),
    "bridge down": (
        "ip link set br0 down",
        f"ip link set br0 up; {BRIDGE_ADDRESSES}",
        "'br0' of the host is down",
    ),
    "bridge replaced by another kind of link": (
        "ip link set br0 name br9; ip link add br0 type veth peer name other",
        "ip link delete br0; ip link set br9 name br0",
        "'br0' of the host is a veth, not a bridge",
    ),
    "IPv4 gateway address deleted": (
        "ip address delete 10.77.0.1/24 dev br0",
        BRIDGE_ADDRESSES,
        "gateway address 10.77.0.1/24 is missing on 'br0'",
    ),
    "IPv6 gateway address deleted": (
        "ip address delete fd00:77::1/64 dev br0",
        BRIDGE_ADDRESSES,
        "gateway address fd00:77::1/64 is missing on 'br0'",
    ),
    "IPv4 forwarding off": (
        "sysctl -q net.ipv4.ip_forward=0",
        "sysctl -q net.ipv4.ip_forward=1",
        "forwarding is off: net.ipv4.ip_forward is 0",
    ),
    "IPv6 forwarding off": (
        "sysctl -q net.ipv6.conf.all.forwarding=0",
        "sysctl -q net.ipv6.conf.all.forwarding=1",
        "forwarding is off: net.ipv6.conf.all.forwarding is 0",
    ),
    "hairpin mode off": (
        "bridge link set dev {port} hairpin off",
        "bridge link set dev {port} hairpin on",
        "hairpin mode of '{port}' is off",
    ),
    "isolation off": (
        "bridge link set dev {port} isolated off",
        "bridge link set dev {port} isolated on",
        "port isolation of '{port}' is off",
    ),
    "masquerade rules deleted": (
        "nft flush chain inet cni_plugins_masquerade masq_checks",
        RESTORE_NFT,
        "masquerades 10.77.0.2",
    ),
    "masquerade's base chain emptied": (
        "nft flush chain inet cni_plugins_masquerade postrouting",
        RESTORE_NFT,
        "postrouting of table cni_plugins_masquerade",
    ),
    "masquerade's table deleted": (
        "nft delete table inet cni_plugins_masquerade",
        RESTORE_NFT,
        "cni_plugins_masquerade",
    ),
    "spoof check's rule deleted": (
        "nft flush chain bridge nat PREROUTING",
        RESTORE_NFT,
        "frames from {port} are not checked",
    ),
    "spoof check's last rule deleted": (
        "nft flush chain bridge nat cni-br-iface-c1-eth0-mac",
        RESTORE_NFT,
        "cni-br-iface-c1-eth0-mac does not let just {mac} pass",
    ),
    "reservation gone": (
        f"mv {RESERVED} {SAVED}.ip",
        f"mv {SAVED}.ip {RESERVED}",
        "host-local: 10.77.0.2 is not reserved",
    ),
    "reservation is another's": (
        f"cp -p {RESERVED} {SAVED}.ip; printf 'c9\\r\\neth0' > {RESERVED}",
        f"rm {RESERVED}; cp -p {SAVED}.ip {RESERVED}",
        "host-local: 10.77.0.2 is not reserved",
    ),
}
EVERYTHING = dual_stack(ipMasq=True, macspoofchk=True, hairpinMode=True, portIsolation=True)


def shell(node: Node, script: str, netns: str = "") -> None:
    node.run(["sh", "-ec", script], netns=netns)


def breaks_and_heals(
    node: Node, conf: dict[str, Any], case: tuple[str, str, str], netns: str = "", *, restore: bool = True
) -> None:
    """Attach a pod, check it, break something, see that CHECK says so, repair it and check again."""
    result = pods(node, conf, "c1")[0]
    shell(node, f"nft list ruleset > {SAVED}; iptables-save > {SAVED}.4")
    names = {
        "port": port_of(result),
        "brmac": result["interfaces"][0]["mac"],
        "portmac": result["interfaces"][1]["mac"],
        "mac": result["interfaces"][2]["mac"],
    }
    damage, repair, found = (text.format(**names) for text in case)
    assert not check(node, "bridge", conf, result)
    shell(node, damage, netns)
    assert found in check(node, "bridge", conf, result)
    if restore:
        shell(node, repair, netns)
        assert not check(node, "bridge", conf, result)


@pytest.mark.parametrize("case", CONTAINER.values(), ids=CONTAINER)
def test_in_the_container(node: Node, case: tuple[str, str, str]) -> None:
    breaks_and_heals(node, dual_stack(), case, "c1")


@pytest.mark.parametrize("case", HOST.values(), ids=HOST)
def test_on_the_host(node: Node, case: tuple[str, str, str]) -> None:
    breaks_and_heals(node, EVERYTHING, case)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("ip link delete {port}", "'eth0' of the container is gone"),
        ("ip link delete br0", "'br0' of the host is gone"),
        ("rm -r /var/lib/cni/networks/net", "failed to find an address of container c1"),
    ],
)
def test_what_cannot_be_repaired(node: Node, damage: str, found: str) -> None:
    breaks_and_heals(node, EVERYTHING, (damage, "", found), restore=False)


def test_promiscuous_mode(node: Node) -> None:
    case = ("ip link set br0 promisc off", "ip link set br0 promisc on", "promiscuous mode of 'br0' is off")
    breaks_and_heals(node, bridge(promiscMode=True), case)


@pytest.mark.parametrize(
    "damage",
    [
        "iptables -t nat -F POSTROUTING",
        "iptables -t nat -D $(iptables -t nat -S | sed -n 's/^-N \\(CNI-.*\\)/\\1/p') 2",
    ],
    ids=["entry", "masquerade"],
)
def test_masquerade_by_iptables(node: Node, damage: str) -> None:
    conf = bridge(ipMasq=True, ipMasqBackend="iptables")
    breaks_and_heals(node, conf, (damage, RESTORE_IPTABLES, "iptables rule is missing"))


def test_layer_2_only(node: Node) -> None:
    case = ("ip link set {port} nomaster", "ip link set {port} master br0", "is not a port of bridge 'br0'")
    breaks_and_heals(node, bridge(isGateway=False, ipam={}), case)


def test_later_plugins_may_add_but_not_take(node: Node) -> None:
    """Section 2 of the specification: what chained plugins changed is not for this one to judge."""
    conf = dual_stack(ipam=ipam(routes=[{"dst": "10.9.0.0/16"}]), isDefaultGateway=False)
    result = pods(node, conf, "c1")[0]
    shell(
        node,
        f"ip address add 192.0.2.9/24 dev eth0; ip route add 10.10.0.0/16 via {GW4};"
        "ip link add more type bridge",
        "c1",
    )
    result["interfaces"].append({"name": "ifb0", "mac": "02:00:00:00:00:01"})
    result["ips"].append({"address": "192.0.2.9/24", "interface": 3})
    assert not check(node, "bridge", conf, result)
    shell(node, "ip route delete 10.9.0.0/16", "c1")
    assert "10.9.0.0/16" in check(node, "bridge", conf, result)


def without(result: Any, **changes: Any) -> Any:
    return {**result, **changes}


def test_prev_result_of_another_container(node: Node) -> None:
    conf = bridge()
    result, other = pods(node, conf, "c1", "c2")
    assert "doesn't match CNI_NETNS" in check(node, "bridge", conf, other)
    assert "no container interface 'eth0'" in check(node, "bridge", conf, without(result, interfaces=[]))
    swapped = without(result, ips=[{**result["ips"][0], "address": "10.77.0.3/24"}])
    assert "10.77.0.3" in check(node, "bridge", conf, swapped)
    answer = refusal(node, "CHECK", "bridge", conf, netns="c1")
    assert (answer["code"], "prevResult" in answer["msg"]) == (7, True)


def test_a_pod_that_is_gone(node: Node) -> None:
    conf = bridge()
    result = pods(node, conf, "c1")[0]
    node.delete("bridge", conf, netns="c1")
    answer = refusal(node, "CHECK", "bridge", {**conf, "prevResult": result}, netns="c1")
    assert answer["code"] == CHECK_FAILED
    node.remove_netns("c1")
    answer = refusal(node, "CHECK", "bridge", {**conf, "prevResult": result}, netns="c1")
    assert "/run/netns/c1" in answer["msg"] or answer["code"] == CHECK_FAILED
