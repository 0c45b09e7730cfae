"""dhcp with macvlan, as in the example list; what becomes of its leases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from integration.checks import address_of, addresses, check, ping, pods
from integration.dhcp import DHCPD_LOG, SERVER, daemon, dhcpd, dnsmasq, lan, leased, log
from integration.suite import ROOT
from integration.waiting import until

if TYPE_CHECKING:
    import pytest

    from integration.node import Node


def example() -> dict[str, Any]:
    """Return the example list's plugin as it is called, on the link `lan`."""
    with open(f"{ROOT}/conflist/examples/22-macvlan-dhcp.conflist", encoding="utf-8") as file:
        found = json.load(file)
    conf = {**found["plugins"][0], "cniVersion": "1.1.0", "name": found["name"], "master": "lan"}
    del conf["type"]
    return conf


def test_the_example_with_macvlan(node: Node) -> None:
    conf = example()
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


def test_macvlan_leases_are_renewed(node: Node) -> None:
    """By a server that is in unicast asked, at the hardware address that its answers came from."""
    conf = example()
    lan(node, bridged=False)
    with dhcpd(node, lease=4), daemon(node):
        first, second = pods(node, conf, "c1", "c2", plugin="macvlan")
        offers = log(node, DHCPD_LOG).count("DHCPOFFER")
        for name, result in (("c1", first), ("c2", second)):
            acknowledged = f"DHCPACK on {address_of(result)} to"
            until(lambda text=acknowledged: log(node, DHCPD_LOG).count(text) >= 3)  # type: ignore[misc]
            assert addresses(node.links(name)["eth0"]) == {result["ips"][0]["address"]}
        assert ping(node, "c1", address_of(second))
        assert log(node, DHCPD_LOG).count("DHCPOFFER") == offers, "a lease was lost, and got anew"


def test_macvlan_without_its_containers(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """The host is on the same network, and releases what GC and DEL find no interface of."""
    conf = example()
    lan(node, bridged=False)
    node.run(["ip", "address", "add", "10.77.0.2/24", "dev", "lan"])
    with dnsmasq(node), daemon(node):
        results = pods(node, conf, "c1", "c2", "c3", "c4", plugin="macvlan")
        results += pods(node, {**conf, "name": "other"}, "c5", plugin="macvlan")
        held = [address_of(result) for result in results]
        for name in ("c1", "c2"):
            node.remove_netns(name)
        node.delete("macvlan", conf, netns="c1")
        until(lambda: set(leased(node)) == set(held[1:]))
        valid = [{"containerID": "c4", "ifname": "eth0"}]
        assert node.cni("GC", "macvlan", {**conf, "cni.dev/valid-attachments": valid}) == (0, None)
        until(lambda: set(leased(node)) == set(held[3:]))
        until(lambda: all(f"released {address}" in log(node) for address in held[1:3]))
        capfd.readouterr()
        said = log(node)
        assert node.cni("GC", "macvlan", {**conf, "cni.dev/valid-attachments": valid}) == (0, None)
        assert (capfd.readouterr().err, log(node)) == ("", said)
        assert check(node, "macvlan", conf, results[3], container="c4", netns="c4") == ""
