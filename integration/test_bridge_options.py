"""Options of the bridge plugin, each seen in traffic or in the kernel's own state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    BROADCAST,
    CONFLICT,
    GW4,
    V4,
    V6,
    Wire,
    address_of,
    addresses,
    bridge,
    check,
    dual_stack,
    ipam,
    leftovers,
    mac_bytes,
    ping,
    pod_rules,
    pods,
    port_of,
    refusal,
)
from integration.waiting import PATIENCE

if TYPE_CHECKING:
    from integration.node import Node

FORGED = bytes.fromhex("0200000000ff")


def mac_of(node: Node, pod: str) -> bytes:
    return mac_bytes(node.links(pod)["eth0"]["address"])


def port_data(node: Node, result: Any) -> Any:
    return node.links()[port_of(result)]["linkinfo"]["info_slave_data"]


def test_bridge_name_and_its_default(node: Node) -> None:
    named, default = bridge(), bridge(name="net2", ipam=ipam("10.78.0.0/24"))
    del default["bridge"]
    first, second = pods(node, named, "c1")[0], pods(node, default, "c2")[0]
    links = node.links()
    assert [each["interfaces"][0]["name"] for each in (first, second)] == ["br0", "cni0"]
    assert [links[port_of(each)]["master"] for each in (first, second)] == ["br0", "cni0"]
    assert {links[name]["linkinfo"]["info_kind"] for name in ("br0", "cni0")} == {"bridge"}
    before = links["br0"]["address"]  # its own: it would change with its ports otherwise
    assert before != links[port_of(first)]["address"]
    node.delete("bridge", named, netns="c1")
    pods(node, named, "c3")
    assert node.links()["br0"]["address"] == before


@pytest.mark.parametrize("mtu", [1280, 1400, 9000])
def test_mtu(node: Node, mtu: int) -> None:
    first, second = pods(node, bridge(mtu=mtu), "c1", "c2")
    host = node.links()
    measured = [host["br0"], host[port_of(first)], node.links("c1")["eth0"], node.links("c2")["eth0"]]
    assert [link["mtu"] for link in measured] == [mtu] * 4
    assert [each["mtu"] for each in first["interfaces"]] == [mtu] * 3
    headers = 28
    assert ping(node, "c1", address_of(second), "-Mdo", f"-s{mtu - headers}")
    assert not ping(node, "c1", address_of(second), "-Mdo", f"-s{mtu - headers + 1}", wait=0.3)


def test_mtu_left_to_the_kernel(node: Node) -> None:
    pods(node, bridge(), "c1")
    assert node.links("c1")["eth0"]["mtu"] == 1500


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin_mode_sends_a_frame_back_where_it_came_from(node: Node, hairpin: bool) -> None:
    first, _second = pods(node, bridge(hairpinMode=hairpin), "c1", "c2")
    assert port_data(node, first)["hairpin"] is hairpin
    with Wire(node, "c1") as sender, Wire(node, "c2") as other:
        sender.send(b"around", source=mac_of(node, "c1"))
        assert other.payload() == b"around"
        assert sender.payload(PATIENCE if hairpin else 0.2) == (b"around" if hairpin else b"")


@pytest.mark.parametrize("promiscuous", [False, True])
def test_promisc_mode_lets_the_host_see_what_is_not_for_it(node: Node, promiscuous: bool) -> None:
    pods(node, bridge(promiscMode=promiscuous), "c1", "c2")
    assert ("PROMISC" in node.links()["br0"]["flags"]) is promiscuous
    with Wire(node, "", "br0") as host, Wire(node, "c1") as sender, Wire(node, "c2") as receiver:
        sender.send(b"private", source=mac_of(node, "c1"), target=mac_of(node, "c2"))
        assert receiver.payload() == b"private"
        assert host.payload(PATIENCE if promiscuous else 0.2) == (b"private" if promiscuous else b"")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"hairpinMode": True, "promiscMode": True}, ("hairpin mode", "promiscuous mode")),
        ({"vlan": 5, "vlanTrunk": [{"id": 6}]}, ("vlan", "vlanTrunk")),
        ({"disableContainerInterface": True}, ("disableContainerInterface", "IPAM")),
        ({"bridge": ""}, ("bridge", "is empty")),
        ({"bridge": "longer-than-15-b"}, ("bridge", "'longer-than-15-b' is too long")),
        ({"bridge": "a/b"}, ("bridge", "'a/b' contains /")),
        ({"bridge": "br%d"}, ("bridge", "'br%d' contains %")),
        ({"mtu": -1}, ("mtu",)),
        ({"vlan": 4095}, ("vlan", "4094")),
        ({"vlanTrunk": [{"minID": 5}]}, ("minID", "maxID")),
        ({"vlanTrunk": [{"minID": 5, "maxID": 4}]}, ("minID 5", "maxID 4")),
        ({"mac": "02:00:00:00:00"}, ("mac", "'02:00:00:00:00'")),
        ({"mac": "03:00:00:00:00:01"}, ("mac", "unicast")),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_options_that_exclude_each_other_or_mean_nothing(
    node: Node, verb: str, options: dict[str, Any], named: tuple[str, ...]
) -> None:
    node.netns("c1")
    answer = refusal(node, verb, "bridge", bridge(**options), netns="c1")
    assert answer["code"] == 7
    assert [word for word in named if word not in answer["msg"]] == []
    assert set(node.links()) == {"lo"}
    assert leftovers(node, "c1") == []


def test_macspoofchk_drops_what_has_a_forged_source(node: Node) -> None:
    conf = bridge(macspoofchk=True)
    result = pods(node, conf, "c1")[0]
    pods(node, bridge(), "c2")
    own = mac_of(node, "c1")
    with Wire(node, "c1") as sender, Wire(node, "c2") as receiver:
        sender.send(b"forged", source=FORGED)
        sender.send(b"true", source=own)
        assert receiver.payload() == b"true"
        receiver.send(b"of a pod without the check", source=FORGED)
        assert sender.payload() == b"of a pod without the check"
    rules = pod_rules(node)
    assert f'iifname "{port_of(result)}" jump cni-br-iface-c1-eth0 comment "macspoofchk-c1-eth0"' in rules
    node.delete("bridge", conf, netns="c1")
    node.delete("bridge", bridge(), container="c2", netns="c2")
    assert leftovers(node, "c1", "c2") == []


def test_without_macspoofchk_it_passes(node: Node) -> None:
    pods(node, bridge(), "c1", "c2")
    with Wire(node, "c1") as sender, Wire(node, "c2") as receiver:
        sender.send(b"forged", source=FORGED)
        assert receiver.payload() == b"forged"


def neighbour_solicitations(node: Node, seen_from: str, address: str) -> list[bytes]:
    """Return the DAD probes (RFC 4862, 5.4.2) for a new pod's address: their source is unspecified."""
    target = bytes.fromhex(address)
    with Wire(node, seen_from, ethertype=0x86DD) as wire:
        pods(node, dual_stack(enabledad=True), "c2")
        found = []
        for frame in wire.frames():
            source, kind, asked = frame[22:38], frame[54:55], frame[62:78]
            if kind == b"\x87" and source == bytes(16) and asked == target:
                found.append(frame)
                break
        return found


