"""Every backend in every family: its configuration, what its nodes are to publish, and pods that all talk.

The same cases run with leases in etcd (test_flanneld_backends.py) and in Kubernetes (kube/test_backends.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import NETWORK, Member, wait
from integration.underlay import UPLINK
from integration.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.node import Node

NETWORKS = {4: NETWORK, 6: "fd00:244::/48"}
ON_LINK = ((1, 11), (1, 12))
ROUTED = ((1, 11), (2, 21))
BOTH = (*ON_LINK, (2, 21))
NAMES = {(4,): "ipv4", (6,): "ipv6", (4, 6): "dual"}
HEADERS = {4: 28, 6: 48}
"""Bytes before the payload of a ping."""
PING = 84
"""Bytes of a ping at least, without the tunnel's headers."""
SECRET, PUBLIC = b"nobody sees this", b"all may see this"
TOLD = "as the command printed"


@dataclass(frozen=True)
class Case:
    """A backend in some families.

    Attributes:
        type: its name.
        families: of 4 and 6.
        places: the machines, as subnet and number.
        devices: through which packets for other nodes leave, by family; the uplink where nothing is said.
        overhead: by how much the pods' MTU is less than the uplink's.
        options: of `Backend`.
        feature: what the kernel has to have (integration/features.py).
    """

    type: str
    families: tuple[int, ...] = (4,)
    places: tuple[tuple[int, int], ...] = ON_LINK
    devices: Mapping[int, str] = field(default_factory=dict)
    overhead: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    feature: str = ""

    @property
    def name(self) -> str:
        """What a test calls it."""
        return f"{self.type}-{'direct' if self.is_direct else NAMES[self.families]}"

    @property
    def is_direct(self) -> bool:
        """Whether nodes of one subnet need no tunnel."""
        return bool(self.options.get("DirectRouting"))

    @property
    def config(self) -> dict[str, Any]:
        """net-conf.json."""
        networks = {
            ("Network" if family == 4 else "IPv6Network"): NETWORKS[family] for family in self.families
        }
        enabled = {"EnableIPv4": 4 in self.families, "EnableIPv6": 6 in self.families}
        return {**networks, **enabled, "Backend": {"Type": self.type, **self.options}}

    def device(self, family: int, one: Member, other: Member) -> str:
        """Return the device through which packets from one node to another leave."""
        if self.is_direct and one.subnet == other.subnet:
            return UPLINK
        return self.devices.get(family, UPLINK)

    def type_published(self) -> str:
        """Return what is said of the type: the reference's udp says nothing."""
        return "" if self.type == "udp" else self.type

    def data(self, member: Member, family: int) -> Any:
        """Return what a node is to publish for a family, as its kernel knows it."""
        if self.type == "vxlan":
            return {"VNI": 1, "VtepMAC": member.node.links()[self.devices[family]]["address"]}
        if self.type == "wireguard":
            said = member.node.run(["wg", "show", self.devices[family], "public-key"]).stdout
            return {"PublicKey": said.decode().strip()}
        return TOLD if self.type == "extension" else None

    def subnet_env(self, subnets: Mapping[int, str]) -> dict[str, str]:
        """Return what subnet.env is to say on a node with these subnets, by family."""
        found = {"FLANNEL_MTU": str(1500 - self.overhead), "FLANNEL_IPMASQ": "true"}
        for family, infix in ((4, ""), (6, "IPV6_")):
            if family in self.families:
                subnet = ip_network(subnets[family])
                found[f"FLANNEL_{infix}NETWORK"] = NETWORKS[family]
                found[f"FLANNEL_{infix}SUBNET"] = f"{subnet[1]}/{subnet.prefixlen}"
        return found


def _in_families(case: Case) -> list[Case]:
    return [replace(case, families=families) for families in NAMES]


