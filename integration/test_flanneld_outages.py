"""What happens to machines and to etcd: traffic goes on, or comes back, and nothing is torn down."""

from __future__ import annotations

import json
import resource
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.checks import ping
from integration.etcd import CONFIG, FOLDER, SUBNETS, Etcd
from integration.flannel import SUBNET_FILE
from integration.fleet import HEALTH, VXLAN, Fleet, Member, wait
from integration.monitor import Monitor
from integration.pings import Pings

if TYPE_CHECKING:
    from collections.abc import Iterator

SOME = 20
"""Pings of a second, some of which may be lost where a daemon starts and writes its device again."""
ROUTE = "ip route replace default via 198.18.1.1"


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[Fleet]:
    """A machine with a neighbour in its subnet and one behind the router, a pod on each."""
    with Fleet(suite_bin) as made:
        made.populate((1, 11), (1, 12), (2, 21))
        for member in made.members.values():
            wait(lambda member=member: "flanneld_leases 2\n" in member.get("/metrics"))  # type: ignore[misc]
        yield made


def subnet(member: Member) -> str:
    return member.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")


def failures(member: Member, where: str) -> int:
    label = f'flanneld_errors_total{{where="{where}"}} '
    found = [line for line in member.get("/metrics").splitlines() if line.startswith(label)]
    return int(found[0].removeprefix(label)) if found else 0


RENAMED = "ip link set uplink down; ip link set uplink name other; ip link set other up"
BACK = "ip link set other down; ip link set other name uplink; ip link set uplink up"
MOVED = "ip address del 198.18.1.11/24 dev uplink; ip address add 198.18.1.13/24 dev uplink"
FLAPS = "for n in 1 2 3 4 5; do ip link set uplink down; ip link set uplink up; sleep 0.1; done"
EVENTS = {
    "renamed": (f"{RENAMED}; {ROUTE}", "dev other"),
    "renamed back": (f"{BACK}; {ROUTE}", "dev uplink"),
    "flaps": (f"{FLAPS}; {ROUTE}", ""),
    "mtu": ("ip link set uplink mtu 1400", "mtu 1350"),
    "mtu back": ("ip link set uplink mtu 1500", "mtu 1450"),
    "address": (f"{MOVED}; {ROUTE}", "local 198.18.1.13"),
}


def test_the_uplink_changes(fleet: Fleet, record_property: Any) -> None:
    one, near, far = (fleet.members[f"node-{number}"] for number in (11, 12, 21))
    with (
        Pings(one.node, near.pods["node-12"], "node-11") as direct,
        Pings(one.node, far.pods["node-21"], "node-11") as tunnelled,
    ):
        for name, (command, sign) in EVENTS.items():
            began = time.time()
            one.node.run(["sh", "-c", command])
            failed = [f"{path.failed_since(began):.2f} s" for path in (direct, tunnelled)]
            record_property(name, f"pings failed for {failed[0]} directly, {failed[1]} by VXLAN")
            wait(lambda sign=sign: sign in state(one))  # type: ignore[misc]
    value = json.loads(fleet.etcd.leases()[subnet(one).replace("/", "-")])
    assert value["PublicIP"] == "198.18.1.13"


def state(member: Member) -> str:
    return member.node.run(["sh", "-c", "ip -d link show flannel.1; ip route"]).stdout.decode()


