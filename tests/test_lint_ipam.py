from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from conflist.findings import ERROR
from conflist.lint import lint
from tests.linting import Linter, bridge, host_local, network, texts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def check(tmp_path: Path, suite_bin: str) -> Linter:
    return Linter(tmp_path, suite_bin)


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        (host_local("10.1.0.0/16", "fd00::/64"), []),
        ({"type": "host-local", "subnet": "10.1.0.0/16"}, []),
        ({"type": "host-local"}, ["error: host-local has no range to give addresses from"]),
        ({"type": "host-local", "ranges": [[]]}, ["error: a range set needs at least one range"]),
        (
            {"type": "host-local", "ranges": [{"subnet": "10.1.0.0/16"}]},
            ["error: ranges[0] must be a list, not an object"],
        ),
        ({"type": "host-local", "rangeStart": "10.1.0.5"}, ["error: a range needs a subnet"]),
        (host_local("10.1.0.0"), ["error: the subnet '10.1.0.0' is not an address in CIDR notation"]),
        (host_local("10.1.0.0/31"), ["error: 10.1.0.0/31 is too small to give addresses from"]),
        (host_local("10.1.0.9/24"), ["warning: 10.1.0.9/24 has host bits; the subnet is 10.1.0.0/24"]),
        (
            host_local("10.1.0.0/16", "10.1.2.0/24"),
            ["error: 10.1.2.1-10.1.2.254 overlaps 10.1.0.1-10.1.255.254 (F)"],
        ),
        (
            {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]},
            ["error: one range set holds IPv4 and IPv6"],
        ),
        (
            host_local(subnet="10.1.0.0/24", gateway="10.2.0.1"),
            ["error: gateway 10.2.0.1 is outside the subnet 10.1.0.0/24"],
        ),
        (
            host_local(subnet="10.1.0.0/24", rangeStart="10.2.0.1"),
            ["error: rangeStart 10.2.0.1 is outside the subnet 10.1.0.0/24"],
        ),
        (host_local(subnet="10.1.0.0/24", rangeEnd="x"), ["error: rangeEnd 'x' is not an IP address"]),
        (
            host_local(subnet="10.1.0.0/24", rangeStart="10.1.0.9", rangeEnd="10.1.0.8"),
            ["error: rangeStart 10.1.0.9 is after rangeEnd 10.1.0.8"],
        ),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0"}]),
            ["error: the destination '10.0.0.0' is not an address in CIDR notation"],
        ),
        (host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.1/8"}]), ["warning: 10.0.0.1/8 has host bits"]),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8", "gw": "x"}]),
            ["error: 'x' is not an IP address"],
        ),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8", "gw": "fd00::1"}]),
            ["error: the next hop fd00::1 is of another family than 10.0.0.0/8"],
        ),
        (
            host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8", "gw": "10.2.0.1"}]),
            ["warning: the next hop 10.2.0.1 is in none of the network's subnets"],
        ),
        (host_local("fd00::/64", routes=[{"dst": "::/0", "gw": "fe80::1"}]), []),
        (host_local("10.1.0.0/24", datadir="/x"), ["warning: the key 'datadir' is spelt 'dataDir'"]),
        (host_local("10.1.0.0/24", rnages=[]), ["warning: unknown key 'rnages': nobody reads it"]),
    ],
)
def test_host_local(check: Linter, tmp_path: Path, ipam: dict[str, Any], expected: list[str]) -> None:
    found = texts(check([{"type": "bridge", "ipam": ipam}]))
    place = f"{tmp_path}/0.conflist"
    assert [text.split(place)[0] + "F)" if place in text else text for text in found] == expected


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        ({"addresses": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}]}, []),
        ({"adresses": []}, ["warning: unknown key 'adresses': nobody reads it"]),
        ({"addresses": "10.1.0.5/16"}, ["error: addresses must be a list, not a string"]),
    ],
)
def test_static(check: Linter, ipam: dict[str, Any], expected: list[str]) -> None:
    assert texts(check([{"type": "ptp", "ipam": {"type": "static", **ipam}}])) == expected


def test_ranges_can_come_at_run_time(check: Linter) -> None:
    ipam = {"type": "host-local", "routes": [{"dst": "0.0.0.0/0", "gw": "10.2.0.1"}]}
    assert check([bridge(capabilities={"ipRanges": True}, ipam=ipam)]) == []


def test_a_wrong_value_does_not_hide_other_mistakes(check: Linter) -> None:
    ipam = host_local("10.1.0.0/24", routes=[{"dst": "x"}])
    found = check([bridge(MTU="x", hairpinMode=True, promiscMode=True, ipam=ipam)])
    assert sorted(item.text for item in found if item.severity == ERROR) == [
        "hairpinMode and promiscMode exclude each other",
        "mtu must be an integer, not a string",
        "the destination 'x' is not an address in CIDR notation",
    ]


def test_another_ipam_plugin_only_has_to_exist(tmp_path: Path, suite_bin: str) -> None:
    (tmp_path / "whereabouts").symlink_to("/bin/true")
    file = tmp_path / "n.conflist"
    file.write_text(json.dumps(network("n", [bridge(ipam={"type": "whereabouts", "addresses": []})])))
    assert lint([str(file)], [suite_bin, str(tmp_path)]) == []


def test_two_default_routes(check: Linter) -> None:
    ipam = host_local("10.1.0.0/24", routes=[{"dst": "10.0.0.0/8"}, {"dst": "0.0.0.0/0"}])
    (found,) = check([bridge(isDefaultGateway=True, ipam=ipam)])
    assert found.text == "isDefaultGateway already makes a default route; a second one fails"
    assert check([bridge(isGateway=True, ipam=ipam)]) == []


def test_two_addresses_of_a_family_before_their_time(check: Linter) -> None:
    value = network("n", [bridge(ipam=host_local("10.1.0.0/24", "10.2.0.0/24"))])
    assert check(value) == []
    (found,) = check(value | {"cniVersion": "0.2.0"})
    assert found.text == "version 0.2.0 cannot return two addresses of a family"
