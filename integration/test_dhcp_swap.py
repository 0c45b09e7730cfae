"""dhcp in turn with the Go plugin and its daemon, which speak the same protocol."""

from __future__ import annotations

import os
from itertools import product

import pytest

from integration.checks import address_of, addresses, check, ping, pods, routes
from integration.dhcp import SERVER, daemon, dnsmasq, ended, lan, leased, network
from integration.node import PEER, Node
from integration.waiting import until

pytestmark = pytest.mark.peer

SIDES = ("ours", "theirs")
ASKED = {"request": [{"option": "121"}], "provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}]}
ARGS = "IgnoreUnknown=1;K8S_POD_NAME=web-0"
ROUTES = "192.168.9.0/24,10.77.0.7,0.0.0.0/0,10.77.0.1"


@pytest.fixture
def folders(node: Node) -> dict[str, str]:
    return {"ours": node.plugins, "theirs": PEER}


@pytest.mark.parametrize(
    ("keeper", "adder", "deleter"), [each for each in product(SIDES, repeat=3) if "ours" in each]
)
def test_either_plugin_with_either_daemon(
    node: Node, folders: dict[str, str], keeper: str, adder: str, deleter: str
) -> None:
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


def test_their_daemon_asks_for_what_ours_leased(node: Node) -> None:
    """A roll-back whose runtime calls CHECK: the lease is theirs from then on."""
    lan(node)
    conf = network()
    with dnsmasq(node):
        with daemon(node) as process:
            (result,) = pods(node, conf, "c1")
            ended(process, kill=False)  # killed, it leaves its socket, and theirs does not start
        with daemon(node, plugins=PEER):
            assert check(node, "bridge", conf, result) == ""
            assert set(leased(node)) == {address_of(result)}
            node.delete("bridge", conf, netns="c1")
            until(lambda: not leased(node))


@pytest.mark.parametrize(("plugin", "keeper"), [("ours", "theirs"), ("theirs", "ours")])
def test_a_mixed_pair_does_as_theirs_alone(
    node: Node, folders: dict[str, str], plugin: str, keeper: str
) -> None:
    """The same container, options and server: same request, same result, same routes."""
    lan(node)
    conf = network(**ASKED)
    seen = []
    node.netns("c1")
    with dnsmasq(node, f"--dhcp-option=121,{ROUTES}"):
        for called, keeps in (("theirs", "theirs"), (plugin, keeper)):
            path = f"/opt/{called}-{keeps}"
            os.makedirs(node.path(path))
            for name, owner in (("bridge", "ours"), ("dhcp", called)):
                os.symlink(f"{folders[owner]}/{name}", node.path(f"{path}/{name}"))
            how = {"netns": "c1", "plugins": path, "args": ARGS}
            with daemon(node, plugins=folders[keeps]) as process:
                result = node.add("bridge", conf, **how)
                assert check(node, "bridge", conf, result, **how) == ""
                with open(node.path("/run/dnsmasq/leases"), encoding="ascii") as file:
                    _expiry, _mac, address, name, identifier = file.read().split()
                assert address == address_of(result)
                seen.append((result["routes"], name, identifier, routes(node, "c1")))
                node.delete("bridge", conf, **how)
                until(lambda: not leased(node))
                ended(process, kill=False)
    theirs, mixed = seen
    assert mixed == theirs
    assert ("192.168.9.0/24", "10.77.0.7") in mixed[3]
    assert mixed[1] == "web-0"


def test_gc_with_their_daemon_releases_nothing(node: Node) -> None:
    lan(node)
    conf = {**network(), "cniVersion": "1.1.0"}
    with dnsmasq(node), daemon(node, plugins=PEER):
        (result,) = pods(node, conf, "c1")
        assert node.cni("GC", "dhcp", {**conf, "cni.dev/valid-attachments": []}) == (0, None)
        assert set(leased(node)) == {address_of(result)}
        node.delete("bridge", conf, netns="c1")
        until(lambda: not leased(node))
