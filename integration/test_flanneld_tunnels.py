"""Tunnels that not every kernel has: what is written, and repairs. For pods: test_flanneld_backends.py."""

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
    return node.run(["ping", "-c1", "-W20", "-Mdo", f"-s{bare}", target], check=False).returncode == 0


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
            took = wait(lambda: shown() == before)
            record(name, f"back after {took:.2f} s, pings failed for {pings.failed_since(broken):.2f} s")


@pytest.fixture(scope="module")
def underlay() -> Iterator[Underlay]:
    """Two machines on one link; more would take long to make."""
    with Underlay() as made:
        made.join(1, 11)
        made.join(1, 12)
        yield made


@pytest.mark.kernel("ipip")
def test_ipip(underlay: Underlay, record_property: Any) -> None:
    one = underlay.machines[1, 11]
    with keepers(underlay, {"Network": NETWORK, "Backend": {"Type": "ipip"}}, 11, 12):
        (link,) = json.loads(shell(one, "ip -j -d -4 addr show flannel.ipip"))
        info = link["linkinfo"]
        assert (link["mtu"], info["info_kind"], info["info_data"]["local"]) == (1480, "ipip", address(1, 11))
        assert [(info["local"], info["prefixlen"]) for info in link["addr_info"]] == [("10.244.11.0", 32)]
        (far,) = [route for route in json.loads(shell(one, "ip -j route")) if "10.244" in route["dst"]]
        assert far["dst"] == "10.244.12.0/24"
        assert (far["dev"], far["gateway"], far["flags"]) == ("flannel.ipip", address(1, 12), ["onlink"])
        assert answers(one, "10.244.12.0", 1480)
        breaks = {
            "device": "ip link del flannel.ipip",
            "local": "ip link set flannel.ipip type ipip local 198.18.1.77",
            "route": "ip route del 10.244.12.0/24; ip address flush dev flannel.ipip",
        }
        show = "ip -d -4 addr show flannel.ipip | sed s/^[0-9]*://; ip route"
        repairs(one, lambda: shell(one, show), breaks, "10.244.12.0", record_property)


@pytest.mark.kernel("wireguard")
def test_wireguard(underlay: Underlay, record_property: Any) -> None:
    psk = "cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHM="
    options = {"Type": "wireguard", "PSK": psk, "PersistentKeepaliveInterval": 25, "ListenPort": 51833}
    one, other = underlay.machines[1, 11], underlay.machines[1, 12]
    with keepers(underlay, {**DUAL, "Backend": options}, 11, 12) as made:
        key = json.loads(made[1].lease.attrs.backend_data)["PublicKey"]
        assert made[1].lease.attrs.backend_v6_data == f'{{"PublicKey":"{key}"}}'
        assert shell(other, "wg pubkey </run/flannel/wgkey; stat -c %a /run/flannel/wgkey") == f"{key}\n400\n"
        peer = (key, psk, f"{address(1, 12)}:51833", "10.244.12.0/24", "25")
        peer_v6 = (key, psk, f"[{address(1, 12, 6)}]:51821", "fd00:244:0:12::/64", "25")
        assert (peers(one, "flannel-wg"), peers(one, "flannel-wg-v6")) == ([peer], [peer_v6])
        assert f"{NETWORK} dev flannel-wg " in shell(one, "ip route")
        assert answers(one, "10.244.12.0", 1420)
        assert answers(one, "fd00:244:0:12::", 1420)
        breaks = {
            "device": "ip link del flannel-wg",
            "peer": f"wg set flannel-wg peer {key} remove",
            "allowed": f"wg set flannel-wg peer {key} allowed-ips 10.244.77.0/24",
            "key": "wg genkey | wg set flannel-wg private-key /proc/self/fd/0 listen-port 4000",
        }
        show = "wg show flannel-wg dump | cut -f 1-4,8; ip route"
        repairs(one, lambda: shell(one, show), breaks, "10.244.12.0", record_property)
    with keepers(underlay, {**DUAL, "Backend": {"Type": "wireguard", "Mode": "ipv6"}}, 11, 12):
        endpoint, both = f"[{address(1, 12, 6)}]:51820", "10.244.12.0/24,fd00:244:0:12::/64"
        assert peers(one, "flannel-wg") == [(key, "(none)", endpoint, both, "off")]
        assert answers(one, "10.244.12.0", 1420)
        assert answers(one, "fd00:244:0:12::", 1420)


def peers(node: Node, device: str) -> Sequence[tuple[str, str, str, str, str]]:
    """Return key, preshared key, endpoint, allowed networks and keepalive of each peer."""
    lines = shell(node, f"wg show {device} dump").splitlines()[1:]
    return [(f[0], f[1], f[2], ",".join(sorted(f[3].split(","))), f[7]) for f in map(str.split, lines)]
