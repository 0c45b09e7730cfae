"""What a backend carries from pod to pod, over the same devices made by hand (ip(8), bridge(8), wg(8))."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from integration.flannel import write_subnet_env
from integration.fleet import NETWORK, Fleet, wait
from integration.underlay import address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from integration.fleet import Member

STREAMS = (1, 4)
_PLACES = ((1, 11), (1, 12))
_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_SUBNETS = ("10.244.1", "10.244.2")
_PINGS = 500
_TRIES = 5
"""iperf3's server is sometimes still busy with the client before."""


@dataclass(frozen=True)
class Backend:
    """One row.

    Attributes:
        key: what selects it.
        config: `Backend` of net-conf.json.
        overhead: bytes that the MTU is less than the uplink's.
        by_hand: the commands that make one side's device and the path to the other side.
        feature: what the kernel must have, by its name in integration/features.py.
        same: both sides have the same devices, so that they should be equally fast.
        less: a round sends so many times less, as it takes so much longer.
    """

    key: str
    config: Mapping[str, Any]
    overhead: int
    by_hand: Callable[[int], list[str]]
    feature: str = ""
    same: bool = True
    less: int = 1


@dataclass(frozen=True)
class Ratio:
    """Ours and by hand: Gbit/s for a number of streams, or the microseconds of a ping."""

    backend: str
    what: str
    ours: float
    by_hand: float


def _ends(side: int) -> tuple[str, str]:
    return address(*_PLACES[side]), address(*_PLACES[1 - side])


def _vxlan(side: int) -> list[str]:
    other = 1 - side
    local, remote = _ends(side)
    tunnel = f"id 1 local {local} dstport 8472 dev uplink nolearning"
    gateway = f"{_SUBNETS[other]}.0"
    return [
        f"ip link add flannel.1 mtu 1450 address {_MACS[side]} type vxlan {tunnel}",
        f"ip address add {_SUBNETS[side]}.0/32 dev flannel.1",
        "ip link set flannel.1 up",
        f"ip neighbour add {gateway} lladdr {_MACS[other]} dev flannel.1 nud permanent",
        f"bridge fdb add {_MACS[other]} dev flannel.1 dst {remote} self permanent",
        f"ip route add {gateway}/24 via {gateway} dev flannel.1 onlink",
    ]


def _host_gw(side: int) -> list[str]:
    return [f"ip route add {_SUBNETS[1 - side]}.0/24 via {_ends(side)[1]} dev uplink"]


def _ipip(side: int) -> list[str]:
    local, remote = _ends(side)
    return [
        f"ip link add flannel.ipip mtu 1480 type ipip local {local}",
        f"ip address add {_SUBNETS[side]}.0/32 dev flannel.ipip",
        "ip link set flannel.ipip up",
        f"ip route add {_SUBNETS[1 - side]}.0/24 via {remote} dev flannel.ipip onlink",
    ]


def _wireguard(side: int) -> list[str]:
    other = 1 - side
    own, peer = _keys()[side], _keys()[other]
    end = f"endpoint {_ends(side)[1]}:51820 allowed-ips {_SUBNETS[other]}.0/24"
    return [
        "ip link add flannel-wg mtu 1420 type wireguard",
        f"umask 077; echo {own} > /run/wgkey",
        "wg set flannel-wg listen-port 51820 private-key /run/wgkey",
        f"wg set flannel-wg peer $(echo {peer} | wg pubkey) {end}",
        f"ip address add {_SUBNETS[side]}.0/32 dev flannel-wg",
        "ip link set flannel-wg up",
        f"ip route add {_SUBNETS[other]}.0/24 dev flannel-wg",
    ]


@functools.cache
def _keys() -> tuple[str, str]:
    """Return a private key for each side: any 32 bytes are one."""
    return tuple(base64.b64encode(os.urandom(32)).decode() for _ in _PLACES)  # type: ignore[return-value]