def test_etcd_is_gone(fleet: Fleet, record_property: Any) -> None:
    """It hangs, then dies, and comes back on its data: what it learnt meanwhile arrives."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    before, errors = state(one), failures(one, "manager")
    newcomer = SUBNETS + "10.244.254.0-24"
    data = {"VNI": 1, "VtepMAC": "02:00:00:00:00:63"}
    late = json.dumps({"PublicIP": "198.18.2.99", "BackendType": "vxlan", "BackendData": data})
    with Pings(one.node, far.pods["node-21"], "node-12") as pings:
        fleet.etcd.pause()
        one.node.run(["ip", "route", "del", subnet(far)])  # repairs need no etcd
        wait(lambda: state(one) == before)
        began = pings.back()
        fleet.etcd.stop()
        wait(lambda: failures(one, "manager") > errors + 1)
        assert state(one) == before
        assert not one.daemon_ended()
        fleet.etcd.start()
        fleet.etcd.put(newcomer, late)
        took = wait(lambda: "10.244.254.0/24 via" in state(one))
        assert pings.lost_since(began) == 0
    fleet.etcd.ctl("del", newcomer)
    wait(lambda: state(one) == before)
    record_property("etcd", f"changes arrive {took:.1f} s after it is back")


def test_etcd_is_gone_while_a_daemon_starts(fleet: Fleet, record_property: Any) -> None:
    """Its pods keep their ways, and it is ready as soon as etcd answers."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    before = state(one)
    fleet.etcd.stop()
    assert one.stop() == 0
    with Pings(one.node, far.pods["node-21"], "node-12") as pings:
        began = time.time()
        one.launch([f"--etcd-endpoints={fleet.etcd.url}", *fleet.flags])
        wait(lambda: failures(one, "start") > 1)
        assert "are up" not in one.get("/readyz")
        fleet.etcd.start()
        took = wait(lambda: "are up" in one.get("/readyz"))
        assert pings.lost_since(began) == 0
    assert state(one) == before
    record_property("start", f"ready {took:.1f} s after etcd")


def test_an_uplink_made_anew(fleet: Fleet) -> None:
    """Its driver is loaded again: the name leads to another interface, which is followed like the old one."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    before = one.ip("link", "show", "uplink")[0]["ifindex"]
    fleet.underlay.unplug(1, 12)
    wait(lambda: not one.ip("link", "show", "type", "vxlan"))
    time.sleep(1)  # whoever looks now finds no uplink
    fleet.underlay.plug(1, 12)
    assert one.ip("link", "show", "uplink")[0]["ifindex"] != before
    wait(lambda: ping(one.node, "node-12", far.pods["node-21"]))
    one.node.run(["ip", "link", "set", "uplink", "mtu", "1400"])
    wait(lambda: "mtu 1350" in state(one))


def test_the_uplink_changes_while_etcd_is_gone(fleet: Fleet) -> None:
    """What is ours follows at once, again and again; the others hear of it when etcd is back."""
    far = fleet.members["node-21"]
    lease = subnet(far).replace("/", "-")
    try:
        fleet.etcd.stop()
        far.node.run(["ip", "link", "set", "uplink", "mtu", "1400"])
        for words in ("address flush", "address add 198.18.2.23/24", "route add default via 198.18.2.1"):
            far.node.run(["ip", *words.split(), "dev", "uplink"])
        wait(lambda: "local 198.18.2.23" in state(far) and "mtu 1350" in state(far))
        wait(lambda: far.subnet_env()["FLANNEL_MTU"] == "1350")
        wait(lambda: failures(far, "publish") > 1)
        far.node.run(["ip", "link", "set", "uplink", "mtu", "1300"])
        wait(lambda: far.subnet_env()["FLANNEL_MTU"] == "1250")
        assert "mtu 1250" in state(far)
    finally:
        fleet.etcd.start()
    wait(lambda: json.loads(fleet.etcd.leases()[lease])["PublicIP"] == "198.18.2.23")
    near = fleet.members["node-11"]
    wait(lambda: ping(near.node, "node-11", far.pods["node-21"]))


def end_leases(fleet: Fleet, *, only: str = "", taken_by: str = "") -> None:
    """While etcd is out of reach for all, let leases run out, and another node take what one of them had."""
    fleet.etcd.stop()
    with Etcd(fleet.underlay.router) as unreachable:  # on the same data
        for name in unreachable.leases():
            if name == only or not only:
                unreachable.ctl("lease", "revoke", f"{unreachable.ttl(name)['id']:x}")
        if taken_by:
            unreachable.put(SUBNETS + only, json.dumps({"PublicIP": taken_by, "BackendType": "vxlan"}))


def test_every_lease_runs_out_while_etcd_is_gone(fleet: Fleet, record_property: Any) -> None:
    """Nobody's paths go, not for a moment, and each node leases its subnet again."""
    near, one, far = (fleet.members[f"node-{number}"] for number in (11, 12, 21))
    subnets = {subnet(member).replace("/", "-") for member in (near, one, far)}
    wait(lambda: set(fleet.etcd.leases()) == subnets)
    with Pings(one.node, far.pods["node-21"], "node-12") as pings, Monitor(one.node) as routes:
        began = time.time()
        end_leases(fleet)
        fleet.etcd.start()
        took = wait(lambda: set(fleet.etcd.leases()) == subnets)
        wait(lambda: all("flanneld_leases 2\n" in member.get("/metrics") for member in (near, one, far)))
        assert pings.lost_since(began) == 0
        assert routes.gone("10.244.") == []
    record_property("leases", f"leased again {took:.1f} s after etcd is back")
    assert not any(member.daemon_ended() for member in (near, one, far))