def test_enabledad_looks_for_duplicates(node: Node) -> None:
    pods(node, dual_stack(), "c1")
    assert neighbour_solicitations(node, "c1", "fd000077000000000000000000000003")
    assert ping(node, "c2", "fd00:77::2")


def test_enabledad_refuses_an_address_that_somebody_else_has(node: Node) -> None:
    pods(node, dual_stack(), "c1")
    node.exec("c1", "ip", "addr", "add", "fd00:77::3/64", "dev", "eth0", "nodad")
    node.netns("c2")
    answer = refusal(node, "ADD", "bridge", dual_stack(enabledad=True), netns="c2", container="c2")
    assert answer["code"] == CONFLICT
    assert "fd00:77::3/64 is in use by somebody else" in answer["msg"]
    assert "eth0" not in node.links("c2")


def test_a_bridge_that_runs_the_spanning_tree_protocol(node: Node) -> None:
    """Its ports forward half a minute later; nobody waits for that."""
    node.run(["ip", "link", "add", "br0", "up", "type", "bridge", "stp_state", "1"])
    result = pods(node, bridge(), "c1")[0]
    assert port_data(node, result)["state"] != "forwarding"


@pytest.mark.parametrize("enabledad", [False, True])
def test_enabledad_is_what_the_kernel_is_told(node: Node, enabledad: bool) -> None:
    pods(node, dual_stack(enabledad=enabledad), "c1")
    held = next(each for each in node.links("c1")["eth0"]["addr_info"] if each["local"] == "fd00:77::2")
    assert bool(held.get("nodad")) is not enabledad
    assert not held.get("tentative")
    assert node.exec("c1", "sysctl", "-n", "net.ipv6.conf.eth0.accept_dad").strip() == str(int(enabledad))
    assert ping(node, "c1", "fd00:77::1")


