"""dhcp with macvlan, as in the example list, and GC by way of an interface plugin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from integration.checks import address_of, check, ping, pods
from integration.dhcp import SERVER, daemon, dnsmasq, lan, leased, network, until
from integration.suite import ROOT

if TYPE_CHECKING:
    from integration.node import Node


def test_gc_says_good_bye_while_the_interface_is_there(node: Node) -> None:
    lan(node)
    conf = {**network(), "cniVersion": "1.1.0"}
    with dnsmasq(node), daemon(node):
        first, second, third = pods(node, conf, "c1", "c2", "c3")
        node.add("bridge", {**conf, "name": "other"}, container="c1", netns="c1", ifname="eth1")
        held = set(leased(node))
        valid = [{"containerID": "c2", "ifname": "eth0"}]
        gc = {**conf, "cni.dev/valid-attachments": valid}
        assert node.cni("GC", "bridge", gc) == (0, None)
        until(lambda: set(leased(node)) == held - {address_of(first), address_of(third)})
        assert check(node, "bridge", conf, second, container="c2", netns="c2") == ""


def test_the_example_with_macvlan(node: Node) -> None:
    with open(f"{ROOT}/conflist/examples/22-macvlan-dhcp.conflist", encoding="utf-8") as file:
        example = json.load(file)
    conf = {**example["plugins"][0], "cniVersion": "1.1.0", "name": example["name"], "master": "lan"}
    del conf["type"]
    lan(node, bridged=False)
    options = ("--dhcp-option=6,10.77.0.53", "--dhcp-option=15,office.test")
    args = "IgnoreUnknown=1;K8S_POD_NAME=web-0"
    with dnsmasq(node, *options), daemon(node):
        (result,) = pods(node, conf, "c1", plugin="macvlan", args=args)
        assert result["dns"] == {"nameservers": ["10.77.0.53"], "domain": "office.test"}
        assert ping(node, "c1", SERVER)
        assert check(node, "macvlan", conf, result, args=args) == ""
        with open(node.path("/run/dnsmasq/leases"), encoding="ascii") as file:
            _expiry, mac, address, name, _identifier = file.read().split()
        assert (mac, address, name) == (result["interfaces"][0]["mac"], address_of(result), "web-0")
        node.delete("macvlan", conf, netns="c1", args=args)
        until(lambda: not leased(node))
        assert set(node.links("c1")) == {"lo"}
