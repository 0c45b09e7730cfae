"""The daemon's life on machines with a real etcd: start, restart, stop, lost leases, a changing uplink."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.etcd import SUBNETS
from integration.flannel import SUBNET_FILE
from integration.fleet import TLS, VXLAN, Fleet, Member, program, wait, write_files
from integration.node import Node
from integration.pings import Pings
from integration.suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    """Two machines in one subnet and one in another, each with a pod; tests leave them running."""
    with Fleet(suite_bin) as made:
        made.populate((1, 11), (1, 12), (2, 21))
        yield made


def member(fleet: Fleet, number: int) -> Member:
    return fleet.members[f"node-{number}"]


def subnet(one: Member) -> str:
    return one.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")


def key(one: Member) -> str:
    return SUBNETS + subnet(one).replace("/", "-")


def published(fleet: Fleet, one: Member) -> Any:
    return json.loads(fleet.etcd.leases()[subnet(one).replace("/", "-")])


def pings(one: Member, other: Member, count: int = 1) -> int:
    """Return how many of some pings between two members' pods are answered."""
    (name, _), (_, target) = next(iter(one.pods.items())), next(iter(other.pods.items()))
    ping = ["ping", "-i", "0.05", "-W", "20", "-c", str(count), target]
    done = one.node.run(ping, netns=name, check=False)
    found = re.search(r"(\d+) received", done.stdout.decode())
    return int(found[1]) if found else 0


