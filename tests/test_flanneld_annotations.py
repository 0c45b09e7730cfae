"""A node's annotations, key by key as the reference writes them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from flanneld.etcd import codec
from flanneld.kube.annotations import Annotations, parse_cidrs
from flanneld.lease import LeaseAttrs

FLANNEL = Annotations("flannel.alpha.coreos.com/")
DATA = '{"VNI":1,"VtepMAC":"aa:bb:cc:00:00:01"}'
V6 = IPv6Address("2001:db8::3")
VXLAN = LeaseAttrs(IPv4Address("192.0.2.3"), None, "vxlan", DATA)


def test_vxlan() -> None:
    written = FLANNEL.encode(VXLAN)
    assert written == {
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": DATA,
        "flannel.alpha.coreos.com/public-ip": "192.0.2.3",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
    }
    assert FLANNEL.decode(written) == VXLAN


def test_both_families() -> None:
    attrs = LeaseAttrs(VXLAN.public_ip, V6, "vxlan", DATA, DATA)
    written = FLANNEL.encode(attrs)
    assert written["flannel.alpha.coreos.com/backend-v6-data"] == DATA
    assert written["flannel.alpha.coreos.com/public-ipv6"] == "2001:db8::3"
    assert FLANNEL.decode(written) == attrs


def test_host_gw_has_null_data_and_vxlan_without_a_family_none() -> None:
    written = FLANNEL.encode(LeaseAttrs(VXLAN.public_ip, V6, "host-gw"))
    assert written["flannel.alpha.coreos.com/backend-data"] == "null"
    assert written["flannel.alpha.coreos.com/backend-v6-data"] == "null"
    written = FLANNEL.encode(LeaseAttrs(VXLAN.public_ip, V6, "vxlan", backend_v6_data=DATA))
    assert "flannel.alpha.coreos.com/public-ip" not in written


KEY = '{"PublicKey":"bGVhZiBvZiBhIHRyZWUgb2YgYSB3b29kIG9mIGEgaGk="}'


@pytest.mark.parametrize(
    ("kind", "data", "annotated", "in_etcd"),
    [
        ("ipip", "null", "null", '"BackendType":"ipip"'),
        ("wireguard", KEY, KEY, f'"BackendType":"wireguard","BackendData":{KEY}'),
        ("extension", '"aa:bb"', '"aa:bb"', '"BackendType":"extension","BackendData":"aa:bb"'),
        ("", "null", "null", ""),  # udp
    ],
)
def test_other_backends_here_and_in_etcd(kind: str, data: str, annotated: str, in_etcd: str) -> None:
    attrs = LeaseAttrs(VXLAN.public_ip, None, kind, data)
    written = FLANNEL.encode(attrs)
    assert written == {
        "flannel.alpha.coreos.com/backend-type": kind,
        "flannel.alpha.coreos.com/backend-data": annotated,
        "flannel.alpha.coreos.com/public-ip": "192.0.2.3",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
    }
    assert FLANNEL.decode(written) == attrs
    value = codec.encode_attrs(attrs)
    parts = filter(None, ('"PublicIP":"192.0.2.3","PublicIPv6":null', in_etcd))
    assert value.decode() == f"{{{','.join(parts)}}}"
    assert codec.decode_attrs(value) == attrs


def test_a_node_that_publishes_nothing() -> None:
    assert FLANNEL.decode({}) is None
    assert FLANNEL.decode({"flannel.alpha.coreos.com/kube-subnet-manager": "false"}) is None
    assert FLANNEL.lease({}, [], (4,)) is None


def test_an_administrators_addresses() -> None:
    noted = {
        "flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.9",
        "flannel.alpha.coreos.com/public-ipv6-overwrite": "2001:db8::9",
        "flannel.alpha.coreos.com/node-public-ip": "192.0.2.7",
        "flannel.alpha.coreos.com/node-public-ipv6": "2001:db8::7",
    }
    changed = FLANNEL.overwrite(noted, VXLAN)
    assert (str(changed.public_ip), str(changed.public_ipv6)) == ("203.0.113.9", "2001:db8::9")
    assert FLANNEL.overwrite({}, VXLAN) == VXLAN
    assert FLANNEL.node_public(noted) == ("192.0.2.7", "2001:db8::7")
    assert FLANNEL.node_public({}) == ("", "")


def test_a_lease_is_the_annotations_and_the_pod_cidrs() -> None:
    written = FLANNEL.encode(VXLAN)
    lease = FLANNEL.lease(written, ["10.244.3.0/24", "fd00:3::/64"], (4,))
    assert lease is not None
    assert (lease.key, lease.attrs) == ((IPv4Network("10.244.3.0/24"), None), VXLAN)


@pytest.mark.parametrize(
    ("cidrs", "families", "said"),
    [
        ([], (4,), "no IPv4 podCIDR"),
        (["10.244.3.0/24", "fd00:3::/64"], (4, 6), "no IPv6 public address"),
        (["10.244.3.0/24", "10.244.4.0/24"], (4,), "two IPv4 podCIDRs"),
        (["x"], (4,), "does not appear"),
    ],
)
def test_a_node_that_cannot_be_used(cidrs: list[str], families: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FLANNEL.lease(FLANNEL.encode(VXLAN), cidrs, families)


def test_broken_data_of_another_node() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        FLANNEL.decode({**FLANNEL.encode(VXLAN), "flannel.alpha.coreos.com/backend-data": "{"})


def test_pod_cidrs_in_either_order() -> None:
    both = IPv4Network("10.244.3.0/24"), IPv6Network("fd00:3::/64")
    assert parse_cidrs(["fd00:3::/64", "10.244.3.0/24"]) == both
    assert parse_cidrs(["10.244.3.0/24", "fd00:3::/64"]) == both
