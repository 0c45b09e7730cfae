"""Results of every version (CNI 1.1.0, section 5, "Success", and the sections of older versions)."""

from __future__ import annotations

import copy
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugins.address import Prefix, parse_address
from cni_plugins.spec.errors import IncompatibleVersionError, InvalidConfigError
from cni_plugins.spec.result import DNS, VERSIONS, Interface, IPConfig, Result, Route
from tests.calls import VERSIONS as SPEC_VERSIONS

OLD = ("0.1.0", "0.2.0")
WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")

RESOLVER = {
    "nameservers": ["10.1.0.1", "fd00::53"],
    "domain": "cluster.local",
    "search": ["a.local", "b.local"],
    "options": ["ndots:5"],
}
NEWEST: dict[str, Any] = {
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1450},
        {
            "name": "eth0",
            "mac": "02:00:00:00:00:02",
            "mtu": 1400,
            "sandbox": "/run/netns/pod",
            "socketPath": "/run/vhost.sock",
            "pciID": "0000:00:1f.6",
        },
    ],
    "ips": [
        {"interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "fd00::5/64", "gateway": "fd00::1"},
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "10.1.0.1",
            "mtu": 1300,
            "advmss": 1260,
            "priority": 7,
            "table": 100,
            "scope": 0,
        },
        {"dst": "192.0.2.0/24"},
        {"dst": "::/0", "gw": "fd00::1"},
    ],
    "dns": RESOLVER,
}
"""The richest result that the newest version can say."""


def before_1_1(body: dict[str, Any]) -> dict[str, Any]:
    """Take away what 1.1.0 brought."""
    body = copy.deepcopy(body)
    for interface in body.get("interfaces", ()):
        for key in ("mtu", "socketPath", "pciID"):
            interface.pop(key, None)
    for route in body["routes"]:
        for key in ("mtu", "advmss", "priority", "table", "scope"):
            route.pop(key, None)
    return body


def before_0_3(body: dict[str, Any]) -> dict[str, Any]:
    """Take away what the shape of 0.1.0 and 0.2.0 has no place for."""
    body = before_1_1(body)
    del body["interfaces"]
    for ip in body["ips"]:
        del ip["interface"]
    return body


def shaped(body: dict[str, Any], version: str) -> dict[str, Any]:
    """Return what is said by a body in a version's form."""
    if version in OLD:
        return {
            "cniVersion": version,
            "ip4": {
                "ip": "10.1.0.5/16",
                "gateway": "10.1.0.1",
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "192.0.2.0/24"}],
            },
            "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
            "dns": RESOLVER,
        }
    body = {"cniVersion": version, **copy.deepcopy(body)} if version == "1.1.0" else before_1_1(body)
    body["cniVersion"] = version
    if version in WITH_IP_VERSION:
        for ip, family in zip(body["ips"], "46", strict=True):
            ip["version"] = family
    return body


def richest(version: str) -> dict[str, Any]:
    """Return the richest result of a version, which that version can be expected to keep whole."""
    return shaped(NEWEST, version)


def test_versions_are_those_of_the_specification() -> None:
    assert VERSIONS == SPEC_VERSIONS


@pytest.mark.parametrize("target", VERSIONS)
@pytest.mark.parametrize("source", VERSIONS)
def test_conversion(source: str, target: str) -> None:
    kept = NEWEST
    if source != "1.1.0":
        kept = before_1_1(kept)
    if source in OLD:
        kept = before_0_3(kept)
    assert Result.from_json(richest(source), "1.1.0").to_json(target) == shaped(kept, target)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_without_a_version_is_in_the_configurations(version: str) -> None:
    body = richest(version)
    for nothing in (None, ""):
        assert Result.from_json({**body, "cniVersion": nothing}, version).to_json(version) == body


