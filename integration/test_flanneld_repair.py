"""Whatever somebody removes or changes of the paths is put back at the kernel's notice."""

from __future__ import annotations

import re
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import VXLAN, Fleet, Member, wait
from integration.pings import Pings
from integration.underlay import address

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = {4: "flannel.1", 6: "flannel-v6.1"}


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    """A machine in one subnet, one beside it and one in another, with a pod on the first of each."""
    config = {**VXLAN, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
    with Fleet(suite_bin, config) as made:
        for place in ((1, 11), (2, 21), (1, 12)):
            made.join(*place)
        made.start()
        for name in ("node-11", "node-21"):
            made.members[name].add_pod(name)
        for member in made.members.values():
            wait(lambda member=member: "flanneld_leases 2\n" in member.get("/metrics"))  # type: ignore[misc]
        yield made


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def path(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[tuple[int, Pings]]:
    """A family, and pings of it from pod to pod, through the tunnel."""
    one, other = fleet.members["node-11"], fleet.members["node-21"]
    infos = other.node.links("node-21")["eth0"]["addr_info"]
    inet = "inet" if request.param == 4 else "inet6"
    (pod,) = [info["local"] for info in infos if info["family"] == inet and info["scope"] == "global"]
    with Pings(one.node, pod, "node-11") as pings:
        yield request.param, pings


SHOW = "; ".join(
    f"ip -details link show dev {device}; ip address show dev {device} scope global;"
    f"ip neigh show dev {device} nud permanent; bridge fdb show dev {device}; ip -{family} route"
    for family, device in DEVICES.items()
)


def shown(member: Member) -> str:
    """Return everything the daemon wrote on a machine, without indexes and the order of entries."""
    said = member.node.run(["sh", "-c", SHOW], check=False).stdout.decode()
    return "\n".join(sorted(re.sub(r"^\d+: ", "", said, flags=re.MULTILINE).splitlines()))


REJOIN = (
    "ip link set uplink up; for each in 2001:db8:1::11 fe80::1:11; do"
    " ip address add $each/64 dev uplink nodad; done;"
    " ip -4 route add default via 198.18.1.1; ip -6 route add default via 2001:db8:1::1"
)
# The daemon may be faster than the second command: again, then.
ANOTHER = "until ip link del {device}; ip link add {device} type"
BREAKS = {
    "route": "ip {f} route del {subnet}",
    "route-elsewhere": "ip {f} route replace {subnet} via {router}",
    "route-nowhere": "ip {f} route replace blackhole {subnet}",
    "route-divided": "ip {f} route replace {subnet} nexthop via {router} nexthop via {node12}",
    "route-unmarked": "ip {f} route replace {subnet} via {node12} dev uplink proto static",
    "route-mtu": "ip {f} route replace {subnet} via {gateway} dev {device} onlink mtu 600",
    "direct-route": "ip {f} route del {near}",
    "direct-route-elsewhere": "ip {f} route replace {near} via {router}",
    "neighbour": "ip neigh del {gateway} dev {device}",
    "neighbour-changed": "ip neigh replace {gateway} lladdr 02:00:00:00:00:99 dev {device} nud permanent",
    "neighbour-fades": "ip neigh replace {gateway} lladdr {mac} dev {device} nud stale",
    "fdb": "bridge fdb del {mac} dev {device} dst {node21}",
    "fdb-changed": "bridge fdb replace {mac} dev {device} dst {nobody} self permanent",
    "fdb-port": "bridge fdb replace {mac} dev {device} dst {node21} port 4789 self permanent",
    "fdb-added": "bridge fdb append 00:00:00:00:00:00 dev {device} dst {nobody} self permanent",
    "address": "ip {f} address flush dev {device} scope global",
    "address-replaced": "ip address add {other} dev {device}; ip address del {own} dev {device}",
    "device": "ip link del {device}",
    "device-down": "ip link set {device} down",
    "device-renamed": "ip link set {device} down; ip link set {device} name other",
    "device-mtu": "ip link set {device} mtu 1300",
    "device-mac": "ip link set {device} address 02:00:00:00:00:98",
    "device-learns": "ip link set {device} type vxlan learning",
    "device-another": f"{ANOTHER} bridge; do :; done",
    "device-port": f"{ANOTHER} vxlan id 1 dstport 4789 dev uplink; do :; done",
    "uplink-flaps": f"ip link set uplink down; {REJOIN}",
    "everything": "ip {f} route del {near}; ip link del {device}; ip {f} route replace {subnet} via {router}",
}


@pytest.mark.parametrize("broken", BREAKS)
def test_it_is_put_back(fleet: Fleet, path: tuple[int, Pings], broken: str, record_property: Any) -> None:
    family, pings = path
    one, before = fleet.members["node-11"], shown(fleet.members["node-11"])
    command = BREAKS[broken].format(**names(fleet, family))
    timed = full_passes(one)
    began = time.time()
    one.node.run(["sh", "-ec", command])
    took = wait(lambda: shown(one) == before)
    failed = pings.failed_since(began)
    record_property(f"{broken}, IPv{family}", f"back after {took:.2f} s, pings failed for {failed:.2f} s")
    assert full_passes(one) == timed, "a notice made it look, not the passing of time"


def full_passes(member: Member) -> str:
    """Return the daemon's count of looks at everything that no notice made it take."""
    lines = member.get("/metrics").splitlines()
    return "".join(line for line in lines if line.startswith('flanneld_reconciles_total{cause="timer"}'))


def names(fleet: Fleet, family: int) -> dict[str, Any]:
    """Return what a family's paths on node-11 are made of."""
    key = "FLANNEL_SUBNET" if family == 4 else "FLANNEL_IPV6_SUBNET"
    own, near, subnet = (
        ip_interface(fleet.members[f"node-{number}"].subnet_env()[key]).network for number in (11, 12, 21)
    )
    gateway, device = str(subnet.network_address), DEVICES[family]
    return {
        "f": f"-{family}",
        "device": device,
        "subnet": subnet,
        "near": near,
        "gateway": gateway,
        "own": f"{own.network_address}/{own.max_prefixlen}",
        "other": "10.99.0.1/32" if family == 4 else "fd00:99::1/128",
        "router": address(1, 1, family),
        "node12": address(1, 12, family),
        "node21": address(2, 21, family),
        "nobody": address(1, 77, family),
        "mac": fleet.members["node-11"].ip("neigh", "show", gateway, "dev", device)[0]["lladdr"],
    }


def test_nobody_behind_the_tunnel_is_a_router(fleet: Fleet) -> None:
    for device in DEVICES.values():
        path = f"/proc/sys/net/ipv6/conf/{device}/accept_ra"
        assert fleet.members["node-11"].node.run(["cat", path]).stdout == b"0\n"


def test_entries_of_a_node_that_left_while_we_were_away_are_removed(fleet: Fleet) -> None:
    one = fleet.members["node-11"]
    one.stop()
    before = shown(one)
    for command in (
        "ip neigh add 10.244.250.0 lladdr 02:00:00:00:00:50 dev flannel.1 nud permanent",
        "ip neigh add fd00:244:0:250:: lladdr 02:00:00:00:00:51 dev flannel-v6.1 nud permanent",
        "bridge fdb add 02:00:00:00:00:50 dev flannel.1 dst 198.18.1.50 self permanent",
        "bridge fdb add 02:00:00:00:00:51 dev flannel-v6.1 dst 2001:db8:1::50 self permanent",
        "ip route add 10.244.250.0/24 via 10.244.250.0 dev flannel.1 onlink",
        "ip route add fd00:244:0:250::/64 via fd00:244:0:250:: dev flannel-v6.1 onlink",
        "ip route add 10.244.251.0/24 via 198.18.1.51 proto 102",
        "ip route add fd00:244:0:251::/64 via 2001:db8:1::51 proto 102",
    ):
        one.node.run(command.split())
    fleet.start(one)
    wait(lambda: shown(one) == before)
