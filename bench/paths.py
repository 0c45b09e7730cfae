"""What a backend carries from pod to pod, over the same devices made by hand with ip(8) and bridge(8)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from integration.flannel import write_subnet_env
from integration.fleet import NETWORK, Fleet, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from integration.fleet import Member

STREAMS = (1, 4)
_PLACES = ((1, 11), (1, 12))
_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_SUBNETS = ("10.244.1", "10.244.2")
_PINGS = 500


@dataclass(frozen=True)
class Backend:
    """One row.

    Attributes:
        key: what selects it.
        config: `Backend` of net-conf.json.
        overhead: bytes that the MTU is less than the uplink's.
        by_hand: the commands that make one side's device and the path to the other side.
    """

    key: str
    config: Mapping[str, Any]
    overhead: int
    by_hand: Callable[[int], list[str]]


@dataclass(frozen=True)
class Ratio:
    """Ours and by hand: Gbit/s for a number of streams, or the microseconds of a ping."""

    backend: str
    what: str
    ours: float
    by_hand: float


def _vxlan(side: int) -> list[str]:
    other = 1 - side
    local, remote = (f"198.18.1.{_PLACES[each][1]}" for each in (side, other))
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
    other = 1 - side
    return [f"ip route add {_SUBNETS[other]}.0/24 via 198.18.1.{_PLACES[other][1]} dev uplink"]


BACKENDS = (
    Backend("vxlan", {"Type": "vxlan"}, 50, _vxlan),
    Backend("host-gw", {"Type": "host-gw"}, 0, _host_gw),
)


def measure(backend: Backend, *, rounds: int, seconds: int, plugins: str) -> list[Ratio]:
    """Race both, in turn; return a ratio for each number of streams, and for the latency."""
    config = {"Network": NETWORK, "Backend": backend.config}
    with Fleet(plugins, config) as ours, Fleet(plugins, config) as hand:
        for fleet in (ours, hand):
            for place in _PLACES:
                fleet.join(*place)
        ours.start()
        for side, member in enumerate(hand.members.values()):
            for command in backend.by_hand(side):
                member.node.run(command.split())
            values = {"FLANNEL_NETWORK": NETWORK, "FLANNEL_SUBNET": f"{_SUBNETS[side]}.1/24"}
            # The plugin masquerades then, as the daemon does on the other side: both track connections.
            values |= {"FLANNEL_MTU": str(1500 - backend.overhead), "FLANNEL_IPMASQ": "false"}
            write_subnet_env(member.node, values)
        pairs = [_Pair(*fleet.members.values()) for fleet in (ours, hand)]
        for pair in pairs:
            wait(pair.talks, 20)
        found = []
        for streams in STREAMS:
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds):
                for pair, into in zip(pairs, times, strict=True):
                    into.append(pair.gigabits(streams, seconds))
            title = f"{streams} stream{'s' if streams > 1 else ''}, Gbit/s"
            found.append(Ratio(backend.key, title, median(times[0]), median(times[1])))
        times = ([], [])
        for _ in range(rounds):
            for pair, into in zip(pairs, times, strict=True):
                into.append(pair.microseconds())
        return [*found, Ratio(backend.key, "ping, µs", median(times[0]), median(times[1]))]


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

    def gigabits(self, streams: int, seconds: int) -> float:
        """Return what got there, in Gbit/s."""
        words = ["iperf3", "-J", "-c", self._target, "-P", str(streams), "-t", str(seconds)]
        answer = json.loads(self._node.run(words, netns="a").stdout)
        return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9

    def microseconds(self) -> float:
        """Return the mean round trip."""
        words = ["ping", "-q", "-n", "-c", str(_PINGS), "-i", "0.002", self._target]
        said = self._node.run(words, netns="a").stdout.decode()
        found = re.search(r"= [\d.]+/([\d.]+)/", said)
        assert found, said
        return float(found[1]) * 1000
