"""The flannel plugin: what it makes of the daemon's file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    GW4,
    OUTSIDE4,
    UPLINK4,
    V4,
    V6,
    address_of,
    addresses,
    check,
    leftovers,
    outside,
    ping,
    refusal,
    reservations,
    routes,
    source_seen,
)
from integration.flannel import (
    DUAL,
    ONLY4,
    ONLY6,
    SUBNET_FILE,
    flannel,
    flannel_pods,
    scratch,
    write_subnet_env,
)

if TYPE_CHECKING:
    from integration.node import Node


def test_a_pod_gets_the_nodes_subnet_and_a_route_to_the_cluster(node: Node) -> None:
    write_subnet_env(node)
    first, second = flannel_pods(node, flannel(), "c1", "c2")
    assert [each["name"] for each in first["interfaces"]][::2] == ["cni0", "eth0"]
    assert first["ips"] == [{"interface": 2, "address": "10.77.0.2/24", "gateway": GW4}]
    assert first["routes"] == [{"dst": "10.76.0.0/15"}]
    assert routes(node, "c1") == {(V4, ""), ("10.76.0.0/15", GW4)}
    assert addresses(node.links()["cni0"]) == {f"{GW4}/24"}
    assert node.links("c1")["eth0"]["mtu"] == 1450
    assert ping(node, "c1", address_of(second))
    assert not check(node, "flannel", flannel(), first)
    for pod in ("c1", "c2"):
        node.delete("flannel", flannel(), container=pod, netns=pod)
    assert leftovers(node, "c1", "c2") == []


@pytest.mark.parametrize(
    ("env", "held", "cluster"),
    [
        (DUAL, {"10.77.0.2/24", "fd00:77::2/64"}, {("10.76.0.0/15", GW4), ("fd00::/16", "fd00:77::1")}),
        (ONLY6, {"fd00:77::2/64"}, {("fd00::/16", "fd00:77::1")}),
        (
            {**ONLY4, "FLANNEL_NETWORK": "10.76.0.0/15,10.90.0.0/16,10.76.0.0/15"},
            {"10.77.0.2/24"},
            {("10.76.0.0/15", GW4), ("10.90.0.0/16", GW4)},
        ),
    ],
    ids=["dual-stack", "IPv6", "several networks"],
)
def test_families_and_networks(
    node: Node, env: dict[str, str], held: set[str], cluster: set[tuple[str, str]]
) -> None:
    write_subnet_env(node, env)
    first, second = flannel_pods(node, flannel(), "c1", "c2")
    assert addresses(node.links("c1")["eth0"]) == held
    assert routes(node, "c1") | routes(node, "c1", 6) >= cluster
    assert len(first["routes"]) == len(cluster)
    assert all(ping(node, "c1", address_of(second, number)) for number in range(len(held)))
    assert not check(node, "flannel", flannel(), first)
    node.delete("flannel", flannel(), netns="c1")
    assert reservations(node) == {address_of(second, number) for number in range(len(held))}


@pytest.mark.parametrize("daemon_masquerades", [True, False])
def test_masquerade_is_done_by_one_of_the_two(node: Node, daemon_masquerades: bool) -> None:
    outside(node)
    write_subnet_env(node, {**ONLY4, "FLANNEL_IPMASQ": str(daemon_masquerades).lower()})
    conf = flannel({"isDefaultGateway": True})
    result = flannel_pods(node, conf, "c1")[0]
    expected = address_of(result) if daemon_masquerades else UPLINK4
    assert source_seen(node, "c1", "outside", OUTSIDE4) == expected


def test_the_scratch_file_is_the_delegates_configuration(node: Node) -> None:
    write_subnet_env(node, DUAL)
    conf = flannel(runtimeConfig={"mac": "02:00:00:00:00:01"})
    flannel_pods(node, conf, "c1")
    assert json.loads(scratch(node)) == {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "bridge",
        "ipMasq": False,
        "isGateway": True,
        "mtu": 1450,
        "runtimeConfig": {"mac": "02:00:00:00:00:01"},
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": V4}], [{"subnet": V6}]],
            "routes": [{"dst": "10.76.0.0/15"}, {"dst": "fd00::/16"}],
        },
    }
    folder = node.path("/var/lib/cni/flannel")
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(f"{folder}/c1").st_mode & 0o777 == 0o600
    assert os.listdir(folder) == ["c1"]
    assert node.links("c1")["eth0"]["address"] == "02:00:00:00:00:01"
    node.delete("flannel", conf, netns="c1")
    assert os.listdir(folder) == []


def test_what_the_administrator_wrote_goes_before_the_defaults(node: Node) -> None:
    write_subnet_env(node)
    conf = flannel(
        {"bridge": "br7", "mtu": 1300, "ipMasq": True, "isGateway": False, "hairpinMode": True},
        ipam={"routes": [{"dst": "10.9.0.0/16", "gw": "10.77.0.9"}], "dataDir": "/var/lib/elsewhere"},
        dataDir="/var/lib/scratch",
        subnetFile="/run/other.env",
    )
    os.rename(node.path(SUBNET_FILE), node.path("/run/other.env"))
    result = flannel_pods(node, conf, "c1")[0]
    port = node.links()[result["interfaces"][1]["name"]]
    assert port["master"] == "br7"
    assert port["mtu"] == 1300
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert addresses(node.links()["br7"]) == set()
    assert "ip saddr 10.77.0.2 ip daddr != 10.77.0.0/24 masquerade" in node.ruleset()
    assert [route["dst"] for route in result["routes"]] == ["10.9.0.0/16", "10.76.0.0/15"]
    assert ("10.9.0.0/16", "10.77.0.9") in routes(node, "c1")
    assert os.listdir(node.path("/var/lib/scratch")) == ["c1"]
    assert "10.77.0.2" in os.listdir(node.path("/var/lib/elsewhere/net"))
    node.delete("flannel", conf, netns="c1")
    assert leftovers(node, "c1") == []
    assert os.listdir(node.path("/var/lib/scratch")) == []
    assert "10.77.0.2" not in os.listdir(node.path("/var/lib/elsewhere/net"))


def test_another_delegate_than_bridge_gets_no_gateway(node: Node) -> None:
    """It is some program in CNI_PATH: here one that repeats what it was given."""
    write_subnet_env(node)
    folder = node.path("/opt/mixed")
    os.mkdir(folder)
    for name in os.listdir(node.plugins):
        os.symlink(f"{node.plugins}/{name}", f"{folder}/{name}")
    with open(f"{folder}/parrot", "w", encoding="ascii") as file:
        file.write('#!/bin/sh\ntee /run/given.$CNI_COMMAND >/run/given\necho \'{"cniVersion": "1.1.0"}\'\n')
    os.chmod(f"{folder}/parrot", 0o755)
    node.netns("c1")
    conf = flannel({"type": "parrot", "more": [1, {"2": None}]})
    assert node.add("flannel", conf, netns="c1", plugins="/opt/mixed") == {"cniVersion": "1.1.0"}
    with open(node.path("/run/given.ADD"), encoding="ascii") as file:
        given = json.load(file)
    assert "isGateway" not in given
    assert (given["type"], given["more"], given["mtu"]) == ("parrot", [1, {"2": None}], 1450)
    assert json.loads(scratch(node)) == given


@pytest.mark.parametrize(
    ("delegate", "named"),
    [({"name": "x"}, "'name'"), ({"ipam": {}}, "'ipam'"), ({"type": 5}, "'type'"), ({"type": ""}, "'type'")],
)
@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_what_a_delegate_may_not_bring(node: Node, verb: str, delegate: dict[str, Any], named: str) -> None:
    write_subnet_env(node)
    node.netns("c1")
    answer = refusal(node, verb, "flannel", flannel(delegate), netns="c1")
    assert (answer["code"], named in answer["msg"]) == (7, True)
    assert leftovers(node, "c1") == []
