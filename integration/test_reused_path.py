"""A DEL that comes when its CNI_NETNS leads to another container, as /proc/PID/ns/net may.

The other container keeps its interface, whatever kind the two have. Pairs: test_runtime_behaviour.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import V4, address_of, addresses, check, ipam, ptp, reservations
from integration.sublinks import network, parent

if TYPE_CHECKING:
    from integration.node import Node

OLD, NEW = {"netns": "c1", "container": "old"}, {"netns": "c1", "container": "new"}
KINDS = [
    "macvlan",
    "tap",
    pytest.param("ipvlan", marks=pytest.mark.kernel("ipvlan")),
    pytest.param("vlan", marks=pytest.mark.kernel("802.1Q")),
    pytest.param("dummy", marks=pytest.mark.kernel("dummy")),
]


def network_of(container: str) -> dict[str, Any]:
    """Return a network for any of the kinds; the kernel may still have the VLAN of the old container."""
    return network(ipam=ipam(V4), vlanId=5 if container == "old" else 6)


def look(node: Node) -> dict[str, Any]:
    return {
        name: (link["ifindex"], "UP" in link["flags"], link.get("ifalias"), addresses(link))
        for name, link in node.links("c1").items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_container_keeps_its_link(node: Node, kind: str) -> None:
    parent(node)
    node.netns("c1")
    old = node.add(kind, network_of("old"), **OLD)
    node.remove_netns("c1")
    node.netns("c1")
    conf = network_of("new")
    new = node.add(kind, conf, **NEW)
    before = look(node)
    assert before["eth0"][1:] == (True, "net:new:eth0", {f"{address_of(new)}/24"})
    node.delete(kind, {**network_of("old"), "prevResult": old}, **OLD)
    assert look(node) == before
    assert reservations(node) == {address_of(new)}
    assert not check(node, kind, conf, new, **NEW)
    node.delete(kind, conf, **NEW)
    assert set(node.links("c1")) == {"lo"}


def test_plugins_of_other_kinds_spare_it(node: Node) -> None:
    parent(node)
    node.netns("c1")
    node.add("macvlan", network(), **NEW)
    before = look(node)
    lent = {"cniVersion": "1.1.0", "name": "lent", "hwaddr": "02:00:00:00:00:77"}
    for plugin, conf in (("ptp", ptp()), ("tap", network()), ("host-device", lent)):
        node.delete(plugin, conf, **OLD)
        assert look(node) == before, plugin


@pytest.mark.parametrize("alias", ["", "lan7", "net:old:eth0"])
def test_a_link_that_does_not_name_another_container_is_deleted(node: Node, alias: str) -> None:
    """As one that the reference made, which has no alias."""
    parent(node)
    node.netns("c1")
    node.add("macvlan", network(), **OLD)
    node.exec("c1", "ip", "link", "set", "eth0", "alias", alias)
    node.delete("macvlan", network(), **OLD)
    assert set(node.links("c1")) == {"lo"}


def test_a_name_too_long_for_an_alias_is_attached_all_the_same(node: Node) -> None:
    parent(node)
    node.netns("c1")
    long = {"netns": "c1", "container": "c" * 255}
    node.add("macvlan", network(), **long)
    assert "ifalias" not in node.links("c1")["eth0"]
    node.delete("macvlan", network(), **long)
    assert set(node.links("c1")) == {"lo"}