def test_disable_container_interface(node: Node) -> None:
    conf = bridge(isGateway=False, ipam={}, disableContainerInterface=True)
    node.netns("c1")
    result = node.add("bridge", conf, netns="c1")
    assert "ips" not in result
    inside = node.links("c1")["eth0"]
    assert "UP" not in inside["flags"]
    assert inside["addr_info"] == []
    assert node.links()[port_of(result)]["master"] == "br0"
    assert not check(node, "bridge", conf, result)
    node.delete("bridge", conf, netns="c1")
    assert leftovers(node, "c1") == []


def test_port_isolation_separates_pods_but_not_from_the_gateway(node: Node) -> None:
    first, second = pods(node, bridge(portIsolation=True), "c1", "c2")
    third = pods(node, bridge(), "c3")[0]
    assert [port_data(node, each)["isolated"] for each in (first, second, third)] == [True, True, False]
    with Wire(node, "c1") as one, Wire(node, "c2") as two, Wire(node, "c3") as free:
        one.send(b"from c1", source=mac_of(node, "c1"), target=BROADCAST)
        free.send(b"from c3", source=mac_of(node, "c3"), target=BROADCAST)
        assert two.payload() == b"from c3"
        assert free.payload() == b"from c1"
    assert not ping(node, "c1", address_of(second), wait=0.3)
    assert ping(node, "c1", address_of(third))
    assert ping(node, "c1", GW4)
    assert ping(node, "c2", GW4)


MACS: dict[str, dict[str, Any]] = {
    "runtimeConfig": {"runtimeConfig": {"mac": "02:00:00:00:00:01"}},
    "args": {"args": {"cni": {"mac": "02:00:00:00:00:02"}}},
    "mac": {"mac": "02:00:00:00:00:03"},
}


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (("runtimeConfig", "args", "mac"), True, "02:00:00:00:00:01"),
        (("args", "mac"), True, "02:00:00:00:00:02"),
        (("mac",), True, "02:00:00:00:00:03"),
        ((), True, "02:00:00:00:00:04"),
        (("mac",), False, "02:00:00:00:00:03"),
        (("runtimeConfig",), False, "02:00:00:00:00:01"),
    ],
)
def test_mac_by_its_four_ways(node: Node, given: tuple[str, ...], environment: bool, expected: str) -> None:
    conf = dual_stack()
    for name in given:
        conf |= MACS[name]
    result = pods(node, conf, "c1", args="MAC=02-00-00-00-00-04" if environment else "")[0]
    assert node.links("c1")["eth0"]["address"] == expected
    assert result["interfaces"][2]["mac"] == expected
    assert ping(node, "c1", GW4)
    assert not check(node, "bridge", conf, result)


def test_unknown_cni_args(node: Node) -> None:
    node.netns("c1")
    answer = refusal(node, "ADD", "bridge", bridge(), netns="c1", args="MAC=02:00:00:00:00:04;K8S_POD_UID=1")
    assert (answer["code"], "K8S_POD_UID" in answer["msg"]) == (4, True)
    node.add("bridge", bridge(), netns="c1", args="IgnoreUnknown=1;MAC=02:00:00:00:00:04;K8S_POD_UID=1")
    assert node.links("c1")["eth0"]["address"] == "02:00:00:00:00:04"


@pytest.mark.parametrize("way", ["CNI_ARGS", "args", "runtimeConfig"])
def test_requested_addresses_pass_through(node: Node, way: str) -> None:
    ways: dict[str, dict[str, Any]] = {
        "CNI_ARGS": {},
        "args": {"args": {"cni": {"ips": ["10.77.0.99"]}}},
        "runtimeConfig": {"runtimeConfig": {"ips": ["10.77.0.99/24"]}},
    }
    pods(node, bridge(**ways[way]), "c1", args="IP=10.77.0.99" if way == "CNI_ARGS" else "")
    assert addresses(node.links("c1")["eth0"]) == {"10.77.0.99/24"}


@pytest.mark.parametrize("subnets", [(V4,), (V6,), (V4, V6)])
def test_container_sysctls(node: Node, subnets: tuple[str, ...]) -> None:
    """IPv6 is switched on where it is used; routers on the bridge configure nothing of the host's."""
    node.netns("c1")
    node.exec("c1", "sysctl", "-q", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
    result = node.add("bridge", bridge(ipam=ipam(*subnets)), netns="c1")
    keys = ("net.ipv6.conf.eth0.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6")
    values = node.exec("c1", "sysctl", "-n", *keys).split()
    assert values == (["0", "0"] if V6 in subnets else ["1", "1"])
    keys = (f"net.ipv6.conf.{port_of(result)}.accept_ra", "net.ipv6.conf.br0.accept_ra")
    assert node.run(["sysctl", "-n", *keys]).stdout.split() == [b"0", b"0"]
