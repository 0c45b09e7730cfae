"""Whatever somebody removes or changes of the paths is put back within a second of the kernel's notice."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import Fleet, Member, wait

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    """A machine in one subnet and two in another, with a pod on the first of each."""
    with Fleet(suite_bin) as made:
        for place in ((1, 11), (2, 21), (1, 12)):
            made.join(*place)
        made.start()
        for name in ("node-11", "node-21"):
            made.members[name].add_pod(name)
        yield made


def shown(member: Member) -> str:
    """Return everything the daemon wrote on a machine, without indexes and the order of entries."""
    commands = (
        ["ip", "-details", "link", "show", "dev", "flannel.1"],
        ["ip", "address", "show", "dev", "flannel.1", "scope", "global"],
        ["ip", "neigh", "show", "dev", "flannel.1", "nud", "permanent"],
        ["bridge", "fdb", "show", "dev", "flannel.1"],
        ["ip", "route"],
    )
    said = [member.node.run(command, check=False).stdout.decode() for command in commands]
    lines = re.sub(r"^\d+: ", "", "".join(said), flags=re.MULTILINE).splitlines()
    return "\n".join(sorted(lines))


BREAKS = {
    "route": "ip route del {subnet}",
    "route-elsewhere": "ip route replace {subnet} via 198.18.1.1",
    "direct-route": "ip route del {near}",
    "neighbour": "ip neigh del {gateway} dev flannel.1",
    "neighbour-changed": "ip neigh replace {gateway} lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
    "fdb": "bridge fdb del {mac} dev flannel.1 dst {node}",
    "fdb-changed": "bridge fdb replace {mac} dev flannel.1 dst 198.18.1.77 self permanent",
    "fdb-added": "bridge fdb append {mac} dev flannel.1 dst 198.18.1.77 self permanent",
    "address": "ip address flush dev flannel.1",
    "device": "ip link del flannel.1",
    "device-down": "ip link set flannel.1 down",
    "device-mtu": "ip link set flannel.1 mtu 1300",
    "device-mac": "ip link set flannel.1 address 02:00:00:00:00:98",
    "uplink-flaps": "ip link set uplink down; ip link set uplink up; ip route add default via 198.18.1.1",
}


@pytest.mark.parametrize("broken", BREAKS)
def test_it_is_put_back(fleet: Fleet, broken: str, record_property: Any) -> None:
    one, other, near = (fleet.members[f"node-{number}"] for number in (11, 21, 12))
    subnets = [member.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/") for member in (other, near)]
    wait(lambda: all(any(route["dst"] == subnet for route in one.ip("route")) for subnet in subnets))
    before = shown(one)
    gateway = subnets[0].partition("/")[0]
    names = {
        "subnet": subnets[0],
        "near": subnets[1],
        "gateway": gateway,
        "node": other.address,
        "mac": one.ip("neigh", "show", gateway, "dev", "flannel.1")[0]["lladdr"],
    }
    ping = ["ping", "-i", "0.05", "-c", "24", "-W", "1", other.pods["node-21"]]
    pings = one.node.popen(ping, "node-11", stdout=subprocess.PIPE)
    assert pings.stdout is not None
    time.sleep(0.2)
    one.node.run(["sh", "-ec", BREAKS[broken].format(**names)])
    assert wait(lambda: shown(one) == before) < 1.5
    with pings.stdout as output:
        said = output.read().decode()
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found is not None, said
    lost = int(found[1]) - int(found[2])
    record_property(broken, f"pings failed for {lost * 50} ms")
    assert lost < 20


def test_nobody_behind_the_tunnel_is_a_router(fleet: Fleet) -> None:
    one = fleet.members["node-11"]
    said = one.node.run(["cat", "/proc/sys/net/ipv6/conf/flannel.1/accept_ra"]).stdout
    assert said == b"0\n"


def test_entries_of_a_node_that_left_while_we_were_away_are_removed(fleet: Fleet) -> None:
    one = fleet.members["node-11"]
    one.stop()
    before = shown(one)
    for command in (
        "ip neigh add 10.244.250.0 lladdr 02:00:00:00:00:50 dev flannel.1 nud permanent",
        "bridge fdb add 02:00:00:00:00:50 dev flannel.1 dst 198.18.1.50 self permanent",
        "ip route add 10.244.250.0/24 via 10.244.250.0 dev flannel.1 onlink",
        "ip route add 10.244.251.0/24 via 198.18.1.51 proto 102",
    ):
        one.node.run(command.split())
    one.start([f"--etcd-endpoints={fleet.etcd.url}", *fleet.flags])
    wait(lambda: shown(one) == before)
