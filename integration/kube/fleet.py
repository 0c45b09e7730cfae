"""Machines that are nodes of a real cluster, whose control plane is on the router."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from integration.fleet import Member
from integration.kube.cluster import FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        name = f"node-{number}"
        member = Member(self.underlay.join(subnet, number), subnet, number)
        self.cluster.add_node(name, pod_cidrs)
        files = {NET_CONF: json.dumps(self._config), f"{FOLDER}/daemon.conf": self.cluster.kubeconfig()}
        with open(self.cluster.node.path(f"{FOLDER}/tls.crt"), encoding="ascii") as file:
            files[f"{FOLDER}/tls.crt"] = file.read()
        with member.node.entered():
            for path, content in files.items():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="ascii") as file:
                    file.write(content)
        member.start(FLAGS, {"NODE_NAME": name})
        return member
