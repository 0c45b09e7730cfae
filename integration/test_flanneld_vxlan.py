"""The options of the backend vxlan, on devices that daemons make and packets that pass through them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import ping
from integration.etcd import CONFIG
from integration.fleet import NETWORK, Fleet, Member, wait
from integration.pings import Pings
from integration.underlay import address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from integration.node import Node

NETWORKS = {"Network": NETWORK, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
FIRST = {"Type": "vxlan", "VNI": 42, "Port": 4789, "GBP": True, "Learning": True, "MTU": 1400}
CHANGED = {"Type": "vxlan", "VNI": 42, "MTU": 1450}
ANOTHER = {"Type": "vxlan", "VNI": 43, "GBP": True}
MARK = "0x123"
"""A group policy id, which a packet's mark is to VXLAN with GBP."""
COUNTERS = """
table inet seen
delete table inet seen
table inet seen {{
    chain forward {{
        type filter hook forward priority 0
        oifname "flannel*" meta mark set {mark}
        iifname "flannel*" meta mark {mark} counter
        udp dport {{ 4789, 8472 }} counter
    }}
}}
"""


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    """A machine in each of two subnets, with a pod."""
    with Fleet(suite_bin, {**NETWORKS, "Backend": FIRST}) as made:
        made.populate((1, 11), (2, 21))
        yield made


def information(member: Member, device: str) -> dict[str, Any]:
    """Return what a device is, as ip(8) says it."""
    (link,) = member.ip("-details", "link", "show", device)
    kept = ("id", "port", "local", "local6", "link", "learning", "gbp")
    found = {"learning": False, "gbp": False, **link["linkinfo"]["info_data"]}
    return {"mtu": link["mtu"], "kind": link["linkinfo"]["info_kind"]} | {
        key: found[key] for key in kept if key in found
    }


def expected(options: Mapping[str, Any], family: int) -> dict[str, Any]:
    mtu = options.get("MTU", 1500) - (50 if family == 4 else 70)
    return {
        "mtu": mtu,
        "kind": "vxlan",
        "id": options["VNI"],
        "port": options.get("Port", 8472),
        "local" if family == 4 else "local6": address(1, 11, family),
        "link": "uplink",
        "learning": options.get("Learning", False),
        "gbp": options.get("GBP", False),
    }


def count(node: Node) -> None:
    """Count on a node what comes marked from a tunnel, and what is VXLAN; mark what goes into one."""
    node.run(["nft", "-f", "-"], stdin=COUNTERS.format(mark=MARK).encode())


def counted(node: Node, what: str) -> int:
    """Return how many packets a counter has seen."""
    listed = json.loads(node.run(["nft", "--json", "list", "chain", "inet", "seen", "forward"]).stdout)
    rules = [item["rule"]["expr"] for item in listed["nftables"] if "rule" in item]
    (rule,) = [rule for rule in rules if "counter" in rule[-1] and what in json.dumps(rule)]
    return int(rule[-1]["counter"]["packets"])


def look(fleet: Fleet, options: Mapping[str, Any]) -> None:
    """Demand devices with these options, and packets through them."""
    one, other, router = fleet.members["node-11"], fleet.members["node-21"], fleet.underlay.router
    for family, name in ((4, "flannel"), (6, "flannel-v6")):
        assert information(one, f"{name}.{options['VNI']}") == expected(options, family)
    mtu = int(one.subnet_env()["FLANNEL_MTU"])
    assert mtu == options.get("MTU", 1500) - 50
    for node in (one.node, other.node, router):
        count(node)
    for target in pods(other):
        size = min(mtu, 1350) - 20 - (48 if ":" in target else 28)  # the pods have the MTU of the first time
        assert ping(one.node, "node-11", target, "-M", "do", "-s", str(size))
    assert counted(router, "dport") == 4
    assert (counted(other.node, "iifname") == 2) is options.get("GBP", False)


def pods(member: Member) -> list[str]:
    ((name, ipv4),) = member.pods.items()
    infos = member.node.links(name)["eth0"]["addr_info"]
    return [
        ipv4,
        *(info["local"] for info in infos if info["family"] == "inet6" and info["scope"] == "global"),
    ]


def test_the_options_are_the_devices(fleet: Fleet) -> None:
    look(fleet, FIRST)


def test_what_a_device_has_learnt_stays_where_that_is_asked_for(fleet: Fleet) -> None:
    """From a machine that is no node: it sends by VXLAN, and nobody has a lease for it."""
    stranger = fleet.join(1, 13)
    one, mac = fleet.members["node-11"], "02:00:00:00:00:13"
    (link,) = one.ip("link", "show", "flannel.42")
    gateway = one.ip("-4", "address", "show", "flannel.42")[0]["addr_info"][0]["local"]
    options = ["id", "42", "dstport", "4789", "gbp", "remote", one.address, "local", stranger.address]
    for words in (
        ["link", "add", "vx", "address", mac, "type", "vxlan", *options],
        ["link", "set", "vx", "up"],
        ["neigh", "add", gateway, "lladdr", link["address"], "dev", "vx"],
        ["route", "add", gateway, "dev", "vx"],
    ):
        stranger.node.run(["ip", *words])
    stranger.node.run(["ping", "-c1", "-W0.2", gateway], check=False)
    wait(lambda: any(entry["mac"] == mac for entry in one.forwarding("flannel.42")))
    time.sleep(1.5)
    assert any(entry["mac"] == mac for entry in one.forwarding("flannel.42"))
    assert "flanneld_repairs_total{" not in one.get("/metrics")
    del fleet.members["node-13"]


@pytest.mark.parametrize("options", [CHANGED, ANOTHER], ids=["changed", "another VNI"])
def test_a_restart_with_other_options(fleet: Fleet, options: Mapping[str, Any], record_property: Any) -> None:
    """The device is made anew, and the pods that are there talk on.

    One of another VNI would be in the way of one with GBP, which is the whole UDP port's.
    """
    one, other = fleet.members["node-11"], fleet.members["node-21"]
    fleet.etcd.put(CONFIG, json.dumps({**NETWORKS, "Backend": options}))
    with Pings(one.node, other.pods["node-21"], "node-11") as pings:
        began = time.time()
        for member in (one, other):
            assert member.stop() == 0
        fleet.start()
        record_property("restart", f"pings failed for {pings.failed_since(began):.2f} s")
    look(fleet, options)
    devices = {name for name in one.node.links() if name.startswith("flannel")}
    assert devices == {f"flannel.{options['VNI']}", f"flannel-v6.{options['VNI']}"}
