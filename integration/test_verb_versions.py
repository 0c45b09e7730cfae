"""Every verb in every version of the specification, with a prevResult of every version, for every plugin.

Section 2: CHECK came with 0.4.0, STATUS and GC with 1.1.0; a plugin refuses a verb that the configuration's
version does not have with code 1. Section 5: a result is in the configuration's version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni_plugins.multicall import MODULES, lookup
from cni_plugins.spec import skel
from cni_plugins.spec.errors import CNIError, IncompatibleVersionError
from cni_plugins.spec.result import Result
from integration import dhcp
from integration.checks import V4, bridge, ipam, ptp, static
from integration.flannel import DUAL, flannel, write_subnet_env
from integration.sublinks import PARENT, network, parent
from tests.calls import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.node import Node

SINCE = {"ADD": "0.1.0", "DEL": "0.1.0", "CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
OLD = ("0.1.0", "0.2.0")
"""Section 5 of these versions: a result has no interfaces."""
WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")
"""Section 5 of these versions: an address says its family."""
IPAM = ("host-local", "static", "dhcp")
NEEDS_INTERFACES = ("bridge", "ptp", "flannel", "macvlan", "ipvlan", "vlan", "dummy", "host-device", "tap")
"""Plugins whose CHECK asks where the addresses are."""
KERNEL = {"dummy": "dummy", "ipvlan": "ipvlan", "vlan": "802.1Q", "vrf": "vrf"}
"""What a plugin needs that not every kernel has."""
LIMIT = {"ingressRate": 8000000, "ingressBurst": 800000}
PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
MAKERS: dict[str, dict[str, Any]] = {
    "bridge": bridge(),
    "ptp": ptp(),
    "loopback": {"name": "net"},
    "flannel": flannel(),
    "macvlan": network(),
    "ipvlan": network(),
    "vlan": network(vlanId=7),
    "dummy": network(),
    "host-device": {"name": "net", "device": PARENT, "ipam": ipam(V4)},
    "tap": {"name": "net", "ipam": ipam(V4)},
    "host-local": {"name": "net", "ipam": ipam(V4)},
    "static": {"name": "net", "ipam": static("10.77.0.5/24", "fd00:77::5/64")},
}
CHAINED: dict[str, dict[str, Any]] = {
    "portmap": PORTS,
    "tuning": {"mtu": 1400},
    "sbr": {},
    "bandwidth": LIMIT,
    "firewall": {"backend": "nftables"},
    "vrf": {"vrfname": "red"},
}


def params(plugins: dict[str, Any]) -> list[Any]:
    """Return pytest's parameters: plugins, marked with what they need of the kernel."""
    marks = {name: [pytest.mark.kernel(feature)] for name, feature in KERNEL.items()}
    return [pytest.param(name, marks=marks.get(name, [])) for name in plugins]


def has_shape(result: Any, version: str) -> bool:
    """Tell whether a result is what its version's section 5 describes."""
    if version in OLD:
        given = [(result[key]["ip"], sign) for key, sign in (("ip4", "."), ("ip6", ":")) if key in result]
        only = set(result) <= {"cniVersion", "dns", "ip4", "ip6"}
        return only and bool(given) and all(sign in address for address, sign in given)
    says = [ip.get("version") for ip in result["ips"]]
    families_of = ["6" if ":" in ip["address"] else "4" for ip in result["ips"]]
    newest = version == "1.1.0" or not any("mtu" in each for each in result.get("interfaces", ()))
    return newest and says == (families_of if version in WITH_IP_VERSION else [None] * len(says))


@pytest.fixture(autouse=True)
def delegates_run_here(node: Node) -> Iterator[None]:
    """Make this process be the plugins' executable, as far as delegation can tell: it is called often."""
    skel.register_local(f"{node.plugins}/bridge", lookup)
    yield
    skel.register_local("", lookup)


