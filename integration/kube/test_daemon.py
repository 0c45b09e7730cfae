"""The daemon with the Kubernetes subnet manager: podCIDRs given, annotations written, pods that talk."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.fleet import wait
from integration.kube.cluster import IPV6_NETWORK, NETWORK, Cluster
from integration.kube.fleet import APISERVER, FLAGS, KubeFleet
from integration.pings import Pings
from integration.underlay import Underlay

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = {
    "Network": NETWORK,
    "EnableIPv6": True,
    "IPv6Network": IPV6_NETWORK,
    "Backend": {"Type": "vxlan"},
}


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[KubeFleet]:
    with Underlay(suite_bin) as underlay:
        underlay.router.run(["ip", "address", "add", f"{APISERVER}/32", "dev", "lo"])
        with Cluster(underlay.router, os.environ["KUBE_BIN"], APISERVER, dual=True) as cluster:
            yield KubeFleet(underlay, cluster, CONFIG)


def test_two_nodes_are_annotated_and_their_pods_talk(fleet: KubeFleet) -> None:
    one, other = fleet.join(1, 11), fleet.join(2, 21)
    node = fleet.cluster.get_node("node-11")
    subnet, ipv6_subnet = node["spec"]["podCIDRs"]
    device, v6_device = (one.node.links()[name] for name in ("flannel.1", "flannel-v6.1"))
    assert fleet.cluster.annotations("node-11") == {
        "backend-type": "vxlan",
        "backend-data": f'{{"VNI":1,"VtepMAC":"{device["address"]}"}}',
        "backend-v6-data": f'{{"VNI":1,"VtepMAC":"{v6_device["address"]}"}}',
        "public-ip": "198.18.1.11",
        "public-ipv6": "2001:db8:1::11",
        "kube-subnet-manager": "true",
    }
    assert one.subnet_env() == {
        "FLANNEL_NETWORK": NETWORK,
        "FLANNEL_SUBNET": subnet.replace(".0/", ".1/"),
        "FLANNEL_IPV6_NETWORK": IPV6_NETWORK,
        "FLANNEL_IPV6_SUBNET": ipv6_subnet.replace("::/", "::1/"),
        "FLANNEL_MTU": "1450",
        "FLANNEL_IPMASQ": "true",
    }
    conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
    assert conditions["NetworkUnavailable"] == "False"
    one.add_pod("a")
    other.add_pod("b")
    address = other.node.links("b")["eth0"]["addr_info"]
    (ipv6,) = [item["local"] for item in address if item["family"] == "inet6" and item["scope"] == "global"]
    wait(
        lambda: (
            "flanneld_leases 1\n" in one.get("/metrics") and "flanneld_leases 1\n" in other.get("/metrics")
        )
    )
    for target in (other.pods["b"], ipv6):
        ping = ["ping", "-c", "2", "-i", "0.2", "-W", "20", target]
        assert one.node.run(ping, netns="a", check=False).returncode == 0, target


def test_the_mac_survives_a_reboot_by_the_annotation(fleet: KubeFleet) -> None:
    one = fleet.join(1, 12)
    before = fleet.cluster.annotations("node-12")
    one.stop()
    for device in ("flannel.1", "flannel-v6.1"):
        one.node.run(["ip", "link", "del", device])
    one.start(FLAGS, {"NODE_NAME": "node-12"})
    assert fleet.cluster.annotations("node-12") == before
    assert one.node.links()["flannel.1"]["address"] == json.loads(before["backend-data"])["VtepMAC"]


def test_another_address_is_published_at_once_and_changes_still_arrive(fleet: KubeFleet) -> None:
    one = fleet.join(1, 14)
    commands = (
        "ip address del 198.18.1.14/24 dev uplink",
        "ip address add 198.18.1.15/24 dev uplink",
        "ip route add default via 198.18.1.1",
    )
    one.node.run(["sh", "-c", "; ".join(commands)])
    wait(lambda: fleet.cluster.annotations("node-14")["public-ip"] == "198.18.1.15")
    other = fleet.join(2, 24)
    subnet = other.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")
    wait(lambda: any(route["dst"] == subnet for route in one.ip("route")))


def test_a_node_that_is_deleted_loses_its_way(fleet: KubeFleet) -> None:
    one, gone = fleet.join(1, 13), fleet.join(2, 23)
    subnet = gone.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")
    wait(lambda: any(route["dst"] == subnet for route in one.ip("route")))
    gone.stop()
    fleet.cluster.remove_node("node-23")
    wait(lambda: not any(route["dst"] == subnet for route in one.ip("route")))


def test_without_the_apiserver_traffic_goes_on(fleet: KubeFleet, record_property: Any) -> None:
    """Nothing is torn down, what breaks is put back, and what came meanwhile is learnt afterwards."""
    one, other = fleet.join(1, 51), fleet.join(2, 52)
    one.add_pod("a")
    other.add_pod("b")
    network = other.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/")

    def is_there() -> bool:
        return any(each["dst"] == network for each in one.ip("route"))

    wait(is_there)
    with Pings(one.node, other.pods["b"], "a") as sent:
        stopped = sent.back()
        fleet.cluster.stop_apiserver()
        wait(lambda: 'flanneld_errors_total{where="manager"}' in one.get("/metrics"))
        assert sent.lost_since(stopped) == 0
        broken = time.time()
        one.node.run(["ip", "route", "del", network])
        wait(is_there)
        record_property("without the apiserver", f"pings failed for {sent.failed_since(broken):.2f} s")
        assert not one.daemon_ended()
        fleet.cluster.start_apiserver()
    fleet.cluster.add_node("late", ["10.244.253.0/24", "fd00:244:0:fd::/64"])
    annotations = {
        "backend-type": "vxlan",
        "backend-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:53"}',
        "backend-v6-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:54"}',
        "public-ip": "198.18.2.53",
        "public-ipv6": "2001:db8:2::53",
        "kube-subnet-manager": "true",
    }
    words = [f"flannel.alpha.coreos.com/{name}={text}" for name, text in annotations.items()]
    fleet.cluster.kubectl("annotate", "node", "late", *words)
    wait(lambda: any(each["dst"] == "10.244.253.0/24" for each in one.ip("route")))
    fleet.cluster.remove_node("late")


def test_nodes_of_another_backend_are_passed_by(fleet: KubeFleet) -> None:
    """Their pods are not to be sent packets that they do not await."""
    config = {"Network": NETWORK, "Backend": {"Type": "host-gw"}}
    one, near = fleet.join(1, 31), KubeFleet(fleet.underlay, fleet.cluster, config).join(1, 32)
    alike = fleet.join(2, 33)
    wanted, foreign = (each.subnet_env()["FLANNEL_SUBNET"].replace(".1/", ".0/") for each in (alike, near))
    wait(lambda: any(each["dst"] == wanted for each in one.ip("route")))
    assert not any(each["dst"] == foreign for each in one.ip("route"))
