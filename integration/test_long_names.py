"""Container ids that files' names, aliases or comments are too short for, and as short as can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import bridge, check, files, leftovers, pod_rules, refusal

if TYPE_CHECKING:
    from integration.node import Node

MBIT = 1_000_000
FIRST, SECOND = "c" * 249 + "1", "c" * 249 + "2"
NETNS = ("c1", "c2")
RATES = {"ingressRate": MBIT, "ingressBurst": MBIT, "egressRate": MBIT, "egressBurst": MBIT}
# With the shorter name of the network, a limit's alias can hold both; with the longer one none can.
NETWORKS = ["n", "a-longer-network"]


def chain(network: str, container: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the plugins of a list, with their configurations for a container."""
    ports = [{"hostPort": 8000 + int(container[-1]), "containerPort": 80, "protocol": "tcp"}]
    named = {"cniVersion": "1.1.0", "name": network}
    return [
        ("bridge", bridge(name=network, ipMasq=True)),
        ("portmap", {**named, "runtimeConfig": {"portMappings": ports}}),
        ("firewall", named),
        ("bandwidth", {**named, **RATES}),
    ]


def netns_of(container: str) -> str:
    """Return a container's namespace: the ids differ in their last character."""
    return f"c{container[-1]}"


def attach(node: Node, network: str, container: str) -> Any:
    result: Any = None
    for plugin, conf in chain(network, container):
        given = conf if result is None else {**conf, "prevResult": result}
        result = node.add(plugin, given, container=container, netns=netns_of(container))
    return result


def look(node: Node, network: str, container: str, result: Any) -> list[str]:
    """Return what CHECK of each plugin finds."""
    how = {"container": container, "netns": netns_of(container)}
    return [check(node, plugin, conf, result, **how) for plugin, conf in chain(network, container)]


def detach(node: Node, network: str, container: str, result: Any) -> None:
    for plugin, conf in reversed(chain(network, container)):
        given = {**conf, "prevResult": result}
        node.delete(plugin, given, container=container, netns=netns_of(container))


def state(node: Node) -> tuple[set[str], list[str], set[str]]:
    """Return the files, rules and links that there are."""
    return files(node), pod_rules(node), set(node.links())


@pytest.mark.parametrize(
    ("network", "length"), [*[(each, 250) for each in NETWORKS], ("n", 1), ("n", 128), ("n", 129)]
)
def test_add_check_delete_and_gc(node: Node, network: str, length: int) -> None:
    one, other = f"{'c' * (length - 1)}1", f"{'c' * (length - 1)}2"
    for netns in NETNS:
        node.netns(netns)
    second = attach(node, network, other)
    before = state(node)
    assert before[1]
    for collect in (False, True):
        first = attach(node, network, one)
        assert look(node, network, one, first) == [""] * 4
        assert state(node)[1] != before[1]
        if collect:
            valid = [{"containerID": other, "ifname": "eth0"}]
            for plugin, conf in chain(network, one):
                assert node.cni("GC", plugin, {**conf, "cni.dev/valid-attachments": valid}) == (0, None)
        else:
            detach(node, network, one, first)
            detach(node, network, one, first)
        assert state(node) == before
        assert look(node, network, other, second) == [""] * 4
    detach(node, network, other, second)
    assert leftovers(node, *NETNS) == []
    assert set(node.links()) == {"lo", "br0"}


def test_gc_of_iptables_goes_by_chains(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """The comments of the rules, by which it knows the network, end before the id does."""
    for netns in NETNS:
        node.netns(netns)
    keys: dict[str, Any] = {"ipMasq": True, "ipMasqBackend": "iptables", "backend": "iptables"}
    lists = {
        each: [(plugin, {**conf, **keys}) for plugin, conf in chain("n", each)[:2]]
        for each in (FIRST, SECOND)
    }
    for container, plugins in lists.items():
        result = None
        for plugin, conf in plugins:
            given = conf if result is None else {**conf, "prevResult": result}
            result = node.add(plugin, given, container=container, netns=netns_of(container))
    node.run(["rm", "-r", "/run/cni/portmap", "/run/cni/masquerade"])  # as if the reference had made them
    valid = [{"containerID": SECOND, "ifname": "eth0"}]
    for again in range(2):
        capfd.readouterr()
        for plugin, conf in lists[FIRST]:
            assert node.cni("GC", plugin, {**conf, "cni.dev/valid-attachments": valid}) == (0, None)
        said = capfd.readouterr().err
        assert ("host ports of container ccc" in said) is not bool(again)
        listed = node.run(["iptables", "-t", "nat", "-S"]).stdout.decode().splitlines()
        own = [line for line in listed if line.startswith("-N CNI-") and "-HOSTPORT-" not in line]
        assert sorted(line.startswith("-N CNI-DN-") for line in own) == [False, True]
    assert result is not None
    for plugin, conf in lists[SECOND]:
        assert check(node, plugin, conf, result, container=SECOND, netns=netns_of(SECOND)) == ""


def test_a_chain_that_cannot_have_the_name(node: Node) -> None:
    """The chain's name, with the id, is the reference's."""
    node.netns("c1")
    conf = bridge(macspoofchk=True)
    refused = refusal(node, "ADD", "bridge", conf, container=FIRST, netns="c1")
    assert (refused["code"], "too long" in refused["msg"]) == (4, True)
    assert leftovers(node, "c1") == []
    unchecked = node.add("bridge", bridge(), container=FIRST, netns="c1")
    found = check(node, "bridge", conf, unchecked, container=FIRST, netns="c1")
    assert "its rule in PREROUTING is missing" in found
    node.delete("bridge", conf, container=FIRST, netns="c1")
    # The longest that there are, whose comments are cut to the same.
    common = "c" * (255 - len("cni-br-iface-1-eth0-mac"))
    first, second = f"{common}1", f"{common}2"
    node.netns("c2")
    result = node.add("bridge", conf, container=second, netns="c2")
    before = state(node)
    node.add("bridge", conf, container=first, netns="c1")
    assert state(node)[1] != before[1]
    for _again in range(2):
        node.delete("bridge", conf, container=first, netns="c1")
    assert state(node) == before
    assert check(node, "bridge", conf, result, container=second, netns="c2") == ""
    node.delete("bridge", conf, container=second, netns="c2")
    assert leftovers(node, "c1", "c2") == []
