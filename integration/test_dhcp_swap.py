"""dhcp in turn with the Go plugin and its daemon, which speak the same protocol."""

from __future__ import annotations

import pytest

from integration.checks import address_of, addresses, ping, pods, routes
from integration.dhcp import SERVER, daemon, dnsmasq, ended, lan, leased, network, until
from integration.node import PEER, Node

pytestmark = pytest.mark.peer


@pytest.fixture
def folders(node: Node) -> dict[str, str]:
    return {"ours": node.plugins, "theirs": PEER}


@pytest.mark.parametrize("deleter", ["ours", "theirs"])
@pytest.mark.parametrize("adder", ["ours", "theirs"])
@pytest.mark.parametrize("keeper", ["ours", "theirs"])
def test_either_plugin_with_either_daemon(
    node: Node, folders: dict[str, str], keeper: str, adder: str, deleter: str
) -> None:
    if keeper == adder == deleter == "theirs":
        pytest.skip("nothing of ours takes part")
    lan(node)
    conf = network()
    with dnsmasq(node), daemon(node, plugins=folders[keeper]):
        (result,) = pods(node, conf, "c1", plugins=folders[adder])
        assert set(leased(node)) == {address_of(result)}
        assert addresses(node.links("c1")["eth0"]) == {result["ips"][0]["address"]}
        assert routes(node, "c1") == {("default", SERVER), ("10.77.0.0/24", "")}
        assert ping(node, "c1", SERVER)
        # Go's bridge deletes the interface first: our daemon says good-bye by the host's way, theirs cannot.
        node.run(["ip", "address", "add", "10.77.0.2/24", "dev", "br0"])
        node.delete("bridge", {**conf, "prevResult": result}, netns="c1", plugins=folders[deleter])
        assert set(node.links("c1")) == {"lo"}
        if "ours" in (keeper, deleter):
            until(lambda: not leased(node))


def test_our_daemon_takes_over_from_theirs(node: Node) -> None:
    """Theirs keeps nothing: what it leased is known again once CHECK asks for it."""
    lan(node)
    conf = {**network(), "cniVersion": "1.0.0"}
    with dnsmasq(node):
        with daemon(node, plugins=PEER):
            (result,) = pods(node, conf, "c1", plugins=PEER)
        with daemon(node):
            assert node.cni("CHECK", "bridge", {**conf, "prevResult": result}, netns="c1") == (0, None)
            assert set(leased(node)) == {address_of(result)}
            node.delete("bridge", {**conf, "prevResult": result}, netns="c1")
            until(lambda: not leased(node))


def test_their_daemon_after_ours(node: Node) -> None:
    """A roll-back: DEL by the Go plugin through its own daemon succeeds; the lease ends in its time."""
    lan(node)
    conf = network()
    with dnsmasq(node):
        with daemon(node) as process:
            (result,) = pods(node, conf, "c1")
            ended(process, kill=False)
        with daemon(node, plugins=PEER):
            node.delete("bridge", {**conf, "prevResult": result}, netns="c1", plugins=PEER)
            assert set(node.links("c1")) == {"lo"}