BACKENDS = (
    Backend("vxlan", {"Type": "vxlan"}, 50, _vxlan),
    Backend("host-gw", {"Type": "host-gw"}, 0, _host_gw),
    Backend("ipip", {"Type": "ipip"}, 20, _ipip, "ipip"),
    Backend("wireguard", {"Type": "wireguard"}, 80, _wireguard, "wireguard"),
    # Its packets pass through a process; the same link without it stands beside it.
    Backend("udp", {"Type": "udp"}, 28, _host_gw, same=False, less=16),
)


def measure(backend: Backend, *, rounds: int, megabytes: int, plugins: str) -> list[Ratio]:
    """Race both, in turn; return a ratio for each number of streams, and for the latency.

    Many short rounds, as a busy machine leaves only moments in peace.

    Args:
        backend: which one.
        rounds: how many for each number.
        megabytes: what a round sends.
        plugins: the folder of the CNI plugins.
    """
    config = {"Network": NETWORK, "Backend": backend.config}
    with Fleet(plugins, config) as ours, Fleet(plugins, config) as hand:
        for fleet in (ours, hand):
            for place in _PLACES:
                fleet.join(*place)
        ours.start()
        for side, member in enumerate(hand.members.values()):
            member.node.run(["sh", "-ec", "\n".join(backend.by_hand(side))])
            values = {"FLANNEL_NETWORK": NETWORK, "FLANNEL_SUBNET": f"{_SUBNETS[side]}.1/24"}
            # The plugin masquerades then, as the daemon does on the other side: both track connections.
            values |= {"FLANNEL_MTU": str(1500 - backend.overhead), "FLANNEL_IPMASQ": "false"}
            write_subnet_env(member.node, values)
        pairs = [_Pair(*fleet.members.values()) for fleet in (ours, hand)]
        for pair in pairs:
            wait(pair.talks, 20)
        acts: list[tuple[str, bool, Callable[[_Pair], float]]] = [
            (
                f"{streams} stream{'s' if streams > 1 else ''}, Gbit/s",
                True,
                lambda pair, streams=streams: pair.gigabits(streams, megabytes // backend.less),  # type: ignore[misc]
            )
            for streams in STREAMS
        ]
        acts.append(("ping, µs", False, _Pair.microseconds))
        return [
            Ratio(backend.key, what, *(_best(values, more=more) for values in _race(pairs, act, rounds)))
            for what, more, act in acts
        ]


def _race(pairs: Sequence[_Pair], act: Callable[[_Pair], float], rounds: int) -> list[list[float]]:
    """Measure each pair in each round; who is first changes, so that what drifts hits both alike."""
    found: list[list[float]] = [[] for _ in pairs]
    for number in range(rounds):
        turns = list(zip(pairs, found, strict=True))
        for pair, into in turns if number % 2 else reversed(turns):
            into.append(act(pair))
    return found


def _best(values: list[float], *, more: bool) -> float:
    """Return the mean of the best quarter: what else the machine does makes a round worse, never better."""
    return mean(sorted(values, reverse=more)[: max(1, len(values) // 4)])


class _Pair:
    """A pod on each of two machines, and a server on the second."""

    def __init__(self, first: Member, second: Member) -> None:
        first.add_pod("a")
        self._target = second.add_pod("b")
        self._node = first.node
        second.node.popen(["iperf3", "-s"], netns="b", stdout=-3)

    def talks(self) -> bool:
        """Tell whether the server answers."""
        words = ["iperf3", "-c", self._target, "-n", "1K", "--connect-timeout", "1000"]
        return self._node.run(words, netns="a", check=False).returncode == 0

    def gigabits(self, streams: int, megabytes: int) -> float:
        """Return how fast it got there, in Gbit/s."""
        words = ["iperf3", "-J", "-c", self._target, "-P", str(streams), "-n", f"{megabytes}M"]
        for _ in range(_TRIES):
            answer = json.loads(self._node.run(words, netns="a").stdout)
            if "sum_received" in answer["end"]:
                return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9
        raise RuntimeError(f"iperf3: {answer['error']}")

    def microseconds(self) -> float:
        """Return the mean round trip."""
        words = ["ping", "-q", "-n", "-f", "-c", str(_PINGS), self._target]
        said = self._node.run(words, netns="a").stdout.decode()
        found = re.search(r"= [\d.]+/([\d.]+)/", said)
        assert found, said
        return float(found[1]) * 1000
