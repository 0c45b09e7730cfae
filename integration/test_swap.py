"""Binaries are swapped under running pods: the Go plugins' work is checked and deleted by ours, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import (
    GW4,
    V4,
    V6,
    address_of,
    addresses,
    bridge,
    files,
    folder_of_both,
    ipam,
    ping,
    reservations,
    routes,
)
from integration.node import PEER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.node import Node

    Chain = Sequence[tuple[str, Mapping[str, Any]]]

pytestmark = pytest.mark.peer

OURS, THEIRS = "ours", "theirs"
SWAPS = pytest.mark.parametrize(("adder", "deleter"), [(THEIRS, OURS), (OURS, THEIRS)])
MAPPINGS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
    {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
]


def network(version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    return bridge(cniVersion=version, **keys)


def portmap(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "runtimeConfig": {"portMappings": MAPPINGS}, **keys}


# Theirs know iptables only. Without a word on it in the configuration theirs take it, and ours find it.
DUAL: dict[str, Any] = {"isDefaultGateway": True, "ipam": ipam(V4, V6)}
BY_IPTABLES = {"ipMasqBackend": "iptables"}
LISTS: dict[str, Chain] = {
    "bridge": [("bridge", network())],
    "bridge 0.4.0": [("bridge", network("0.4.0", **DUAL))],
    "bridge 0.3.1": [("bridge", network("0.3.1", **DUAL))],
    "bridge 0.2.0": [("bridge", network("0.2.0", **DUAL))],
    "every option": [
        ("bridge", network(**DUAL, mtu=1400, hairpinMode=True, mac="02:00:00:00:00:01", forceAddress=True))
    ],
    "layer 2": [("bridge", network(isGateway=False, promiscMode=True, ipam={}))],
    "macspoofchk": [("bridge", network(macspoofchk=True))],
    "ipMasq": [("bridge", network(**DUAL, **BY_IPTABLES, ipMasq=True))],
    "portmap": [("bridge", network()), ("portmap", portmap(backend="iptables"))],
    "portmap, dual-stack": [("bridge", network(**DUAL)), ("portmap", portmap(backend="iptables"))],
    "ipMasq and portmap": [
        ("bridge", network(**BY_IPTABLES, ipMasq=True)),
        ("portmap", portmap(backend="iptables", snat=True, markMasqBit=14)),
    ],
}
UNSPECIFIED: dict[str, Chain] = {
    "ipMasq": [("bridge", network(**DUAL, ipMasq=True))],
    "portmap": [("bridge", network()), ("portmap", portmap())],
}
NOT_CHECKED_BY_THEIRS = ("layer 2",)
"""Theirs wants an IPAM plugin."""


class Runtime:
    """Runs lists of plugins as libcni does, each call with the binaries of one side."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._folders = {OURS: node.plugins, THEIRS: PEER}

    def add(self, side: str, chain: Chain, container: str = "c1") -> Any:
        result: Any = None
        for plugin, conf in chain:
            given = conf if result is None else {**conf, "prevResult": result}
            result = self._node.add(plugin, given, **self._how(side, container))
        return result

    def check(self, side: str, chain: Chain, result: Any, container: str = "c1") -> None:
        for plugin, conf in chain:
            if (side, plugin) == (THEIRS, "portmap"):
                continue  # it looks for every rule in ip6tables too, even for a container without IPv6
            given = {**conf, "prevResult": result}
            assert self._node.cni("CHECK", plugin, given, **self._how(side, container)) == (0, None)

    def delete(self, side: str, chain: Chain, result: Any = None, container: str = "c1") -> None:
        for plugin, conf in reversed(chain):
            given = conf if result is None else {**conf, "prevResult": result}
            self._node.delete(plugin, given, **self._how(side, container))

    def _how(self, side: str, container: str) -> dict[str, str]:
        return {"container": container, "netns": container, "plugins": self._folders[side]}


def state(node: Node, *, with_notes: bool) -> Any:
    """Return links, addresses, rules and files; of those, our own only where theirs have not worked."""
    links = {
        name: (link.get("master"), link["mtu"], addresses(link))
        for netns in ("", "c1")
        for name, link in node.links(netns).items()
    }
    kept = {path for path in files(node) if with_notes or not path.startswith(("/run/cni", INDEX))}
    return links, EMPTY_TABLE.sub("", node.ruleset()), kept


INDEX = "/var/lib/cni/networks/.index/"
EMPTY_TABLE = re.compile(r"table \w+ \w+ \{\n\}\n")
"""What iptables leaves when it has only looked."""


def swap(
    node: Node,
    chain: Chain,
    adder: str,
    deleter: str,
    *,
    with_result: bool = True,
    checkers: Sequence[str] = (OURS, THEIRS),
) -> None:
    """Add, check and delete a container with one side; do it again with both, and compare what is left."""
    runtime = Runtime(node)
    node.netns("c1")
    runtime.delete(adder, chain, runtime.add(adder, chain))
    before = state(node, with_notes=deleter == OURS)
    result = runtime.add(adder, chain)
    during = node.links("c1")["eth0"]
    if chain[0][1]["cniVersion"] not in ("0.2.0", "0.3.1"):
        for side in checkers:
            runtime.check(side, chain, result)
    if addresses(during):
        assert ping(node, "c1", GW4)
    for _time in range(2):
        runtime.delete(deleter, chain, result if with_result else None)
        assert state(node, with_notes=deleter == OURS) == before
    runtime.delete(deleter, chain, runtime.add(deleter, chain))


