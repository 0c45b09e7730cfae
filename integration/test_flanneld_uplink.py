"""What the daemon sees of its uplink: IPv6 addresses that change, and what no notice tells of."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import IPv4Network
from typing import Any, cast

import pytest

from flanneld import daemon, iface
from flanneld.metrics import Metrics
from flanneld.netconf import NetworkConfig
from flanneld.options import Options
from integration.fleet import VXLAN, Fleet, Member, wait
from integration.node import Node
from integration.pings import Pings
from integration.waiting import PATIENCE

pytestmark = pytest.mark.root


def test_a_route_on_the_uplink_is_seen_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It decides who is reached without a tunnel, and the kernel's notices of links do not tell of it."""
    monkeypatch.setattr(daemon, "_UPLINK", 0.1)
    there = IPv4Network("198.18.9.0/24")

    async def scenario(node: Node) -> None:
        options, nothing = Options(iface=["uplink"]), cast("Any", None)
        made = daemon.Daemon(options, nothing, Metrics(), nothing, nothing, nothing)
        made._config = NetworkConfig.parse('{"Network": "10.5.0.0/16"}')
        made._choice = iface.choose(options, (4,))
        made._uplink = iface.look(made._choice, (4,))
        watching = asyncio.create_task(made._watch_uplink())
        await asyncio.sleep(0.5)
        assert not made._changed.is_set()
        node.run(["ip", "route", "add", str(there), "dev", "uplink"])
        async with asyncio.timeout(PATIENCE):
            await made._changed.wait()
        assert there in made._uplink.on_link
        watching.cancel()

    with Node() as node:
        node.run(["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "other"])
        node.run(["ip", "address", "add", "198.18.1.11/24", "dev", "uplink"])
        for name in ("other", "uplink"):
            node.run(["ip", "link", "set", name, "up"])
        with node.entered():
            asyncio.run(scenario(node))


def joined(name: str, number: int) -> str:
    """Return commands that give an uplink what the kernel takes from one that goes down."""
    own = "; ".join(
        f"ip address replace {each}/64 dev {name} nodad" for each in (f"2001:db8:1::{number}", "fe80::1:11")
    )
    return f"{own}; ip -4 route replace default via 198.18.1.1; ip -6 route replace default via 2001:db8:1::1"


def down(name: str, then: str = "") -> str:
    return f"ip link set {name} down; {then}"


EVENTS = {
    "renamed": (
        down("uplink", f"ip link set uplink name other; ip link set other up; {joined('other', 11)}"),
        "dev other",
    ),
    "renamed back": (
        down("other", f"ip link set other name uplink; ip link set uplink up; {joined('uplink', 11)}"),
        "dev uplink",
    ),
    "flaps": (
        f"{down('uplink', 'ip link set uplink up; sleep 0.1; ') * 3}{joined('uplink', 11)}",
        "local 2001:db8:1::11",
    ),
    "mtu": ("ip link set uplink mtu 1400", "mtu 1330"),
    "mtu back": ("ip link set uplink mtu 1500", "mtu 1430"),
    "address": (
        f"ip address del 2001:db8:1::11/64 dev uplink; {joined('uplink', 13)}",
        "local 2001:db8:1::13",
    ),
}


def test_ipv6_of_the_uplink_changes(suite_bin: str, record_property: Any) -> None:
    config = {**VXLAN, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
    with Fleet(suite_bin, config) as fleet:
        one, near, far = (fleet.join(*place) for place in ((1, 11), (1, 12), (2, 21)))
        fleet.start()
        for name, member in fleet.members.items():
            member.add_pod(name)
            wait(lambda member=member: "flanneld_leases 2\n" in member.get("/metrics"))  # type: ignore[misc]
        with (
            Pings(one.node, ipv6(near, "node-12"), "node-11") as direct,
            Pings(one.node, ipv6(far, "node-21"), "node-11") as tunnelled,
        ):
            for name, (command, sign) in EVENTS.items():
                began = time.time()
                one.node.run(["sh", "-c", command])
                wait(lambda sign=sign: sign in device(one))  # type: ignore[misc]
                failed = [f"{path.failed_since(began):.2f} s" for path in (direct, tunnelled)]
                record_property(name, f"pings failed for {failed[0]} directly, {failed[1]} by VXLAN")
        values = [json.loads(value) for value in fleet.etcd.leases().values()]
        assert "2001:db8:1::13" in {value["PublicIPv6"] for value in values}


def device(member: Member) -> str:
    return member.node.run(["ip", "-details", "link", "show", "flannel-v6.1"], check=False).stdout.decode()


def ipv6(member: Member, pod: str) -> str:
    infos = member.node.links(pod)["eth0"]["addr_info"]
    (found,) = [info["local"] for info in infos if info["family"] == "inet6" and info["scope"] == "global"]
    return str(found)
