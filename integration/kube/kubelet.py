"""A node of a real cluster: containerd and a kubelet, in a machine of an underlay."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, Self

from integration import namespaces
from integration.kube.cluster import ADMIN, Cluster
from integration.kube.flags import FOLDER
from integration.runtime import janitor
from integration.runtime.containerd import PATH, SOCKET, Containerd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from integration.node import Node

ROOT = "/run/kubelet"
"""Everything of the kubelet's: a tmpfs, about which it can learn what it wants to know."""
TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""What a kubelet demands of the kernel: it sees files that say so, and the machine's own settings stay."""


class Kubelet:
    """A kubelet and the containerd it uses; a context manager.

    Args:
        node: the machine.
        name: what the node is called in the cluster.
        address: the machine's.
        cluster: where to register.
        programs: the folder that integration.kube.build filled.
        archives: images to load into containerd.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        address: str,
        cluster: Cluster,
        programs: str,
        archives: Sequence[str],
    ) -> None:
        self.node = node
        self.name = name
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            node.run(["sysctl", "-qw", f"{key}=1"])
        self._prepare(cluster)
        self.containerd = Containerd(node, None, archives)
        try:
            for top in janitor.hierarchies():
                os.makedirs(f"{top}{self.containerd.group}/pods", exist_ok=True)
            self._write_config()
            self._start(programs, address)
        except BaseException:
            self.containerd.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self.containerd.close()

    def _prepare(self, cluster: Cluster) -> None:
        with open(cluster.node.path(f"{FOLDER}/tls.crt"), "rb") as file:
            certificate = file.read()
        with self.node.entered():
            for folder in (ROOT, FOLDER, "/etc/cni/net.d", "/opt/cni/bin"):
                os.makedirs(folder, exist_ok=True)
            # This machine may have lists of its own, of podman's say.
            namespaces.mount("none", "/etc/cni/net.d", "tmpfs")
            for number, (key, value) in enumerate(TUNABLES.items()):
                path = f"{ROOT}/tunable-{number}"
                with open(path, "w", encoding="ascii") as file:
                    file.write(f"{value}\n")
                namespaces.mount(path, f"/proc/sys/{key}", flags=namespaces.MS_BIND)
            with open(f"{FOLDER}/tls.crt", "wb") as file:
                file.write(certificate)
            with open(f"{ROOT}/kubeconfig", "w", encoding="ascii") as file:
                file.write(cluster.kubeconfig(ADMIN))

    def _write_config(self) -> None:
        config: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"{self.containerd.group}/pods",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "1Mi"},
            "failSwapOn": False,
            "featureGates": {"LocalStorageCapacityIsolation": False},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "1s",
            "protectKernelDefaults": True,
            "resolvConf": "",
        }
        with open(self.node.path(f"{ROOT}/config"), "w", encoding="ascii") as file:
            json.dump(config, file)

    def _start(self, programs: str, address: str) -> None:
        with open(self.node.path(f"{ROOT}/log"), "wb") as log:
            self._process = self.node.popen(
                [
                    *(f"{programs}/kubelet", f"--config={ROOT}/config", f"--kubeconfig={ROOT}/kubeconfig"),
                    *(f"--root-dir={ROOT}/root", f"--cert-dir={ROOT}/certificates"),
                    *("--container-runtime=remote", f"--container-runtime-endpoint=unix://{SOCKET}"),
                    *(f"--hostname-override={self.name}", f"--node-ip={address}"),
                ],
                env={"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
