"""What a user of containerd expects of a pod's network, with our plugins and, for control, with Go's."""

from __future__ import annotations

import ipaddress
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from integration.runtime import images
from integration.runtime.containerd import Containerd
from integration.runtime.janitor import groups
from integration.runtime.observed import OUTSIDE, get_page, traces

if TYPE_CHECKING:
    from integration.node import Node
    from integration.runtime.pod import Pod

pytestmark = pytest.mark.runtime

PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
V4 = ipaddress.IPv4Network("10.66.0.0/24")
V6 = ipaddress.IPv6Network("fd00:66::/64")


def network(*subnets: object) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": str(subnet)}] for subnet in subnets]}
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": ipam,
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, PORTMAP]}


def settle(runtime: Containerd) -> None:
    """Make and remove a pod, so that what pods share is there: the bridge, the rules' base chains."""
    runtime.run_pod("first", {8000: images.PORT}).remove()


def remove(pods: list[Pod]) -> None:
    for pod in pods:
        pod.stop()
        pod.remove()


def expect_refused(node: Node, host: str, port: int, netns: str = "") -> None:
    with pytest.raises(OSError, match=r"refused|timed out"):
        get_page(node, host, port, netns)


def test_pods_reach_each_other_and_leave_nothing(machine: Node) -> None:
    with Containerd(machine, network(V4)) as runtime:
        settle(runtime)
        before = traces(machine)

        pods = [runtime.run_pod("one", {8001: images.PORT}), runtime.run_pod("two")]
        one, two = (pod.addresses() for pod in pods)
        assert len(one) == len(two) == 1
        assert one != two
        assert all(ipaddress.ip_address(address) in V4 for address in one + two)
        for pod in pods:
            pod.serve()
        pods[0].ping(two[0])
        pods[1].ping(one[0])
        pods[0].ping(OUTSIDE.addresses[0].split("/")[0])  # which answers only to an address it knows

        node_address = OUTSIDE.node_addresses[0].split("/")[0]
        assert get_page(machine, node_address, 8001, OUTSIDE.netns) == "one"
        assert get_page(machine, node_address, 8001) == "one"
        assert get_page(machine, "127.0.0.1", 8001) == "one"
        for pod in pods:  # the pod's own host port first, which takes a hairpin
            assert pod.get_page(node_address, 8001) == "one"

        pods[0].stop()
        assert one[0] not in machine.ruleset()
        expect_refused(machine, node_address, 8001, OUTSIDE.netns)
        pods[0].stop()
        remove(pods)
        assert traces(machine) == before
        assert runtime.pods() == []
    assert groups(runtime.group) == []


def test_two_families(machine: Node) -> None:
    with Containerd(machine, network(V4, V6)) as runtime:
        settle(runtime)
        before = traces(machine)
        pods = [runtime.run_pod("one", {8001: images.PORT}), runtime.run_pod("two")]
        for pod in pods:
            pod.serve()
        for pod, other in (pods, pods[::-1]):
            v4, v6 = (ipaddress.ip_address(address) for address in other.addresses())
            assert v4 in V4
            assert v6 in V6
            pod.ping(str(v4))
            pod.ping(str(v6))
        for address in OUTSIDE.node_addresses:
            assert get_page(machine, address.split("/")[0], 8001, OUTSIDE.netns) == "one"
        remove(pods)
        assert traces(machine) == before


def test_ten_pods_at_once(machine: Node) -> None:
    with Containerd(machine, network(V4)) as runtime, ThreadPoolExecutor(10) as pool:
        settle(runtime)
        before = traces(machine)
        ports = range(8001, 8011)
        pods = list(pool.map(lambda port: runtime.run_pod(f"pod{port}", {port: images.PORT}), ports))
        addresses = {pod.addresses()[0] for pod in pods}
        assert len(addresses) == len(pods)
        ruleset = machine.ruleset()
        assert all(f"{address}:{images.PORT}" in ruleset for address in addresses)
        list(pool.map(lambda pod: pod.remove(), pods))
        assert traces(machine) == before


def test_a_failed_add_is_explained_and_leaves_nothing(machine: Node) -> None:
    with Containerd(machine, network("10.66.0.0/30")) as runtime:
        settle(runtime)
        pod = runtime.run_pod("one", {8001: images.PORT})
        before = traces(machine)
        with pytest.raises(grpc.RpcError) as caught:
            runtime.run_pod("two", {8002: images.PORT})
        said = caught.value.details()
        assert "no IP addresses available in range set: 10.66.0.1-10.66.0.2" in said
        assert traces(machine) == before
        assert runtime.pods() == [pod.id]
        pod.remove()
        runtime.run_pod("two", {8002: images.PORT}).remove()


def test_flannel(our_machine: Node) -> None:
    # The list that flannel's own deployment installs, and the file that its daemon writes.
    plugins = [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        PORTMAP,
    ]
    conf = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": plugins}
    with Containerd(our_machine, conf) as runtime:
        with pytest.raises(grpc.RpcError) as caught:
            runtime.run_pod("early")
        assert "/run/flannel/subnet.env" in caught.value.details()
        with our_machine.entered():
            os.mkdir("/run/flannel")
            with open("/run/flannel/subnet.env", "w", encoding="ascii") as file:
                file.write(
                    "FLANNEL_NETWORK=10.66.0.0/16\nFLANNEL_SUBNET=10.66.3.1/24\n"
                    "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
                )
        settle(runtime)
        before = traces(our_machine)
        pods = [runtime.run_pod("one", {8001: images.PORT}), runtime.run_pod("two")]
        for pod in pods:
            assert ipaddress.ip_address(pod.addresses()[0]) in ipaddress.ip_network("10.66.3.0/24")
            pod.serve()
            assert pod.run("/bin/busybox", "cat", "/sys/class/net/eth0/mtu").strip() == "1450"
            assert pod.run("/bin/busybox", "ip", "route").startswith("default via 10.66.3.1 dev eth0")
        pods[0].ping(pods[1].addresses()[0])
        for host, netns in (("192.0.2.1", OUTSIDE.netns), ("127.0.0.1", "")):
            assert get_page(our_machine, host, 8001, netns) == "one"
        remove(pods)
        assert traces(our_machine) == before
