"""Every backend in every family, with the Kubernetes subnet manager: annotations, and pods that all talk.

Those whose module this kernel lacks run on Debian's, in a VM: `make test-kube-vm`.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from integration import backends
from integration.kube.cluster import Cluster, flannels
from integration.kube.fleet import APISERVER, KubeFleet
from integration.underlay import Underlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.backends import Case
    from integration.fleet import Member


@pytest.fixture(scope="module")
def fleet(suite_bin: str) -> Iterator[KubeFleet]:
    """A control plane that gives nodes podCIDRs of both families, whatever the backend makes of them."""
    with Underlay(suite_bin) as underlay:
        underlay.router.run(["ip", "address", "add", f"{APISERVER}/32", "dev", "lo"])
        with Cluster(underlay.router, os.environ["KUBE_BIN"], APISERVER, dual=True, small=True) as cluster:
            yield KubeFleet(underlay, cluster, {})


def wanted(case: Case, member: Member) -> dict[str, str]:
    """Return what a node is to be annotated with, without the prefix, and nothing more."""
    found = {"backend-type": case.type_published(), "kube-subnet-manager": "true"}
    for family, data, public in ((4, "backend-data", "public-ip"), (6, "backend-v6-data", "public-ipv6")):
        if family in case.families:
            found |= {data: backends.compact(case.data(member, family)), public: member.at(family)}
    return found


def available(node: Any) -> bool:
    """Tell whether a node is said to have its network."""
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
    return conditions.get("NetworkUnavailable") == "False"


@pytest.mark.parametrize("case", backends.parameters())
def test_pods_of_all_nodes_talk(fleet: KubeFleet, case: Case) -> None:
    with fleet.gathered(case.config, case.places) as members:
        nodes = fleet.cluster.nodes_when(lambda nodes: all(available(nodes[one.name]) for one in members))
        for member in members:
            node = nodes[member.name]
            assert flannels(node) == wanted(case, member)
            given: dict[int, str] = {ip_network(text).version: text for text in node["spec"]["podCIDRs"]}
            assert member.subnet_env() == case.subnet_env(given)
        backends.talk(case, members)
        if case.type == "wireguard":
            backends.whisper(case, fleet.underlay.router, *members)
