"""The extension backend: its commands, what they are told, and a cluster that they build."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import NETWORK, Fleet, Member, program, wait
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG = "/run/said"
ENV = f"env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= >>{LOG}"
# The manual's own example of a complex case: VXLAN, with its device's MAC address published.
VXLAN = {
    "Type": "extension",
    "PreStartupCommand": (
        "ip link del vx 2>/dev/null; ip link add vx type vxlan id 1 dstport 8472 dev uplink"
        " && cat /sys/class/net/vx/address"
    ),
    "PostStartupCommand": (
        f"ip addr add ${{SUBNET%/*}}/32 dev vx && ip link set vx up; echo post >>{LOG}; {ENV}"
    ),
    "SubnetAddCommand": (
        "read mac; gateway=${SUBNET%/*}; ip neigh replace $gateway lladdr $mac dev vx nud permanent"
        " && bridge fdb replace $mac dev vx self dst $PUBLIC_IP"
        f" && ip route replace $SUBNET via $gateway dev vx onlink; echo add $mac >>{LOG}; {ENV}"
    ),
    "SubnetRemoveCommand": f"read mac; ip route del $SUBNET; echo remove $mac >>{LOG}; {ENV}",
    "ShutdownCommand": f"echo shutdown >>{LOG}; {ENV}",
}
FORGOTTEN: dict[str, int] = {}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def said(member: Member) -> list[str]:
    """Return what the commands have noted since it was asked before."""
    path = member.node.path(LOG)
    if not os.path.exists(path):
        return []
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    before = FORGOTTEN.get(path, 0)
    FORGOTTEN[path] = len(lines)
    return lines[before:]


def noted(member: Member, *lines: str) -> bool:
    """Tell whether the last that the commands noted are these lines."""
    with open(member.node.path(LOG), encoding="ascii") as file:
        return file.read().splitlines()[-len(lines) :] == list(lines)


def ending(member: Member, fleet: Fleet) -> tuple[int, bytes]:
    done = member.node.run(
        [*program(), f"--etcd-endpoints={fleet.etcd.url}"], {"PYTHONPATH": ROOT}, check=False
    )
    return done.returncode, done.stderr


def test_commands_build_a_cluster(suite_bin: str) -> None:
    with Fleet(suite_bin, {"Network": NETWORK, "Backend": VXLAN}) as fleet:
        one, other = fleet.join(1, 11), fleet.join(2, 21)
        fleet.start(one)
        own = subnet(one)
        values = [f"NETWORK={NETWORK}", PATH, f"PUBLIC_IP={one.address}", f"SUBNET={own}"]
        assert said(one) == ["post", *values]
        fleet.start(other)
        mac = published(fleet, other)["BackendData"]
        about = [PATH, f"PUBLIC_IP={other.address}", f"SUBNET={subnet(other)}"]
        wait(lambda: noted(one, f"add {mac}", *about))
        assert len(said(one)) == 1 + len(about)
        for name, member in fleet.members.items():
            member.add_pod(name)
        ping = ["ping", "-c1", "-W20", other.pods["node-21"]]
        assert one.node.run(ping, netns="node-11", check=False).returncode == 0
        assert one.subnet_env()["FLANNEL_MTU"] == "1500"

        assert one.stop() == 0
        assert said(one) == ["shutdown", *values]
        fleet.start(one)
        wait(lambda: "flanneld_leases 1\n" in one.get("/metrics"))
        fleet.etcd.ctl("del", f"/coreos.com/network/subnets/{subnet(other).replace('/', '-')}")
        wait(lambda: noted(one, f"remove {mac}", *about))


def test_an_uplink_that_changes_while_the_daemon_starts(suite_bin: str) -> None:
    """Between choosing it and listening for changes of it: here the first command runs."""
    command = "ip link set uplink mtu 1400"
    backend = {"Type": "extension", "PreStartupCommand": command}
    with Fleet(suite_bin, {"Network": NETWORK, "Backend": backend}) as fleet:
        one = fleet.join(1, 11)
        fleet.start(one)
        wait(lambda: one.subnet_env()["FLANNEL_MTU"] == "1400")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"PreStartupCommand": "echo no such luck >&2; exit 3"}, b"exit status 3 of echo no such luck"),
        ({"PostStartupCommand": "exit 1"}, b"PostStartupCommand: exit status 1"),
        ({"PreStartupCommand": ["ls"]}, b"Backend: prestartupcommand: "),
    ],
)
def test_what_the_start_needs_ends_the_daemon(
    suite_bin: str, options: Mapping[str, Any], message: bytes
) -> None:
    with Fleet(suite_bin, {"Network": NETWORK, "Backend": {"Type": "extension", **options}}) as fleet:
        status, printed = ending(fleet.join(1, 11), fleet)
    assert status == 1
    assert message in printed


def subnet(member: Member) -> str:
    return member.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")


def published(fleet: Fleet, member: Member) -> Any:
    return json.loads(fleet.etcd.leases()[subnet(member).replace("/", "-")])