CASES = (
    *_in_families(
        Case("vxlan", places=ROUTED, devices={4: "flannel.1", 6: "flannel-v6.1"}, overhead=50),
    ),
    *_in_families(Case("host-gw")),
    Case("udp", places=ROUTED, devices={4: "flannel0"}, overhead=28),
    *_in_families(Case("alloc")),
    *_in_families(
        Case(
            "extension",
            options={
                "PreStartupCommand": f"echo {TOLD}",
                "SubnetAddCommand": (
                    f'read told && [ "$told" = "{TOLD}" ]'
                    ' && if [ "$SUBNET" ]; then ip route replace $SUBNET via $PUBLIC_IP; fi'
                    ' && if [ "$IPV6SUBNET" ]; then ip route replace $IPV6SUBNET via $PUBLIC_IPV6; fi'
                ),
            },
        )
    ),
    Case("ipip", places=ROUTED, devices={4: "flannel.ipip"}, overhead=20, feature="ipip"),
    Case(
        "ipip",
        places=BOTH,
        devices={4: "flannel.ipip"},
        overhead=20,
        options={"DirectRouting": True},
        feature="ipip",
    ),
    *_in_families(
        Case(
            "wireguard",
            places=ROUTED,
            devices={4: "flannel-wg", 6: "flannel-wg-v6"},
            overhead=80,
            feature="wireguard",
        )
    ),
)


def parameters() -> list[Any]:
    """Return what pytest is to run a test with."""
    return [
        pytest.param(case, id=case.name, marks=pytest.mark.kernel(case.feature) if case.feature else ())
        for case in CASES
    ]


def talk(case: Case, members: Sequence[Member]) -> None:
    """Make a pod on each machine; see each ping each other one, with packets as large as they may be.

    Where the backend builds no paths, this does: a route for each node's subnet, as a cloud would.
    """
    wanted = {case.devices[family] for family in case.families if case.devices}
    for member in members:
        assert {name for name in member.node.links() if name.startswith("flannel")} == wanted
        member.add_pod(member.name)
    ways = [
        (one, other, family)
        for one in members
        for other in members
        for family in case.families
        if one is not other
    ]
    for way in ways if case.type == "alloc" else ():
        _route(*way)
    for way in ways:
        _reach(case, *way)


def _route(one: Member, other: Member, family: int) -> None:
    variable = "FLANNEL_SUBNET" if family == 4 else "FLANNEL_IPV6_SUBNET"
    subnet = ip_network(other.subnet_env()[variable], strict=False)
    assert not [route for route in one.ip(f"-{family}", "route") if route["dst"] == str(subnet)]
    one.node.run(["ip", "route", "add", str(subnet), "via", other.at(family)])


def _reach(case: Case, one: Member, other: Member, family: int) -> None:
    target = other.pod_at(other.name, family)
    # The outer IPv6 header is 20 bytes longer than what the reference subtracts.
    size = 1500 - case.overhead - HEADERS[family] - (20 if (case.type, family) == ("vxlan", 6) else 0)
    ping = ["ping", "-c1", "-W20", "-Mdo", f"-s{size}", target]
    wait(lambda: one.node.run(ping, netns=one.name, check=False).returncode == 0)
    (route,) = one.ip("route", "get", target)
    assert route["dev"] == case.device(family, one, other), (one.name, target)


def whisper(case: Case, router: Node, one: Member, other: Member) -> None:
    """See that what pods of two nodes tell each other is encrypted, by listening at the router between."""
    with Wire(router) as wire:
        for family in case.families:
            before = _transferred(one, case.devices[family])
            target = other.pod_at(other.name, family)
            one.node.run(["ping", "-c2", "-i0.2", "-W20", f"-p{SECRET.hex()}", target], netns=one.name)
            after = _transferred(one, case.devices[family])
            assert all(now - then > 2 * PING for now, then in zip(after, before, strict=True))
        # Last, so that it tells whether all could be heard.
        one.node.run(["ping", "-c1", "-W20", f"-p{PUBLIC.hex()}", other.at(case.families[0])])
        heard = []
        for frame in wire.frames():
            heard.append(frame)
            if PUBLIC in frame:
                break
    assert heard
    assert PUBLIC in heard[-1]
    assert not any(SECRET in frame for frame in heard)


def _transferred(member: Member, device: str) -> list[int]:
    """Return how many bytes a WireGuard device has received and sent, encrypted, with its one peer."""
    _key, received, sent = member.node.run(["wg", "show", device, "transfer"]).stdout.split()
    return [int(received), int(sent)]


def compact(data: Any) -> str:
    """Return JSON as it is published."""
    return json.dumps(data, separators=(",", ":"))