def test_etcd_loses_everything(fleet: Fleet) -> None:
    """It is made anew, as nobody had a backup: the nodes' subnets and paths are what they were."""
    near, one, far = (fleet.members[f"node-{number}"] for number in (11, 12, 21))
    subnets = {subnet(member).replace("/", "-") for member in (near, one, far)}
    with Monitor(one.node) as routes:
        fleet.etcd.stop()
        shutil.rmtree(fleet.underlay.router.path(f"{FOLDER}/data"))
        fleet.etcd.start()
        fleet.etcd.put(CONFIG, json.dumps(VXLAN))
        wait(lambda: set(fleet.etcd.leases()) == subnets)
        wait(lambda: "flanneld_leases 2\n" in one.get("/metrics"))
        assert routes.gone("10.244.") == []
    assert ping(one.node, "node-12", far.pods["node-21"])


def test_a_lease_runs_out_while_its_daemon_is_down(fleet: Fleet) -> None:
    """Its pods are reached all the time, and it has the same subnet afterwards."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    before = subnet(far)
    assert far.stop() == 0
    with Pings(one.node, far.pods["node-21"], "node-12") as pings, Monitor(one.node) as routes:
        began = time.time()
        end_leases(fleet, only=before.replace("/", "-"))
        fleet.etcd.start()
        wait(lambda: 'flanneld_errors_total{where="manager"}' in one.get("/metrics"))
        fleet.start(far)
        assert subnet(far) == before
        wait(lambda: before.replace("/", "-") in fleet.etcd.leases())
        assert pings.lost_since(began) < SOME
        assert routes.gone("10.244.") == []


def test_another_node_has_taken_the_subnet(fleet: Fleet) -> None:
    """The daemon says so and ends; started again, it leases another."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    before = subnet(far)
    with open(far.node.path(SUBNET_FILE), encoding="ascii") as file:
        content = file.read()
    end_leases(fleet, only=before.replace("/", "-"), taken_by="198.18.1.66")
    fleet.etcd.start()
    wait(far.daemon_ended)
    assert far.daemon is not None
    assert far.daemon.returncode == 1
    assert json.loads(fleet.etcd.leases()[before.replace("/", "-")])["PublicIP"] == "198.18.1.66"
    fleet.start(far)
    assert subnet(far) != before
    assert not one.daemon_ended()
    far.stop()  # for the other tests, whose pods have addresses of the old one
    for name in (before, subnet(far)):
        fleet.etcd.ctl("del", SUBNETS + name.replace("/", "-"))
    with open(far.node.path(SUBNET_FILE), "w", encoding="ascii") as file:
        file.write(content)
    fleet.start(far)
    assert subnet(far) == before
    wait(lambda: ping(one.node, "node-12", far.pods["node-21"]))


CONFLICT = "ip link del flannel.1; ip link add other type vxlan id 1 dstport 8472 local {} dev uplink"