@pytest.mark.parametrize("version", VERSIONS)
def test_a_single_address_without_anything_else(version: str) -> None:
    result = Result()
    result.ips.append(IPConfig(Prefix.parse("fd00::5/64")))
    expected: dict[str, Any] = {"cniVersion": version, "ips": [{"address": "fd00::5/64"}]}
    if version in OLD:
        expected = {"cniVersion": version, "ip6": {"ip": "fd00::5/64"}}
    elif version in WITH_IP_VERSION:
        expected["ips"][0]["version"] = "6"
    assert result.to_json(version) == expected
    assert Result.from_json(expected, version).to_json(version) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_no_address(version: str) -> None:
    result = Result()
    result.interfaces.append(Interface("eth0", sandbox="/run/netns/pod"))
    result.routes.append(Route(Prefix.parse("0.0.0.0/0")))
    result.dns = DNS(["10.1.0.1"])
    if version in OLD:
        with pytest.raises(IncompatibleVersionError, match="cannot convert: no valid IP addresses") as caught:
            result.to_json(version)
        assert version in caught.value.msg
        return
    assert result.to_json(version) == {
        "cniVersion": version,
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.1.0.1"]},
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("second", ["10.2.0.5/16", "fd00::6/64"])
def test_two_addresses_of_a_family(version: str, second: str) -> None:
    result = Result.from_json(richest("1.1.0"), "1.1.0")
    result.ips.append(IPConfig(Prefix.parse(second)))
    if version in OLD:
        with pytest.raises(IncompatibleVersionError, match="does not support more than 1 address per family"):
            result.to_json(version)
    else:
        assert [ip["address"] for ip in result.to_json(version)["ips"]][-1] == second


@pytest.mark.parametrize("version", OLD)
def test_routes_of_a_family_without_an_address_have_no_place(version: str) -> None:
    result = Result()
    result.ips.append(IPConfig(Prefix.parse("10.1.0.5/16")))
    result.routes = [Route(Prefix.parse("::/0")), Route(Prefix.parse("10.0.0.0/8"))]
    assert result.to_json(version) == {
        "cniVersion": version,
        "ip4": {"ip": "10.1.0.5/16", "routes": [{"dst": "10.0.0.0/8"}]},
    }


def test_zero_is_a_table_and_a_scope_but_no_metric() -> None:
    result = Result()
    route = Route(Prefix.parse("0.0.0.0/0"))
    route.table = route.scope = 0
    result.routes.append(route)
    assert result.to_json("1.1.0")["routes"] == [{"dst": "0.0.0.0/0", "table": 0, "scope": 0}]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_result_can_be_read(version: str) -> None:
    result = Result.from_json({"cniVersion": version}, "1.1.0")
    assert (result.interfaces, result.ips, result.routes) == ([], [], [])
    if version not in OLD:
        assert result.to_json(version) == {"cniVersion": version}


@pytest.mark.parametrize("given", [None, [], "result", 1, True])
def test_a_result_is_an_object(given: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"^prevResult must be an object$"):
        Result.from_json(given, "1.1.0")


@pytest.mark.parametrize(
    "version", ["0.0.1", "0.3.2", "1.2.0", "1.1", "v1.1.0", 1, True, ["1.1.0"], {"a": 1}]
)
def test_a_result_of_another_version_is_code_1_and_names_ours(version: object) -> None:
    with pytest.raises(IncompatibleVersionError) as caught:
        Result.from_json({"cniVersion": version}, "1.1.0", "the result of x")
    assert caught.value.code == 1
    assert caught.value.msg.startswith("the result of x: unsupported")
    assert all(known in caught.value.details for known in VERSIONS)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"ips": [{"address": "10.1.0.5"}]}, "'10.1.0.5' is not an address in CIDR notation"),
        ({"ips": [{}]}, "'' is not an address in CIDR notation"),
        ({"ips": [{"address": "10.1.0.5/16", "gateway": "x"}]}, "'x' is not an IP address"),
        (
            {"ips": [{"address": "10.1.0.5/16", "interface": "1"}]},
            "prevResult.ips[0].interface must be an integer",
        ),
        ({"ips": {}}, "prevResult.ips must be a list"),
        ({"interfaces": [{}, 1]}, "prevResult.interfaces[1] must be an object"),
        ({"interfaces": [{"mtu": -1}]}, "prevResult.interfaces[0].mtu must be 0 or more"),
        ({"routes": [{"table": 2**32 + 254}]}, "prevResult.routes[0].table must be 0 to 4294967295"),
        ({"routes": [{"priority": 2**32}]}, "prevResult.routes[0].priority must be 0 to 4294967295"),
        ({"routes": [{"dst": "default"}]}, "'default' is not an address in CIDR notation"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1/16"}]}, "'10.1.0.1/16' is not an IP address"),
        ({"dns": {"nameservers": "10.1.0.1"}}, "prevResult.dns.nameservers must be a list"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS[2:])
def test_no_result_is_code_7_with_the_place(version: str, body: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Result.from_json(body, version)
    assert caught.value.code == 7
    assert caught.value.msg.startswith("prevResult")
    assert says in caught.value.msg


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"ip4": {"ip": "10.1.0.5"}}, "CIDR"),
        ({"ip4": {}}, "CIDR"),
        ({"ip6": {"ip": "fd00::5/64", "gateway": "x"}}, "'x' is not an IP address"),
        ({"ip4": []}, "prevResult.ip4 must be an object"),
        ({"ip4": {"ip": "10.1.0.5/16", "routes": [{}]}}, "CIDR"),
        ({"dns": []}, "prevResult.dns must be an object"),
    ],
)
@pytest.mark.parametrize("version", OLD)
def test_no_old_result_is_code_7_with_the_place(version: str, body: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Result.from_json(body, version)
    assert says in caught.value.msg


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=1, max_size=6)
COUNT = st.integers(1, 2**32 - 1)
PREFIXES = (st.ip_addresses(v=4) | st.integers(2**64, 2**128 - 1).map(IPv6Address)).flatmap(
    lambda it: st.integers(0, it.max_prefixlen).map(lambda length: Prefix(it.packed, length))
)
HOSTS = st.none() | PREFIXES.map(lambda it: it.address)


