"""The bridge plugin's main job, with delegates in its own process and with delegates that are executed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    GW4,
    GW6,
    V4,
    V6,
    address_of,
    addresses,
    bridge,
    check,
    dual_stack,
    ipam,
    leftovers,
    ping,
    pods,
    port_of,
    reservations,
    routes,
    source_seen,
)
from integration.node import Node
from integration.specification import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRAPPER = """#!/bin/sh
echo "$CNI_COMMAND" >> {log}
exec {copy}/"${{0##*/}}"
"""


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory, suite_bin: str) -> str:
    """The suite once more: the same programs in other files."""
    folder = tmp_path_factory.mktemp("copy") / "cni"
    shutil.copytree(suite_bin, folder, symlinks=True)
    return str(folder)


def mixed(folder: Path, suite_bin: str, copy: str) -> str:
    """Fill a folder with our bridge and a host-local of the copy, behind a script that says when it runs."""
    names = folder / "bin"
    names.mkdir()
    (names / "bridge").symlink_to(f"{suite_bin}/bridge")
    (names / "host-local").write_text(WRAPPER.format(log=folder / "log", copy=copy))
    (names / "host-local").chmod(0o755)
    return str(names)


@pytest.fixture(params=["in-process", "executed"])
def node(request: pytest.FixtureRequest, suite_bin: str, copy: str, tmp_path: Path) -> Iterator[Node]:
    """A machine with our plugins, whose delegates run in the one way or in the other."""
    with Node(suite_bin if request.param == "in-process" else mixed(tmp_path, suite_bin, copy)) as made:
        yield made


def test_two_pods_of_both_families_talk_and_leave_nothing(node: Node) -> None:
    conf = dual_stack()
    results = pods(node, conf, "c1", "c2")
    for number in (0, 1):
        one, two = (address_of(result, number) for result in results)
        assert source_seen(node, "c1", "c2", two) == one
        assert source_seen(node, "c2", "c1", one) == two
        assert all(ping(node, each, (GW4, GW6)[number]) for each in ("c1", "c2"))
    assert routes(node, "c1") == {(V4, ""), ("default", GW4)}
    assert routes(node, "c1", 6) == {(V6, ""), ("default", GW6)}
    assert not check(node, "bridge", conf, results[0])
    assert reservations(node) == {"10.77.0.2", "10.77.0.3", "fd00:77::2", "fd00:77::3"}
    node.delete("bridge", conf, netns="c1")
    assert reservations(node) == {"10.77.0.3", "fd00:77::3"}
    assert not check(node, "bridge", conf, results[1], container="c2", netns="c2")
    node.delete("bridge", conf, container="c2", netns="c2")
    assert leftovers(node, "c1", "c2") == []


def test_the_result_is_what_the_kernel_has(node: Node) -> None:
    result = pods(node, dual_stack(mtu=1400), "c1")[0]
    host, inside = node.links(), node.links("c1")["eth0"]
    port = host[port_of(result)]
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br0", "mac": host["br0"]["address"], "mtu": host["br0"]["mtu"]},
            {"name": port["ifname"], "mac": port["address"], "mtu": 1400},
            {"name": "eth0", "mac": inside["address"], "mtu": 1400, "sandbox": "/run/netns/c1"},
        ],
        "ips": [
            {"interface": 2, "address": "10.77.0.2/24", "gateway": GW4},
            {"interface": 2, "address": "fd00:77::2/64", "gateway": GW6},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": GW4}, {"dst": "::/0", "gw": GW6}],
    }
    assert addresses(inside) == {"10.77.0.2/24", "fd00:77::2/64"}
    assert port["ifname"].startswith("veth")
    assert len(port["ifname"]) == len("veth") + 8
    assert port["master"] == "br0"
    assert port["ifindex"] == inside["link_index"]
    assert {"UP", "LOWER_UP"} <= set(port["flags"]) & set(inside["flags"]) & set(host["br0"]["flags"])


@pytest.mark.parametrize("version", SHAPES)
def test_each_shape_of_a_result(node: Node, version: str) -> None:
    conf = dual_stack(cniVersion=version)
    result = pods(node, conf, "c1")[0]
    assert result["cniVersion"] == version
    if version == "0.2.0":
        assert result == {
            "cniVersion": version,
            "ip4": {"ip": "10.77.0.2/24", "gateway": GW4, "routes": [{"dst": "0.0.0.0/0", "gw": GW4}]},
            "ip6": {"ip": "fd00:77::2/64", "gateway": GW6, "routes": [{"dst": "::/0", "gw": GW6}]},
        }
    else:
        families = [ip.get("version") for ip in result["ips"]]
        assert families == (["4", "6"] if version.startswith("0.") else [None, None])
        assert all(("mtu" in each) is (version == "1.1.0") for each in result["interfaces"])
        assert all(each["mac"] for each in result["interfaces"])
    assert addresses(node.links("c1")["eth0"]) == {"10.77.0.2/24", "fd00:77::2/64"}


def test_without_ipam_it_is_layer_2_only(node: Node) -> None:
    conf = bridge(isGateway=False, ipam={})
    node.netns("c1")
    result = node.add("bridge", conf, netns="c1")
    assert "ips" not in result
    assert [each["name"] for each in result["interfaces"]] == ["br0", port_of(result), "eth0"]
    inside, host = node.links("c1")["eth0"], node.links()
    assert "UP" in inside["flags"]
    assert addresses(inside) == set() == addresses(host["br0"])
    assert not check(node, "bridge", conf, result)
    node.delete("bridge", conf, netns="c1")
    assert leftovers(node, "c1") == []


def test_several_sets_and_ranges_of_one_family(node: Node) -> None:
    narrow = [
        {"subnet": V4, "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"},
        {"subnet": "10.77.1.0/24", "gateway": "10.77.1.254"},
    ]
    conf = bridge(forceAddress=True, ipam=ipam(ranges=[narrow, [{"subnet": "10.77.2.0/24"}]]))
    results = pods(node, conf, "c1", "c2")
    given = [[(ip["address"], ip["gateway"]) for ip in result["ips"]] for result in results]
    assert given == [
        [("10.77.0.9/24", GW4), ("10.77.2.2/24", "10.77.2.1")],
        [("10.77.1.1/24", "10.77.1.254"), ("10.77.2.3/24", "10.77.2.1")],
    ]
    assert addresses(node.links("c2")["eth0"]) == {"10.77.1.1/24", "10.77.2.3/24"}
    assert ping(node, "c1", "10.77.2.3")
    assert ping(node, "c2", "10.77.1.254")


def test_a_container_on_two_interfaces_and_two_networks(node: Node) -> None:
    other = bridge(name="net2", bridge="br1", ipam=ipam("10.77.8.0/24"))
    first = pods(node, bridge(), "c1")[0]
    second = node.add("bridge", other, netns="c1", ifname="net1")
    third = node.add("bridge", bridge(), netns="c1", ifname="net2")
    assert [address_of(each) for each in (first, second, third)] == ["10.77.0.2", "10.77.8.2", "10.77.0.3"]
    node.delete("bridge", bridge(), netns="c1")
    assert set(node.links("c1")) == {"lo", "net1", "net2"}
    assert not check(node, "bridge", other, second, ifname="net1")
    assert not check(node, "bridge", bridge(), third, ifname="net2")
    assert reservations(node) == {"10.77.0.3"}


def test_dns_of_the_network_goes_before_that_of_ipam(node: Node) -> None:
    with open(node.path("/etc/pod-resolv.conf"), "w", encoding="ascii") as file:
        file.write("nameserver 192.0.2.53\nsearch example.org\n")
    own: dict[str, Any] = {"nameservers": ["192.0.2.54"]}
    result = pods(node, bridge(ipam=ipam(resolvConf="/etc/pod-resolv.conf")), "c1")[0]
    assert result["dns"] == {"nameservers": ["192.0.2.53"], "search": ["example.org"]}
    result = pods(node, bridge(ipam=ipam(resolvConf="/etc/pod-resolv.conf"), dns=own), "c2")[0]
    assert result["dns"] == own


def test_metrics_of_routes_reach_the_kernel(node: Node) -> None:
    given = [
        {"dst": "10.80.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 77},
        {"dst": "10.81.0.0/16", "gw": "10.77.0.7", "table": 100},
        {"dst": "10.82.0.0/16", "scope": 253},
    ]
    conf = bridge(ipam=ipam(routes=given))
    result = pods(node, conf, "c1")[0]
    assert result["routes"] == given
    shown = node.exec("c1", "ip", "route", "show", "table", "all")
    assert f"10.80.0.0/16 via {GW4} dev eth0 metric 77 mtu 1300 advmss 1200" in shown
    assert "10.81.0.0/16 via 10.77.0.7 dev eth0 table 100" in shown
    assert "10.82.0.0/16 dev eth0 scope link" in shown
    assert not check(node, "bridge", conf, result)


def test_both_ways_of_delegating_give_the_same(suite_bin: str, copy: str, tmp_path: Path) -> None:
    conf = dual_stack(mac="02:00:00:00:00:01")
    answers = []
    for folder in (suite_bin, mixed(tmp_path, suite_bin, copy)):
        with Node(folder) as made:
            made.netns("c1")
            made.netns("c2")
            status, result = made.cni("ADD", "bridge", conf, netns="c1")
            del result["interfaces"][:2]  # of the host: names and addresses are random
            again = made.cni("ADD", "bridge", conf, netns="c2")  # one address for one attachment
            broken = {**conf, "ipam": ipam("10.77.0.0/33")}
            failed = [made.cni(verb, "bridge", broken, container="c3", netns="c2") for verb in ("ADD", "DEL")]
            answers.append([status, result, again, failed, made.cni("STATUS", "bridge", broken)])
    assert answers[0] == answers[1]
    # the pod, one that is refused since it exists, the broken one, which is deleted at once, and STATUS
    assert (tmp_path / "log").read_text().split() == ["ADD", "ADD", "ADD", "DEL", "DEL", "STATUS"]
