"""Every verb in every version of the specification, with a prevResult of every version, for every plugin.

What there is in which version comes from the tables of `specification`. A prevResult is of another version
than the configuration when the network's list was edited, or the suite replaced, while a container ran: each
is what an ADD in its own version returned.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.multicall import MODULES, lookup
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CNIError
from integration import dhcp
from integration.checks import (
    CHECK_FAILED,
    V4,
    V6,
    bridge,
    dual_stack,
    ipam,
    leftovers,
    ptp,
    reservations,
    static,
)
from integration.flannel import DUAL, flannel, write_subnet_env
from integration.node import Node
from integration.specification import FLAT, INCOMPATIBLE, VERSIONS, cidrs, faults, has_verb
from integration.sublinks import PARENT, network, parent
from integration.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CONTAINER = "/run/netns/c1"
INVALID_CONFIG = 7
IPAM = ("host-local", "static", "dhcp")
KERNEL = {"dummy": "dummy", "ipvlan": "ipvlan", "vlan": "802.1Q", "vrf": "vrf"}
"""What a plugin needs that not every kernel has."""
NEEDS_NO_INTERFACES = ("loopback", *IPAM)
"""Plugins whose CHECK does not ask where the addresses are."""
LIMIT = {"ingressRate": 8000000, "ingressBurst": 800000}
PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
WAY = {"dst": "198.51.100.0/24", "mtu": 1300}
"""A route with a key that came with 1.1.0."""
MAKERS: dict[str, dict[str, Any]] = {
    "bridge": dual_stack(ipam=ipam(V4, V6, routes=[WAY])),
    "ptp": ptp(),
    "loopback": {"name": "net"},
    "flannel": flannel(),
    "macvlan": network(),
    "ipvlan": network(),
    "vlan": network(vlanId=7),
    "dummy": network(),
    "host-device": {"name": "net", "device": PARENT, "ipam": ipam(V4)},
    "tap": {"name": "net", "ipam": ipam(V4)},
    "host-local": {"name": "net", "ipam": ipam(V4, routes=[WAY])},
    "static": {"name": "net", "ipam": static("10.77.0.5/24", "fd00:77::5/64", routes=[WAY])},
}
CHAINED: dict[str, tuple[dict[str, Any], Callable[[Node], bool]]] = {
    "portmap": (PORTS, lambda node: "8080" in node.ruleset()),
    "tuning": ({"mtu": 1400}, lambda node: node.links("c1")["eth0"]["mtu"] == 1400),
    "sbr": ({}, lambda node: "from 10.77." in node.exec("c1", "ip", "rule")),
    "bandwidth": (LIMIT, lambda node: " tbf " in node.exec("", "tc", "qdisc")),
    "firewall": ({"backend": "nftables"}, lambda node: "10.77." in node.ruleset()),
    "vrf": ({"vrfname": "red"}, lambda node: "red" in node.links("c1")),
}
"""What they are told, and whether the kernel has what they make."""


@pytest.fixture(scope="module")
def node(suite_bin: str) -> Iterator[Node]:
    """A machine for all: each test leaves it as it was."""
    with Node(suite_bin) as made:
        write_subnet_env(made, DUAL)
        parent(made)
        yield made
        assert leftovers(made) == []


@pytest.fixture
def pod(node: Node, plugin: str) -> Iterator[Node]:
    """The machine with a container, from whose end on nothing of it is left."""
    node.netns("c1")
    yield node
    left = [] if plugin in KERNEL else leftovers(node, "c1")  # a virtual machine is slow: see `node`
    node.remove_netns("c1")
    assert left == []


@pytest.fixture(scope="module")
def lan(suite_bin: str) -> Iterator[Node]:
    """A machine with a DHCP server, a daemon and a container's interface, for the client."""
    with Node(suite_bin) as made:
        dhcp.lan(made)
        made.netns("c1")
        end = ["type", "veth", "peer", "name", "eth0", "netns", "c1"]
        made.run(["ip", "link", "add", "c1", "up", "master", dhcp.BRIDGE, *end])
        with dhcp.dnsmasq(made), dhcp.daemon(made):
            yield made


@pytest.fixture(autouse=True)
def delegates_run_here(suite_bin: str) -> Iterator[None]:
    """Make this process be the plugins' executable, as far as delegation can tell: it is called often."""
    skel.register_local(f"{suite_bin}/bridge", lookup)
    yield
    skel.register_local("", lookup)


def params(plugins: Iterable[str]) -> list[Any]:
    """Return pytest's parameters: plugins, marked with what they need of the kernel."""
    marks = {name: [pytest.mark.kernel(feature)] for name, feature in KERNEL.items()}
    return [pytest.param(name, marks=marks.get(name, [])) for name in plugins]


def before(plugin: str, version: str) -> tuple[str, ...]:
    """Return the versions of the results to give: fewer where only a slow virtual machine has the kernel."""
    return (version,) if plugin in KERNEL and version != VERSIONS[-1] else VERSIONS


