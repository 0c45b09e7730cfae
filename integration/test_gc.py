"""GC takes what attachments that are gone left, says so, and spares the rest (CNI 1.1.0, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import bridge, check, files, ipam, pods, ptp, reservations, static
from integration.sublinks import PARENT, parent

if TYPE_CHECKING:
    from integration.node import Node

VALID = "cni.dev/valid-attachments"


def gc(node: Node, plugin: str, conf: dict[str, Any], *containers: str) -> None:
    """Run a GC that spares the interface eth0 of some containers."""
    valid = [{"containerID": each, "ifname": "eth0"} for each in containers]
    assert node.cni("GC", plugin, {**conf, VALID: valid}) == (0, None)


IPTABLES = {"ipMasq": True, "ipMasqBackend": "iptables"}
RULE = "a rule that masquerades (net: net, if: eth0, id: c2)"
CHAIN = "the iptables chain CNI-"


@pytest.mark.parametrize(
    ("plugin", "conf", "rules"),
    [
        ("bridge", bridge(ipMasq=True), RULE),
        ("ptp", ptp(ipMasq=True), RULE),
        ("bridge", bridge(**IPTABLES), CHAIN),
    ],
)
def test_pairs_without_an_attachment_go(
    node: Node, plugin: str, conf: dict[str, Any], rules: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result, _stale = pods(node, conf, "c1", "c2", plugin=plugin)
    # Same container, same interface; only the network tells them apart.
    other = {**conf, "name": "other", "bridge": "br1", "ipam": ipam("10.78.0.0/24")}
    theirs = node.add(plugin, other, container="c2", netns="c2", ifname="eth1")
    # Of another suite, one in a name like ours, and one of ours that lost its alias.
    node.run(["ip", "link", "add", "veth12345678", "type", "veth", "peer", "name", "theirs"])
    node.run(["ip", "link", "set", "theirs", "alias", "net:c2"])
    before = set(node.links())
    gc(node, plugin, conf, "c1")
    said = capfd.readouterr().err
    assert "eth0" not in node.links("c2")
    assert "eth1" in node.links("c2")
    (gone,) = before - set(node.links())
    assert f"removed the veth pair {gone} of c2 eth0" in said
    assert f"GC of network net: removed {rules}" in said
    assert " c1 " not in said
    assert not check(node, plugin, conf, result)
    assert not check(node, plugin, other, theirs, container="c2", netns="c2", ifname="eth1")
    gc(node, plugin, conf, "c1")
    assert capfd.readouterr().err == ""
    assert before - set(node.links()) == {gone}


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_a_pair_whose_names_are_too_long_for_an_alias(node: Node, plugin: str) -> None:
    conf, container = (bridge() if plugin == "bridge" else ptp()), "c" * 250
    node.netns("c1")
    for verb in ("GC", "DEL"):
        node.add(plugin, conf, container=container, netns="c1")
        gc(node, plugin, conf, container)
        assert "eth0" in node.links("c1")
        if verb == "GC":
            gc(node, plugin, conf)
        else:
            node.delete(plugin, conf, container=container, netns="c1")
        assert "eth0" not in node.links("c1")
        assert files(node) == set()


CONTAINERS = {"c1": "10.77.0", "c2": "10.77.0", "c3": "10.78.0"}
"""Which stays, which is gone, which is another network's; and their subnets."""
KEYS: dict[str, dict[str, Any]] = {
    "macvlan": {"master": PARENT},
    "ipvlan": {"master": PARENT},
    "vlan": {"master": PARENT, "vlanId": "number"},
    "dummy": {},
    "tap": {},
    "static": {"ipam": "static"},
    "host-device": {"device": "device"},
    "sbr": {},
    "vrf": {"vrfname": "red"},
}
CHAINED = ("sbr", "vrf")
KEEPS_NOTHING = (*CHAINED, "static")
NEEDS = {"ipvlan": "ipvlan", "vlan": "802.1Q", "dummy": "dummy", "vrf": "vrf"}


def configuration(case: str, container: str) -> dict[str, Any]:
    """Return a container's configuration, with a device, VLAN or address of its own where it needs one."""
    subnet, number = CONTAINERS[container], int(container[1:])
    own = {"number": number, "device": f"lent{number}", "static": static(f"{subnet}.{number}/24")}
    keys = {key: own.get(value, value) for key, value in KEYS[case].items()}
    name = "other" if container == "c3" else "net"
    return {"cniVersion": "1.1.0", "name": name, "ipam": ipam(f"{subnet}.0/24"), **keys}


def attach(node: Node, case: str, container: str) -> Any:
    """Attach a container to its network; return the result."""
    where = {"container": container, "netns": container}
    conf = configuration(case, container)
    node.netns(container)
    if case == "host-device":
        node.run(["ip", "link", "add", conf["device"], "type", "veth", "peer", "name", f"far{container}"])
    if case in CHAINED:
        first = node.add("bridge", bridge(bridge=f"br-{conf['name']}", **conf), **where)
        conf = {**conf, "prevResult": first}
    return node.add("tap" if case == "static" else case, conf, **where)


def leave(node: Node, case: str, container: str) -> None:
    """End a container without a DEL. Hardware falls back to the host then; a veth has to be led there."""
    if case == "host-device":
        node.exec(container, "ip", "link", "set", "eth0", "down")
        node.exec(container, "ip", "link", "set", "eth0", "netns", str(node.pid), "name", "dev7")
    node.remove_netns(container)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.kernel(NEEDS[case]) if case in NEEDS else ()) for case in KEYS],
)
def test_the_valid_stay_and_the_rest_goes(node: Node, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    parent(node)
    plugin = "tap" if case == "static" else case
    results = {container: attach(node, case, container) for container in CONTAINERS}
    leave(node, case, "c2")
    capfd.readouterr()
    gc(node, plugin, configuration(case, "c1"), "c1")
    said = capfd.readouterr().err
    if case in KEEPS_NOTHING:
        assert said == ""
    else:
        assert said.count("released") == 1
        assert "network net: released 10.77.0.3 of c2" in said
        assert (reservations(node), reservations(node, "other")) == ({"10.77.0.2"}, {"10.78.0.2"})
    if case == "host-device":
        assert "ifalias" not in node.links()["lent2"]
        assert [path for path in files(node) if "c2" in path] == []
    for container in ("c1", "c3"):
        conf = configuration(case, container)
        assert not check(node, plugin, conf, results[container], container=container, netns=container)
    before = (node.links().keys(), files(node), node.ruleset())
    gc(node, plugin, configuration(case, "c1"), "c1")
    assert capfd.readouterr().err == ""
    assert (node.links().keys(), files(node), node.ruleset()) == before
