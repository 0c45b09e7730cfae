from __future__ import annotations

import pytest

from cni_plugins.address import Prefix, format_address, parse_address
from cni_plugins.attach.gateway import plan
from cni_plugins.spec.errors import InvalidConfigError
from cni_plugins.spec.result import IPConfig, Result, Route


def result(*addresses: str, routes: tuple[str, ...] = ()) -> Result:
    """Make a result of "ADDRESS/LENGTH [GATEWAY]" and "DESTINATION [NEXT HOP]"."""
    made = Result()
    for text in addresses:
        address, _, gateway = text.partition(" ")
        made.ips.append(IPConfig(Prefix.parse(address), parse_address(gateway) if gateway else None))
    for text in routes:
        dst, _, gw = text.partition(" ")
        made.routes.append(Route(Prefix.parse(dst), parse_address(gw) if gw else None))
    return made


def routes(made: Result) -> list[str]:
    return [
        f"{route.dst} {format_address(route.gw)}" if route.gw else str(route.dst) for route in made.routes
    ]


@pytest.mark.parametrize(
    ("address", "gateway"),
    [
        ("10.1.2.3/24", "10.1.2.1/24"),
        ("10.1.2.1/24", "10.1.2.1/24"),
        ("10.1.2.130/25", "10.1.2.129/25"),
        ("10.1.2.3/24 10.1.2.254", "10.1.2.254/24"),
        ("10.1.255.255/16", "10.1.0.1/16"),
        ("fd00:1::5/64", "fd00:1::1/64"),
        ("fd00:1::5/64 fd00:1::ff", "fd00:1::ff/64"),
        ("10.1.2.2/31", "10.1.2.3/31"),
    ],
)
def test_the_gateway_is_the_given_one_or_the_subnets_first(address: str, gateway: str) -> None:
    made = result(address)
    assert [str(each) for each in plan(made, default_routes=False)] == [gateway]
    assert made.ips[0].gateway == Prefix.parse(gateway).address, "the result names it too"
    assert made.routes == []


def test_a_gateway_that_several_addresses_share_is_set_once() -> None:
    made = result("10.1.2.3/24", "10.1.2.4/24", "10.1.2.5/25", "10.9.0.2/16", "fd00::2/64")
    assert [str(each) for each in plan(made, default_routes=False)] == [
        "10.1.2.1/24",
        "10.1.2.1/25",
        "10.9.0.1/16",
        "fd00::1/64",
    ]


def test_one_default_route_for_each_family() -> None:
    made = result("10.1.2.3/24", "10.9.0.2/16", "fd00::2/64 fd00::ff", routes=("192.0.2.0/24",))
    plan(made, default_routes=True)
    assert routes(made) == ["192.0.2.0/24", "0.0.0.0/0 10.1.2.1", "::/0 fd00::ff"]


def test_a_default_route_with_a_next_hop_of_its_own_counts() -> None:
    made = result("10.1.2.3/24", "fd00::2/64", routes=("0.0.0.0/0 10.1.2.9",))
    plan(made, default_routes=True)
    assert routes(made) == ["0.0.0.0/0 10.1.2.9", "::/0 fd00::1"]


def test_a_default_route_without_a_next_hop_is_the_same_route_twice() -> None:
    with pytest.raises(InvalidConfigError, match="isDefaultGateway and a default route from IPAM"):
        plan(result("10.1.2.3/24", routes=("0.0.0.0/0",)), default_routes=True)
    made = result("10.1.2.3/24", routes=("0.0.0.0/0",))
    plan(made, default_routes=False)
    assert routes(made) == ["0.0.0.0/0"]
    other = result("10.1.2.3/24", routes=("::/0",))
    plan(other, default_routes=True)
    assert routes(other) == ["::/0", "0.0.0.0/0 10.1.2.1"]


def test_nothing_for_nothing() -> None:
    made = result(routes=("0.0.0.0/0",))
    assert plan(made, default_routes=True) == []
    assert routes(made) == ["0.0.0.0/0"]


@pytest.mark.parametrize("address", ["255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"])
def test_no_gateway_beyond_the_last_address(address: str) -> None:
    with pytest.raises(InvalidConfigError, match="no address for one"):
        plan(result(address), default_routes=False)