def serve(node: Node, verb: str, plugin: str, conf: dict[str, Any], version: str) -> Any:
    """Call a plugin in this process; return its result."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "lo" if plugin == "loopback" else "eth0",
        "CNI_PATH": node.plugins,
    }
    raw = {**conf, "type": plugin, "cniVersion": version}
    if verb == "GC":
        raw["cni.dev/valid-attachments"] = []
    return skel.serve(lookup(plugin), env, raw)


def verbs(node: Node, plugin: str, conf: dict[str, Any], version: str, previous: list[Any]) -> None:
    """Call each verb but ADD; those that the version does not have are refused with code 1."""
    for verb in ("CHECK", "STATUS", "DEL", "GC"):
        for given in previous:
            raw = {**conf, "prevResult": given} if verb in ("CHECK", "DEL") else conf
            if VERSIONS.index(version) < VERSIONS.index(SINCE[verb]):
                with pytest.raises(IncompatibleVersionError):
                    serve(node, verb, plugin, raw, version)
            elif verb == "CHECK" and given["cniVersion"] in OLD and plugin in NEEDS_INTERFACES:
                with pytest.raises(CNIError):
                    serve(node, verb, plugin, raw, version)
            else:
                assert serve(node, verb, plugin, raw, version) is None


def every_version(result: Any) -> list[Any]:
    """Return a result as each version writes it."""
    parsed = Result.from_json(result, "1.1.0")
    return [parsed.to_json(version) for version in VERSIONS]


def test_no_plugin_is_left_out(node: Node) -> None:
    assert {*MAKERS, *CHAINED, "dhcp"} == set(MODULES)
    for plugin in MODULES:
        status, answer = node.cni("VERSION", plugin, {"cniVersion": "0.4.0"})
        assert (status, answer["supportedVersions"]) == (0, list(VERSIONS))


@pytest.mark.parametrize("plugin", params(MAKERS))
def test_plugins_that_make_the_interface(node: Node, plugin: str) -> None:
    node.netns("c1")
    write_subnet_env(node, DUAL)
    if PARENT in MAKERS[plugin].values():
        parent(node)
    with node.entered():
        for version in VERSIONS:
            conf = MAKERS[plugin]
            result = serve(node, "ADD", plugin, conf, version)
            assert result["cniVersion"] == version
            assert ("interfaces" in result) == (version not in OLD and plugin not in IPAM)
            assert has_shape(result, version)
            whole = result
            if version in OLD:  # what the same ADD says in a version that has interfaces
                serve(node, "DEL", plugin, conf, version)
                whole = serve(node, "ADD", plugin, conf, "1.1.0")
            verbs(node, plugin, conf, version, every_version({**whole}))


def test_dhcp(node: Node) -> None:
    dhcp.lan(node)
    node.netns("c1")
    end = ["type", "veth", "peer", "name", "eth0", "netns", "c1"]
    node.run(["ip", "link", "add", "c1", "up", "master", dhcp.BRIDGE, *end])
    conf = {"name": "net", "ipam": {"type": "dhcp"}}
    with dhcp.dnsmasq(node), dhcp.daemon(node), node.entered():
        for version in VERSIONS:
            result = serve(node, "ADD", "dhcp", conf, version)
            assert (result["cniVersion"], has_shape(result, version)) == (version, True)
            verbs(
                node, "dhcp", conf, version, every_version(Result.from_json(result, version).to_json("1.1.0"))
            )


@pytest.mark.parametrize("plugin", params(CHAINED))
def test_chained_plugins(node: Node, plugin: str) -> None:
    node.netns("c1")
    with node.entered():
        made = serve(node, "ADD", "bridge", MAKERS["bridge"], "1.1.0")
        conf = {"name": "net", **CHAINED[plugin]}
        for version in VERSIONS:
            for previous in every_version(made):
                raw = {**conf, "prevResult": previous}
                if plugin == "bandwidth" and previous["cniVersion"] in OLD:
                    with pytest.raises(CNIError, match="no interfaces"):
                        serve(node, "ADD", plugin, raw, version)
                    continue
                if plugin == "sbr":  # its DEL leaves the routes to the interface's end
                    serve(node, "DEL", "bridge", MAKERS["bridge"], "1.1.0")
                    made = serve(node, "ADD", "bridge", MAKERS["bridge"], "1.1.0")
                    raw["prevResult"] = Result.from_json(made, "1.1.0").to_json(previous["cniVersion"])
                result = serve(node, "ADD", plugin, raw, version)
                assert result["cniVersion"] == version
                assert has_shape(result, version)
                if plugin != "tuning":  # it writes what it has set into the interface
                    assert result == Result.from_json(raw["prevResult"], "1.1.0").to_json(version)
                if VERSIONS.index(version) >= VERSIONS.index("0.4.0"):
                    serve(node, "CHECK", plugin, raw, version)
                serve(node, "DEL", plugin, raw, version)
            for verb in ("STATUS", "GC"):
                if version == "1.1.0":
                    serve(node, verb, plugin, conf, version)
                else:
                    with pytest.raises(IncompatibleVersionError):
                        serve(node, verb, plugin, conf, version)
