"""The daemon with the Kubernetes subnet manager among 1,000 nodes, which are objects in a real apiserver."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from bench.scale import cpu_of, lease, memory_of, paths_of
from integration.fleet import wait
from integration.kube.cluster import Cluster
from integration.kube.fleet import APISERVER, KubeFleet
from integration.underlay import Underlay

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES, AT_ONCE = 1000, 200
PREFIX = "flannel.alpha.coreos.com/"


@pytest.fixture
def fleet(suite_bin: str) -> Iterator[KubeFleet]:
    with Underlay(suite_bin) as underlay:
        underlay.router.run(["ip", "address", "add", f"{APISERVER}/32", "dev", "lo"])
        with Cluster(underlay.router, os.environ["KUBE_BIN"], APISERVER) as cluster:
            # Nobody is to declare nodes dead that have no kubelet; they have their podCIDRs.
            cluster.stop("kube-controller-manager")
            yield KubeFleet(underlay, cluster, {"Network": "10.0.0.0/8", "Backend": {"Type": "vxlan"}})


def remote(number: int) -> dict[str, Any]:
    """Return a node as another machine's daemon has annotated it."""
    key, text = lease(number)
    value = json.loads(text)
    cidr = key.rpartition("/")[2].replace("-", "/")
    annotations = {
        "backend-type": "vxlan",
        "backend-data": json.dumps(value["BackendData"]),
        "public-ip": value["PublicIP"],
        "kube-subnet-manager": "true",
    }
    metadata = {
        "name": f"remote-{number}",
        "annotations": {PREFIX + name: text for name, text in annotations.items()},
    }
    spec = {"podCIDR": cidr, "podCIDRs": [cidr]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}


def test_a_thousand_nodes(fleet: KubeFleet, record_property: Any) -> None:
    for first in range(0, NODES, AT_ONCE):
        items = [remote(number) for number in range(first, first + AT_ONCE)]
        document = {"apiVersion": "v1", "kind": "List", "items": items}
        fleet.cluster.kubectl("create", "-f", "-", stdin=json.dumps(document).encode())
    member = fleet.join(1, 11, ["10.1.1.0/24"])
    wait(lambda: paths_of(member) == (NODES, NODES))
    time.sleep(2)
    before, began = cpu_of(member), time.monotonic()
    time.sleep(20)
    idle = (cpu_of(member) - before) / (time.monotonic() - began)
    before, began = cpu_of(member), time.monotonic()
    for number in range(20):
        fleet.cluster.kubectl("label", "node", f"remote-{number}", "some=label")
    rate = 20 / (time.monotonic() - began)
    busy = (cpu_of(member) - before) / (time.monotonic() - began)
    record_property("idle", f"{idle:.2%} of a core, {memory_of(member):.0f} MB")
    record_property("changed nodes", f"{busy:.2%} of a core at {rate:.1f} a second")
    assert memory_of(member) < 60
    fleet.cluster.remove_node("remote-7")
    wait(lambda: paths_of(member) == (NODES - 1, NODES - 1))