def serve(node: Node, verb: str, plugin: str, conf: dict[str, Any], version: str) -> Any:
    """Call a plugin in this process; return its result."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": CONTAINER,
        "CNI_IFNAME": "lo" if plugin == "loopback" else "eth0",
        "CNI_PATH": node.plugins,
    }
    raw = {**conf, "type": plugin, "cniVersion": version}
    if verb == "GC":
        raw["cni.dev/valid-attachments"] = []
    # A result has been JSON on its way.
    return json.loads(json.dumps(skel.serve(lookup(plugin), env, raw)))


def code(node: Node, verb: str, plugin: str, conf: dict[str, Any], version: str) -> int:
    """Call a plugin; return the code of its error, or 0 when all is well and it says nothing."""
    try:
        answer = serve(node, verb, plugin, conf, version)
    except CNIError as error:
        return error.code
    assert answer is None
    return 0


def check(node: Node, plugin: str, conf: dict[str, Any], version: str, given: str) -> None:
    """Call CHECK with a prevResult of version `given`, and see it refused where there is reason to."""
    expected = 0
    if not has_verb(version, "CHECK"):
        expected = INCOMPATIBLE
    elif given in FLAT and plugin in MAKERS and plugin not in NEEDS_NO_INTERFACES:
        expected = CHECK_FAILED
    assert code(node, "CHECK", plugin, conf, version) == expected


def ask(node: Node, plugin: str, conf: dict[str, Any], version: str) -> None:
    """Call what is not about one container: as other verbs, it is refused in a version that has it not."""
    for verb in ("STATUS", "GC"):
        expected = 0 if has_verb(version, verb) else INCOMPATIBLE
        assert code(node, verb, plugin, conf, version) == expected


def traces(node: Node, plugin: str) -> set[str]:
    """Return what there is of the attachment: its interface, addresses that are taken."""
    if plugin == "loopback":
        return {"lo"} if "UP" in node.links("c1")["lo"]["flags"] else set()
    with node.entered("c1"):
        names = {name for _index, name in socket.if_nameindex()}
    return (names & {"eth0"}) | reservations(node)


def promised(plugin: str, result: Any) -> set[str]:
    """Return what there must be of the attachment after an ADD."""
    if plugin in ("loopback", "static"):
        return {"lo"} if plugin == "loopback" else set()
    return ({"eth0"} if plugin not in IPAM else set()) | {each.partition("/")[0] for each in cidrs(result)}


def test_no_plugin_is_left_out() -> None:
    assert {*MAKERS, *CHAINED, "dhcp"} == set(MODULES)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("plugin", MODULES)
def test_version(node: Node, plugin: str, version: str) -> None:
    """1.0.0, section 5: "`cniVersion`: The value of `cniVersion` specified on input".

    It is answered in 0.1.0, too, which does not have it: who asks cannot know yet what the plugin speaks.
    """
    answer = {"cniVersion": version, "supportedVersions": list(VERSIONS)}
    assert node.cni("VERSION", plugin, {"cniVersion": version}) == (0, answer)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("plugin", params(MAKERS))
def test_plugins_that_make_the_interface(pod: Node, plugin: str, version: str) -> None:
    conf = MAKERS[plugin]
    with pod.entered():
        for given in before(plugin, version):
            result = serve(pod, "ADD", plugin, conf, given)
            assert faults(result, given, "" if plugin in IPAM else CONTAINER) == []
            assert traces(pod, plugin) == promised(plugin, result)
            previous = {**conf, "prevResult": result}
            check(pod, plugin, previous, version, given)
            assert code(pod, "DEL", plugin, previous, version) == 0
            assert traces(pod, plugin) == set()
            assert code(pod, "DEL", plugin, previous, version) == 0
        ask(pod, plugin, conf, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_dhcp(lan: Node, version: str) -> None:
    conf = {"name": "net", "ipam": {"type": "dhcp"}}
    with lan.entered():
        for given in VERSIONS:
            result = serve(lan, "ADD", "dhcp", conf, given)
            assert faults(result, given, "") == []
            assert set(dhcp.leased(lan)) == promised("dhcp", result)
            previous = {**conf, "prevResult": result}
            check(lan, "dhcp", previous, version, given)
            assert code(lan, "DEL", "dhcp", previous, version) == 0
            until(lambda: not dhcp.leased(lan))
        ask(lan, "dhcp", conf, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("plugin", params(CHAINED))
def test_chained_plugins(pod: Node, plugin: str, version: str) -> None:
    """1.0.0, section 5: "it must output a result equivalent to the provided `prevResult`"."""
    keys, is_made = CHAINED[plugin]
    conf = {"name": "net", **keys}
    with pod.entered():
        for given in before(plugin, version):
            first = serve(pod, "ADD", "bridge", bridge(), given)
            previous = {**conf, "prevResult": first}
            if plugin == "bandwidth" and given in FLAT:  # it has to know the host's end
                assert code(pod, "ADD", plugin, previous, version) == INVALID_CONFIG
            else:
                result = serve(pod, "ADD", plugin, previous, version)
                assert faults(result, version, None if given in FLAT else CONTAINER) == []
                assert cidrs(result) == cidrs(first)
                # tuning says the MTU that it set, where there is a place for it.
                told = plugin == "tuning" and version == "1.1.0"
                assert given != version or told or result == first
                assert is_made(pod)
                check(pod, plugin, previous, version, given)
                assert code(pod, "DEL", plugin, previous, version) == 0
                assert not is_made(pod)
            assert code(pod, "DEL", plugin, previous, version) == 0
            assert code(pod, "DEL", "bridge", {**bridge(), "prevResult": first}, version) == 0
            assert traces(pod, "bridge") == set()
        ask(pod, plugin, conf, version)
