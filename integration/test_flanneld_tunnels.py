"""Tunnels that not every kernel has: what the backends write, packets that go through, and repairs."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import NETWORK, wait
from integration.keeper import Keeper
from integration.pings import Pings
from integration.underlay import Underlay, address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from integration.node import Node

DUAL = {"Network": NETWORK, "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
SOON = 1.5
"""Seconds within which what is broken is back; emulated machines take longer to tell it."""


@contextmanager
def keepers(underlay: Underlay, config: Mapping[str, Any], *numbers: int) -> Iterator[list[Keeper]]:
    """Run a backend on machines that know each other."""
    nodes = {number: node for (_subnet, number), node in underlay.machines.items()}
    with ExitStack() as stack:
        made = [stack.enter_context(Keeper(nodes[number], config, number)) for number in numbers]
        for keeper in made:
            keeper.know(*(other for other in made if other is not keeper))
        yield made


def answers(node: Node, target: str, size: int) -> bool:
    """Tell whether a ping of this many bytes in all is answered, unfragmented."""
    bare = size - (48 if ":" in target else 28)
    return node.run(["ping", "-c1", "-W5", "-Mdo", f"-s{bare}", target], check=False).returncode == 0


def shell(node: Node, command: str) -> str:
    return node.run(["sh", "-ec", command]).stdout.decode()


def repairs(
    node: Node, shown: Callable[[], object], breaks: Mapping[str, str], target: str, record: Any
) -> None:
    """Break things one by one, and wait until they are as they were; note for how long pings failed."""
    before = shown()
    with Pings(node, target) as pings:
        for name, command in breaks.items():
            broken = time.time()
            shell(node, command)
            took = wait(lambda: shown() == before, 10 * SOON)
            record(name, f"back after {took:.2f} s, pings failed for {pings.failed_since(broken):.2f} s")


@pytest.mark.kernel("ipip")
def test_ipip(record_property: Any) -> None:
    config = {"Network": NETWORK, "Backend": {"Type": "ipip", "DirectRouting": True}}
    with Underlay() as underlay:
        one, *_ = [underlay.join(*place) for place in ((1, 11), (1, 12), (2, 21))]
        with keepers(underlay, config, 11, 12, 21):
            (link,) = json.loads(shell(one, "ip -j -d -4 addr show flannel.ipip"))
            assert (link["link_type"], link["mtu"]) == ("ipip", 1480)
            assert (link["linkinfo"]["info_kind"], link["linkinfo"]["info_data"]["local"]) == (
                "ipip",
                address(1, 11),
            )
            assert [(info["local"], info["prefixlen"]) for info in link["addr_info"]] == [("10.244.11.0", 32)]
            routes = {route["dst"]: route for route in json.loads(shell(one, "ip -j route"))}
            far, near = routes["10.244.21.0/24"], routes["10.244.12.0/24"]
            assert (far["dev"], far["gateway"], far["flags"]) == ("flannel.ipip", address(2, 21), ["onlink"])
            assert (near["dev"], near["gateway"]) == ("uplink", address(1, 12))
            assert answers(one, "10.244.21.0", 1480)
            assert answers(one, "10.244.12.0", 1500)
            breaks = {
                "device": "ip link del flannel.ipip",
                "local": "ip link set flannel.ipip type ipip local 198.18.1.77",
                "mtu": "ip link set flannel.ipip mtu 1300",
                "address": "ip address flush dev flannel.ipip",
                "route": "ip route del 10.244.21.0/24",
            }
            show = "ip -d -4 addr show flannel.ipip | sed s/^[0-9]*://; ip route"
            repairs(one, lambda: shell(one, show), breaks, "10.244.21.0", record_property)


@pytest.mark.kernel("wireguard")
def test_wireguard(record_property: Any) -> None:
    psk = "cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHM="
    options = {"Type": "wireguard", "PSK": psk, "PersistentKeepaliveInterval": 25, "ListenPort": 51833}
    with Underlay() as underlay:
        one, other = (underlay.join(*place) for place in ((1, 11), (2, 21)))
        with keepers(underlay, {**DUAL, "Backend": options}, 11, 21) as made:
            key = json.loads(made[1].lease.attrs.backend_data)["PublicKey"]
            assert made[1].lease.attrs.backend_v6_data == json.dumps({"PublicKey": key}).replace(" ", "")
            assert shell(other, "wg pubkey </run/flannel/wgkey; stat -c %a /run/flannel/wgkey").split() == [
                key,
                "400",
            ]
            assert peers(one, "flannel-wg") == [
                (key, psk, f"{address(2, 21)}:51833", "10.244.21.0/24", "25"),
            ]
            assert peers(one, "flannel-wg-v6") == [
                (key, psk, f"[{address(2, 21, 6)}]:51821", "fd00:244:0:21::/64", "25"),
            ]
            assert f"{NETWORK} dev flannel-wg " in shell(one, "ip route")
            assert answers(one, "10.244.21.0", 1420)
            assert answers(one, "fd00:244:0:21::", 1420)
            breaks = {
                "device": "ip link del flannel-wg",
                "peer": f"wg set flannel-wg peer {key} remove",
                "allowed": f"wg set flannel-wg peer {key} allowed-ips 10.244.77.0/24",
                "key": "wg genkey | wg set flannel-wg private-key /dev/stdin listen-port 4000",
                "stranger": "wg set flannel-wg peer $(wg genkey | wg pubkey) allowed-ips 10.244.21.0/24",
            }
            show = "wg show flannel-wg private-key; wg show flannel-wg listen-port; ip route"
            repairs(
                one,
                lambda: (shell(one, show), peers(one, "flannel-wg")),
                breaks,
                "10.244.21.0",
                record_property,
            )
        with keepers(underlay, {**DUAL, "Backend": {"Type": "wireguard", "Mode": "ipv6"}}, 11, 21):
            endpoint, both = f"[{address(2, 21, 6)}]:51820", "10.244.21.0/24,fd00:244:0:21::/64"
            assert peers(one, "flannel-wg") == [(key, "(none)", endpoint, both, "off")]
            assert answers(one, "10.244.21.0", 1420)
            assert answers(one, "fd00:244:0:21::", 1420)


def peers(node: Node, device: str) -> Sequence[tuple[str, str, str, str, str]]:
    """Return key, preshared key, endpoint, allowed networks and keepalive of each peer."""
    lines = shell(node, f"wg show {device} dump").splitlines()[1:]
    return [(f[0], f[1], f[2], ",".join(sorted(f[3].split(","))), f[7]) for f in map(str.split, lines)]