@SWAPS
@pytest.mark.parametrize("name", LISTS)
def test_lists(node: Node, name: str, adder: str, deleter: str) -> None:
    checkers = (OURS,) if name in NOT_CHECKED_BY_THEIRS else (OURS, THEIRS)
    swap(node, LISTS[name], adder, deleter, checkers=checkers)


@pytest.mark.parametrize("chain", UNSPECIFIED.values(), ids=UNSPECIFIED)
@pytest.mark.parametrize("with_result", [True, False])
def test_ours_find_what_theirs_chose(node: Node, chain: Chain, with_result: bool) -> None:
    swap(node, chain, THEIRS, OURS, with_result=with_result)


@SWAPS
def test_one_pod_of_each_side_on_one_network(node: Node, adder: str, deleter: str) -> None:
    runtime = Runtime(node)
    pod = ("bridge", network(**DUAL, **BY_IPTABLES, ipMasq=True))
    chain, other = [pod, ("portmap", portmap(backend="iptables"))], [pod]
    node.netns("c1")
    node.netns("c2")
    first = runtime.add(adder, chain)
    second = runtime.add(deleter, other, "c2")
    assert ping(node, "c1", address_of(second))
    assert ping(node, "c2", address_of(first, 1))
    assert routes(node, "c1") == routes(node, "c2")
    runtime.delete(deleter, chain, first)
    runtime.check(adder, other, second, "c2")
    runtime.check(deleter, other, second, "c2")
    assert reservations(node) == {address_of(second), address_of(second, 1)}
    runtime.delete(adder, other, second, "c2")
    assert reservations(node) == set()


@SWAPS
def test_host_local_in_one_directory(node: Node, adder: str, deleter: str) -> None:
    folders = {OURS: node.plugins, THEIRS: PEER}
    conf = network(ipam=ipam(ranges=[[{"subnet": V4, "rangeEnd": "10.77.0.4"}], [{"subnet": V6}]]))

    def call(side: str, verb: str, container: str, **keys: Any) -> Any:
        how = {"container": container, "netns": "/none", "plugins": folders[side]}
        return node.cni(verb, "host-local", {**conf, **keys}, **how)

    given = [call((adder, deleter)[number % 2], "ADD", f"c{number}") for number in range(3)]
    assert [status for status, _answer in given] == [0, 0, 0]
    assert [address_of(answer) for _status, answer in given] == ["10.77.0.2", "10.77.0.3", "10.77.0.4"]
    for side in (adder, deleter):
        status, answer = call(side, "ADD", "c4")
        assert (status, "no IP addresses available" in answer["msg"]) == (1, True)
        assert call(side, "CHECK", "c0", prevResult=given[0][1]) == (0, None)
    assert call(deleter, "DEL", "c0") == (0, None)
    assert call(adder, "CHECK", "c0", prevResult=given[0][1])[0] == 1
    status, answer = call(adder, "ADD", "c5")
    assert (status, address_of(answer)) == (0, "10.77.0.2")
    assert call(deleter, "DEL", "c5") == call(deleter, "DEL", "c2") == call(adder, "DEL", "c1") == (0, None)
    assert reservations(node) == set()


@SWAPS
def test_loopback(node: Node, adder: str, deleter: str) -> None:
    folders = {OURS: node.plugins, THEIRS: PEER}
    conf = {"cniVersion": "1.0.0", "name": "lo"}
    node.netns("c1")
    before = node.links("c1")["lo"]["flags"]
    how = {"netns": "c1", "ifname": "lo"}
    results = {side: node.add("loopback", conf, **how, plugins=folders[side]) for side in folders}
    assert {"dns": {}, **results[OURS]} == results[THEIRS]
    given = {**conf, "prevResult": results[adder]}
    assert node.cni("CHECK", "loopback", given, **how, plugins=folders[deleter]) == (0, None)
    node.delete("loopback", given, **how, plugins=folders[deleter])
    assert node.links("c1")["lo"]["flags"] == before


@pytest.mark.parametrize(("ours", "theirs"), [("bridge", "host-local"), ("host-local", "bridge")])
def test_a_folder_of_both(node: Node, ours: str, theirs: str) -> None:
    """A delegate is a program like any other, whoever wrote it."""
    folder = folder_of_both(node, ours, theirs)
    conf = network(**DUAL)
    node.netns("c1")
    result = node.add("bridge", conf, netns="c1", plugins=folder)
    assert addresses(node.links("c1")["eth0"]) == {"10.77.0.2/24", "fd00:77::2/64"}
    assert routes(node, "c1") == {(V4, ""), ("default", GW4)}
    assert ping(node, "c1", GW4)
    given = {**conf, "prevResult": result}
    assert node.cni("CHECK", "bridge", given, netns="c1", plugins=folder) == (0, None)
    node.run(["rm", "/var/lib/cni/networks/net/10.77.0.2", "/var/lib/cni/networks/net/fd00:77::2"])
    assert node.cni("CHECK", "bridge", given, netns="c1", plugins=folder)[0] == 1
    node.delete("bridge", conf, netns="c1", plugins=folder)
    node.netns("c2")
    small = network(ipam=ipam("10.77.0.0/32"))
    status, answer = node.cni("ADD", "bridge", small, netns="c2", plugins=folder)
    assert (status, "10.77.0.0/32" in answer["msg"]) == (1, True), answer
    if ours == "bridge":  # theirs leaves the interface to the DEL
        assert list(node.links("c2")) == ["lo"]
    assert reservations(node) == set()
