"""net-conf.json, and the subnets that follow from it."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld.netconf import NetconfError, NetworkConfig
from flanneld.subnets import SubnetRange


def conf(text: str) -> NetworkConfig:
    return NetworkConfig.parse(text)


def test_keys_in_any_case_and_the_backends_own_are_kept() -> None:
    found = conf(
        '{"nETWORK": "10.244.3.9/16", "SUBNETLEN": 26, "enablenftables": false,'
        ' "Backend": {"type": "vxlan", "VNI": 7, "DirectRouting": true}, "Unknown": {}, "SubnetMin": null}'
    )
    assert found.network == IPv4Network("10.244.0.0/16")
    assert (found.subnet_len, found.enable_nftables) == (26, False)
    assert found.backend.type == "vxlan"
    assert found.backend.options == {"type": "vxlan", "VNI": 7, "DirectRouting": True}


def test_defaults() -> None:
    found = conf('{"Network": "10.244.0.0/16"}')
    assert found.families == (4,)
    assert found.enable_nftables
    assert found.backend.type == "udp"
    assert found.subnet_range(4) == SubnetRange.within(
        IPv4Network("10.244.0.0/16"), 24, found.subnet_min, found.subnet_max
    )
    assert found.cluster(6) is None


def test_both_families() -> None:
    found = conf('{"Network": "10.0.0.0/8", "EnableIPv6": true, "IPv6Network": "fd00:10::/48"}')
    assert found.families == (4, 6)
    v6 = found.subnet_range(6)
    assert (str(v6.first), str(v6.last), v6.length) == ("fd00:10:0:1::", "fd00:10:0:ffff::", 64)


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("10.244.0.0/16", 24, "10.244.1.0", "10.244.255.0"),
        ("10.244.0.0/22", 24, "10.244.1.0", "10.244.3.0"),
        ("10.244.0.0/23", 25, "10.244.0.128", "10.244.1.128"),
        ("10.244.0.0/28", 30, "10.244.0.4", "10.244.0.12"),
    ],
)
def test_a_subnets_length_follows_from_the_networks(network: str, length: int, first: str, last: str) -> None:
    found = conf(f'{{"Network": "{network}"}}').subnet_range(4)
    assert (found.length, str(found.first), str(found.last)) == (length, first, last)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ('{"EnableIPv6": true, "Network": "10.0.0.0/8"}', "IPv6Network is missing"),
        ("{}", "Network is missing"),
        ('{"EnableIPv4": false}', "both false"),
        ('{"Network": "10.0.0.0/40"}', "network"),
        ('{"Network": "10.0.0.0/8", "SubnetLen": 33}', "subnetlen"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(NetconfError, match=said):
        conf(text)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('"Network": "10.0.0.0/29"', "too small"),
        ('"Network": "10.0.0.0/16", "SubnetLen": 31', "no addresses"),
        ('"Network": "10.0.0.0/16", "SubnetLen": 17', "four subnets"),
        ('"Network": "10.0.0.0/16", "SubnetMin": "10.1.0.0"', "outside"),
        ('"Network": "10.0.0.0/16", "SubnetMax": "10.0.9.1"', "not where a subnet"),
    ],
)
def test_a_range_that_does_not_fit(keys: str, said: str) -> None:
    with pytest.raises(NetconfError, match=said):
        conf(f"{{{keys}}}").subnet_range(4)


RANGE = SubnetRange.within(IPv4Network("10.0.0.0/24"), 28, IPv4Network(0).network_address, IPv4Network(0)[0])


@given(
    st.lists(
        st.builds(
            lambda start, length: IPv4Network((0x0A000000 + start, length), strict=False),
            st.integers(0, 300),
            st.integers(26, 32),
        ),
        max_size=12,
    )
)
def test_free_subnets_are_those_that_overlap_nothing(taken: list[IPv4Network]) -> None:
    every = list(IPv4Network("10.0.0.0/24").subnets(new_prefix=28))[1:]
    expected = [subnet for subnet in every if not any(subnet.overlaps(other) for other in taken)]
    assert list(RANGE.free(list(taken))) == expected


def test_membership() -> None:
    assert ip_network("10.0.0.16/28") in RANGE
    assert ip_network("10.0.0.0/28") not in RANGE
    assert ip_network("10.0.0.16/29") not in RANGE
    assert IPv6Network("fd00::/28") not in RANGE
    assert None not in RANGE


def test_ipv6_subnets_stay_ipv6() -> None:
    network = IPv6Network("::/120")
    low = SubnetRange.within(network, 126, network[0], network[0])
    assert next(low.free([])) == IPv6Network("::4/126")