def metric(one: Member, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", one.get("/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0


def put_back(one: Member) -> float:
    return metric(one, 'flanneld_repairs_total{kind="subnetfile"}')


def routes(one: Member) -> dict[str, Any]:
    return {route["dst"]: route for route in one.ip("route")}


def test_pods_of_all_machines_talk_directly_or_by_vxlan(fleet: Fleet) -> None:
    a, b, c = (member(fleet, number) for number in (11, 12, 21))
    wait(lambda: len(fleet.etcd.leases()) == 3)
    for one in (a, b, c):
        for other in (a, b, c):
            assert one is other or pings(one, other)
    direct = routes(a)[subnet(b)]
    assert (direct["gateway"], direct["dev"]) == (b.address, "uplink")
    assert routes(a)[subnet(c)]["dev"] == "flannel.1"
    assert routes(a)[subnet(c)]["gateway"] == subnet(c).partition("/")[0]
    assert a.subnet_env() == {
        "FLANNEL_NETWORK": "10.244.0.0/16",
        "FLANNEL_SUBNET": subnet(a).replace(".0/", ".1/"),
        "FLANNEL_MTU": "1450",
        "FLANNEL_IPMASQ": "true",
    }
    assert metric(a, "flanneld_leases") == 2
    assert "the paths are up" in a.get("/readyz")
    assert metric(a, "flanneld_watch_age_seconds") < 30


@pytest.mark.parametrize(
    "broken",
    ["rm $0", "echo FLANNEL_MTU=9000 >>$0", ": >$0", "echo >$0.new; mv $0.new $0", "rm $0; ln -s no $0"],
)
def test_subnet_env_is_put_back(fleet: Fleet, broken: str, record_property: Any) -> None:
    a, c = member(fleet, 11), member(fleet, 21)
    with open(a.node.path(SUBNET_FILE), "rb") as file:
        content = file.read()
    before = put_back(a)
    with Pings(a.node, c.pods["node-21"], "node-11") as sent:
        began = time.time()
        a.node.run(["sh", "-ec", broken, SUBNET_FILE])
        took = wait(lambda: a.node.run(["cat", SUBNET_FILE], check=False).stdout == content)
        assert sent.lost_since(began) == 0
    record_property(broken, f"back after {took:.2f} s")
    wait(lambda: put_back(a) == before + 1)


def test_a_stop_leaves_the_paths_and_a_restart_changes_nothing(fleet: Fleet) -> None:
    a, c = member(fleet, 11), member(fleet, 21)
    before = published(fleet, a), subnet(a), routes(a)
    assert a.stop() == 0
    assert pings(c, a, 3) == 3
    assert routes(a) == before[2]
    fleet.start(a)
    assert (published(fleet, a), subnet(a)) == before[:2]
    wait(lambda: metric(a, "flanneld_leases") == 2)
    assert routes(a) == before[2]
    assert pings(a, c, 3) == 3


def test_without_etcd_traffic_goes_on(fleet: Fleet) -> None:
    a, c = member(fleet, 11), member(fleet, 21)
    fleet.etcd.stop()
    wait(lambda: metric(a, 'flanneld_errors_total{where="manager"}') > 1)
    assert pings(a, c, 3) == 3
    assert not a.daemon_ended()
    fleet.etcd.start()
    data = {"VNI": 1, "VtepMAC": "02:00:00:00:00:63"}
    late = {"PublicIP": "198.18.2.99", "BackendType": "vxlan", "BackendData": data}
    fleet.etcd.put(SUBNETS + "10.244.254.0-24", json.dumps(late))
    wait(lambda: "10.244.254.0/24" in routes(a))
    fleet.etcd.ctl("del", SUBNETS + "10.244.254.0-24")
    wait(lambda: "10.244.254.0/24" not in routes(a))


def test_the_uplinks_mtu_name_and_address_are_followed(fleet: Fleet) -> None:
    b, c = member(fleet, 12), member(fleet, 21)
    own = subnet(b)
    b.node.run(["ip", "link", "set", "uplink", "mtu", "1400"])
    wait(lambda: b.subnet_env()["FLANNEL_MTU"] == "1350")
    b.node.run(["ip", "link", "set", "uplink", "mtu", "1500"])
    wait(lambda: b.subnet_env()["FLANNEL_MTU"] == "1450")
    commands = (
        ["ip", "address", "add", "198.18.1.13/24", "dev", "uplink"],
        ["ip", "address", "del", "198.18.1.12/24", "dev", "uplink"],
        ["ip", "address", "add", "198.18.1.13/24", "dev", "uplink"],
        ["ip", "route", "replace", "default", "via", "198.18.1.1"],
    )
    for command in commands:
        b.node.run(command, check=False)
    wait(lambda: published(fleet, b)["PublicIP"] == "198.18.1.13")
    assert subnet(b) == own
    wait(lambda: pings(c, b) == 1)
    assert pings(b, c) == 1


@pytest.mark.parametrize("loss", ["removed", "taken"])
def test_a_lost_lease_ends_the_daemon_with_an_error(fleet: Fleet, loss: str) -> None:
    a = member(fleet, 11)
    own = key(a)
    if loss == "removed":
        fleet.etcd.ctl("del", own)
    else:
        fleet.etcd.put(own, '{"PublicIP": "198.18.1.66", "BackendType": "vxlan"}')
    wait(a.daemon_ended)
    assert a.daemon is not None
    assert a.daemon.returncode == 1
    if loss == "taken":
        fleet.etcd.ctl("del", own)
    fleet.start(a)
    assert key(a) == own  # by subnet.env


def test_a_node_that_is_forgotten_loses_its_entries_and_one_that_joins_gets_them(fleet: Fleet) -> None:
    a, c = member(fleet, 11), member(fleet, 21)
    new = fleet.join(2, 22)
    fleet.start(new)
    new.add_pod("new")
    gone = subnet(new)
    wait(lambda: gone in routes(a) and gone in routes(c))
    assert pings(a, new)
    assert pings(new, c)
    neighbours = len(a.ip("neigh", "show", "dev", "flannel.1", "nud", "permanent"))
    entries = len(a.forwarding())
    fleet.leave("node-22")
    wait(lambda: gone not in routes(a) and gone not in routes(c))
    assert len(a.ip("neigh", "show", "dev", "flannel.1", "nud", "permanent")) == neighbours - 1
    assert len(a.forwarding()) == entries - 1


def test_the_blackhole_route_yields_to_the_bridges(suite_bin: str) -> None:
    with Fleet(suite_bin, flags=["--ip-blackhole-route"]) as fleet:
        a = fleet.join(1, 11)
        fleet.start()
        found = a.ip("route", "show", "type", "blackhole")
        assert [route["dst"] for route in found] == [subnet(a)]
        a.add_pod("one")
        assert a.node.run(["ping", "-c", "1", "-W", "20", a.pods["one"]], check=False).returncode == 0


def test_checksums_that_are_not_left_to_the_uplink(suite_bin: str) -> None:
    config = {
        **VXLAN,
        "EnableIPv6": True,
        "IPv6Network": "fd00:244::/48",
        "Backend": {"Type": "vxlan", "TxChecksum": False},
    }
    with Fleet(suite_bin, config) as fleet:
        a = fleet.join(1, 11)
        fleet.start()
        for device in ("flannel.1", "flannel-v6.1"):
            assert not computes_late(a, device)
            a.node.run(["ethtool", "-K", device, "tx-checksum-ip-generic", "on"])
            wait(lambda device=device: not computes_late(a, device))  # type: ignore[misc]


def computes_late(one: Member, device: str) -> bool:
    """Tell whether a device leaves inner checksums to the one below it."""
    return "tx-checksum-ip-generic: on" in one.node.run(["ethtool", "-k", device]).stdout.decode()


def test_nobody_is_told_of_a_network_that_is_not_there(suite_bin: str) -> None:
    """A device that the kernel refuses, for its MTU: no subnet.env, and so no pods, until there is one."""
    with Fleet(suite_bin, {**VXLAN, "Backend": {"Type": "vxlan", "MTU": 100}}) as fleet:
        a = fleet.join(1, 11)
        a.launch([f"--etcd-endpoints={fleet.etcd.url}"])
        wait(lambda: metric(a, 'flanneld_errors_total{where="kernel"}') > 1)
        assert "are up" not in a.get("/readyz")
        assert not os.path.exists(a.node.path(SUBNET_FILE))


def test_etcd_with_tls_and_client_certificates() -> None:
    with Node() as node:
        commands = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt",
            "openssl req -newkey rsa:2048 -nodes -subj /CN=etcd -keyout tls.key -out tls.csr",
            'printf "subjectAltName=IP:127.0.0.1,IP:198.18.0.1" > names',
            "openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -set_serial 1 -extfile names > tls.crt",
        )
        node.run(["sh", "-ec", f"mkdir {TLS}; cd {TLS}; " + "; ".join(commands)])
        files = {name: _read(node, f"{TLS}/{name}") for name in ("ca.crt", "tls.crt", "tls.key")}
    names = {
        "trusted-ca-file": f"{TLS}/ca.crt",
        "cert-file": f"{TLS}/tls.crt",
        "key-file": f"{TLS}/tls.key",
    }
    options = ["--client-cert-auth", *(f"--{name}={path}" for name, path in names.items())]
    with Fleet(tls=files, options=options) as fleet:
        a = fleet.join(1, 11)
        write_files(a.node, files)
        shown = [
            f"--etcd-{name}={TLS}/{file}" for name, file in (("cafile", "ca.crt"), ("certfile", "tls.crt"))
        ]
        fleet.flags = [*shown, f"--etcd-keyfile={TLS}/tls.key"]
        fleet.start()
        assert list(fleet.etcd.leases()) == [subnet(a).replace("/", "-")]


def _read(node: Node, path: str) -> bytes:
    with open(node.path(path), "rb") as file:
        return file.read()


def test_a_wrong_configuration_is_named_and_ends_the_daemon(suite_bin: str) -> None:
    config = {**VXLAN, "Network": "10.244.0.0/29"}
    with Fleet(suite_bin, config) as fleet:
        a = fleet.join(1, 11)
        command = [*program(), f"--etcd-endpoints={fleet.etcd.url}"]
        done = a.node.run(command, {"PYTHONPATH": ROOT}, check=False)
    assert done.returncode == 1
    assert b"10.244.0.0/29 is too small" in done.stderr