@st.composite
def results(draw: st.DrawFn) -> Result:
    result = Result()
    for name in draw(st.lists(WORD, max_size=3)):
        interface = Interface(name, draw(WORD), draw(COUNT), draw(WORD))
        interface.socket_path, interface.pci_id = draw(WORD), draw(WORD)
        result.interfaces.append(interface)
    for prefix in draw(st.lists(PREFIXES, max_size=3)):
        result.ips.append(IPConfig(prefix, draw(HOSTS), draw(st.none() | st.integers(0, 3))))
    for prefix in draw(st.lists(PREFIXES, max_size=3)):
        route = Route(prefix, draw(HOSTS))
        route.mtu, route.advmss, route.priority = draw(COUNT), draw(COUNT), draw(COUNT)
        route.table, route.scope = draw(st.none() | COUNT), draw(st.none() | st.integers(0, 255))
        result.routes.append(route)
    words = st.lists(WORD, max_size=2)
    result.dns = DNS(draw(words), draw(st.just("") | WORD), draw(words), draw(words))
    return result


@given(results())
def test_nothing_is_lost_in_the_newest_version(result: Result) -> None:
    body = result.to_json("1.1.0")
    again = Result.from_json(body, "0.1.0")
    assert again.to_json("1.1.0") == body
    assert [ip.address for ip in again.ips] == [ip.address for ip in result.ips]
    assert [route.gw for route in again.routes] == [route.gw for route in result.routes]


def test_mapped_addresses_are_ipv4() -> None:
    """RFC 4291, section 2.5.5.2: Go's net.IP does not tell the two apart, so results may have them."""
    body = {"ips": [{"address": "::ffff:10.1.0.5/112", "gateway": "::ffff:10.1.0.1"}]}
    result = Result.from_json(body, "1.1.0")
    assert result.ips[0].gateway == parse_address("10.1.0.1")
    assert result.to_json("0.4.0")["ips"] == [
        {"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1"}
    ]