def test_readiness_follows_the_paths(fleet: Fleet) -> None:
    """Another program takes our VNI: the kernel refuses the device, until that one goes."""
    one = fleet.members["node-12"]
    wait(lambda: "are up" in one.get("/readyz"))

    def taken() -> bool:
        one.node.run(["sh", "-c", CONFLICT.format(one.address)], check=False)
        return "other" in one.node.links()

    wait(taken)  # the daemon is quick to put its own back
    wait(lambda: "503" in status(one, "/readyz"))
    assert "flanneld_ready 0\n" in one.get("/metrics")
    assert "200" in status(one, "/healthz")
    one.node.run(["ip", "link", "del", "other"])
    wait(lambda: "200" in status(one, "/readyz"))
    fleet.etcd.stop()  # whoever tells of leases may be away: traffic goes on
    try:
        errors = failures(one, "manager")
        wait(lambda: failures(one, "manager") > errors)
        assert "200" in status(one, "/readyz")
    finally:
        fleet.etcd.start()


def test_leases_that_would_take_the_hosts_routes_away(fleet: Fleet) -> None:
    """One is the underlay's subnet, one half of all addresses; one has a MAC address that is a group's."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    before = state(one)
    value = {"PublicIP": "198.18.2.99", "BackendType": "vxlan"}
    group = {**value, "BackendData": {"VNI": 1, "VtepMAC": "01:00:5e:00:00:01"}}
    good = {**value, "PublicIP": "198.18.2.98", "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:63"}}
    bad = {"198.18.1.0-24": good, "0.0.0.0-1": good, "10.244.253.0-24": group, "10.0.0.0-8": good}
    for name, content in bad.items():
        fleet.etcd.put(SUBNETS + name, json.dumps(content))
    fleet.etcd.put(SUBNETS + "10.244.254.0-24", json.dumps(good))
    try:
        wait(lambda: "10.244.254.0/24 via" in state(one))
        assert len(state(one).splitlines()) == len(before.splitlines()) + 1
        assert "are up" in one.get("/readyz")
        assert ping(one.node, "node-12", far.pods["node-21"])
    finally:
        for name in (*bad, "10.244.254.0-24"):
            fleet.etcd.ctl("del", SUBNETS + name)
    wait(lambda: state(one) == before)


def test_no_file_can_be_opened(fleet: Fleet) -> None:
    """Not a socket to the kernel, no program can be started: the daemon goes on, and mends all afterwards."""
    one, far = fleet.members["node-12"], fleet.members["node-21"]
    wait(lambda: "are up" in one.get("/readyz"))
    before = state(one)
    newcomer = SUBNETS + "10.244.254.0-24"
    data = {"VNI": 1, "VtepMAC": "02:00:00:00:00:63"}
    late = json.dumps({"PublicIP": "198.18.2.99", "BackendType": "vxlan", "BackendData": data})
    assert one.daemon is not None
    usual = resource.prlimit(one.daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.daemon.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    try:
        fleet.etcd.put(newcomer, late)
        one.node.run(["ip", "route", "del", subnet(far)])
        one.node.run(["nft", "flush", "table", "ip", "flannel-ipv4"])
        one.node.run(["ip", "link", "set", "uplink", "mtu", "1400"])
        time.sleep(2)
        assert not one.daemon_ended()
        assert "10.244.254.0/24" not in state(one)
    finally:
        resource.prlimit(one.daemon.pid, resource.RLIMIT_NOFILE, usual)
    wait(lambda: "10.244.254.0/24 via" in state(one) and subnet(far) in state(one))
    wait(lambda: "mtu 1350" in state(one))
    wait(lambda: b"masquerade" in one.node.run(["nft", "list", "table", "ip", "flannel-ipv4"]).stdout)
    wait(lambda: "are up" in one.get("/readyz"))
    fleet.etcd.ctl("del", newcomer)
    one.node.run(["ip", "link", "set", "uplink", "mtu", "1500"])
    wait(lambda: state(one) == before)


def status(member: Member, path: str) -> str:
    """Return the first line of the health server's answer."""
    request = f"GET {path} HTTP/1.0\r\n\r\n".encode()
    return (
        member.node.run(["busybox", "nc", "127.0.0.1", str(HEALTH)], stdin=request)
        .stdout.decode()
        .partition("\r")[0]
    )
