"""Machines that are nodes of a real cluster, whose control plane is on the router."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from integration.fleet import Member
from integration.kube.flags import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from integration.kube.cluster import Cluster
    from integration.underlay import Underlay

APISERVER = "198.18.0.1"
NET_CONF = "/etc/kube-flannel/net-conf.json"
FLAGS = ("--kube-subnet-mgr", "--ip-masq", f"--kubeconfig-file={FOLDER}/daemon.conf")


class KubeFleet:
    """Nodes that join one by one.

    Args:
        underlay: what connects them; its router has the address APISERVER.
        cluster: the control plane there.
        config: net-conf.json.
    """

    def __init__(self, underlay: Underlay, cluster: Cluster, config: Mapping[str, Any]) -> None:
        self.underlay = underlay
        self.cluster = cluster
        self._config = config

    def join(self, subnet: int, number: int, pod_cidrs: Sequence[str] = ()) -> Member:
        """Switch a machine on, register it as a kubelet would, and start its daemon."""
        member = Member(self.underlay.join(subnet, number), subnet, number)
        self.cluster.add_node(member.name, pod_cidrs)
        self._launch(member)
        member.wait_until_ready()
        return member

    @contextmanager
    def gathered(
        self, config: Mapping[str, Any], places: Sequence[tuple[int, int]]
    ) -> Iterator[list[Member]]:
        """Machines with daemons under a configuration of their own, which are forgotten after the block."""
        self._config = config
        names = [f"node-{number}" for _subnet, number in places]
        try:
            members = [Member(self.underlay.join(*place), *place) for place in places]
            self.cluster.add_nodes(dict.fromkeys(names, ()))
            for member in members:
                self._launch(member)
            for member in members:
                member.wait_until_ready()
            yield members
        finally:
            self.cluster.remove_node(*names)
            for place in places:
                if place in self.underlay.machines:
                    self.underlay.leave(*place)

    def _launch(self, member: Member) -> None:
        files = {NET_CONF: json.dumps(self._config), f"{FOLDER}/daemon.conf": self.cluster.kubeconfig()}
        with open(self.cluster.node.path(f"{FOLDER}/tls.crt"), encoding="ascii") as file:
            files[f"{FOLDER}/tls.crt"] = file.read()
        with member.node.entered():
            for path, content in files.items():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="ascii") as file:
                    file.write(content)
        member.launch(FLAGS, {"NODE_NAME": member.name})
