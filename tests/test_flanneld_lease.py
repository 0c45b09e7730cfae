"""The set of leases as events change it, and the wanted state's order and differences."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

import pytest

from flanneld.lease import Added, Lease, LeaseAttrs, Leases, Removed, Snapshot, encode_data
from flanneld.state import Device, Forwarding, Neighbour, Peer, Route, State


def lease(number: int, public: str = "", data: str = "null") -> Lease:
    attrs = LeaseAttrs(IPv4Address(public or f"192.0.2.{number}"), None, "vxlan", data)
    return Lease(IPv4Network(f"10.244.{number}.0/24"), None, attrs)


def added(*numbers: int) -> tuple[Added, ...]:
    return tuple(Added(lease(number)) for number in numbers)


def subnets(leases: Leases, own: int = 99) -> list[str]:
    return sorted(map(str, leases.others(lease(own))))


def test_events_in_order() -> None:
    found = Leases().after([Snapshot(added(1, 2)), Added(lease(3)), Removed(lease(1).key)])
    assert subnets(found) == ["10.244.2.0/24", "10.244.3.0/24"]
    assert len(found) == 2


def test_a_snapshot_forgets_what_is_not_in_it() -> None:
    found = Leases().after(added(1, 2)).after([Snapshot(added(2, 3))])
    assert subnets(found) == ["10.244.2.0/24", "10.244.3.0/24"]


def test_nothing_new_is_the_same_object() -> None:
    found = Leases().after(added(1))
    renewed = Lease(lease(1).subnet, None, lease(1).attrs, datetime.now(UTC))
    assert found.after([Added(renewed)]) is found
    assert found.after([Removed(lease(7).key)]) is found


def test_one_origin_has_one_lease() -> None:
    found = Leases().after([Added(lease(1), "n1")]).after([Added(lease(2), "n1")])
    assert subnets(found) == ["10.244.2.0/24"]
    assert subnets(found.after([Removed(origin="n1")])) == []


def test_our_own_is_left_out_by_subnet_and_by_address() -> None:
    found = Leases().after([*added(1, 2), Added(lease(3, "192.0.2.1"))])
    assert subnets(found, own=1) == ["10.244.2.0/24"]
    assert found.find(lease(2).key) == lease(2)
    assert found.find(lease(8).key) is None


def test_data_is_compact_and_broken_data_raises() -> None:
    text = encode_data({"VNI": 1, "VtepMAC": "aa:bb"})
    assert text == '{"VNI":1,"VtepMAC":"aa:bb"}'
    assert lease(1, data=text).attrs.data(4) == {"VNI": 1, "VtepMAC": "aa:bb"}
    assert lease(1).attrs.data(6) is None
    with pytest.raises(ValueError, match="Expecting"):
        lease(1, data="{").attrs.data(4)


NODE, GATEWAY = IPv4Address("192.0.2.2"), IPv4Address("10.244.2.0")
DEVICE = Device("flannel.1", "vxlan", 1450)
ROUTE = Route(IPv4Network("10.244.2.0/24"), "flannel.1", GATEWAY, onlink=True)
NEIGHBOUR = Neighbour("flannel.1", GATEWAY, "aa:bb:cc:00:00:01")
ENTRY = Forwarding("flannel.1", "aa:bb:cc:00:00:01", NODE)
PEER = Peer("flannel-wg", "key", None, ())
WHOLE = State([NEIGHBOUR, ROUTE, ENTRY, PEER, DEVICE])


def test_the_route_comes_first_and_goes_last_but_for_what_it_needs() -> None:
    assert list(WHOLE) == [DEVICE, PEER, ROUTE, NEIGHBOUR, ENTRY]
    assert WHOLE.since(State()).write == (DEVICE, PEER, ROUTE, NEIGHBOUR, ENTRY)
    assert State().since(WHOLE).remove == (ENTRY, NEIGHBOUR, ROUTE, PEER, DEVICE)


def test_a_change_is_written_over() -> None:
    moved = Forwarding("flannel.1", ENTRY.mac, IPv4Address("192.0.2.3"))
    difference = (WHOLE | State([moved])).since(WHOLE)
    assert difference == ((), (moved,))
    assert moved not in WHOLE
    assert ENTRY in WHOLE
    assert WHOLE.get(moved.key) == ENTRY
    assert len(WHOLE | State([moved])) == 5
