"""A containerd of the test's own, inside a node, and the calls of CRI that kubelet would make.

How containerd calls plugins, as seen with Debian's 1.6.20 (the tests here rest on it):

- It makes the pod's namespace first, pinned at /run/netns/cni-UUID; CNI_NETNS names it by way of /var/run.
- `loopback` for `lo` and the network list for `eth0` are added **at the same time**, in one namespace. The
  configuration of `loopback` is containerd's own, with cniVersion 0.3.1; DEL calls it first, then the list.
- CNI_CONTAINERID is the sandbox's id, 64 hexadecimal digits. CNI_ARGS has `IgnoreUnknown=1` and four names
  that begin with `K8S_POD_`, in any order. CNI_PATH is `bin_dir`.
- runtimeConfig has `portMappings` when a pod has host ports and the plugin declares the capability. Its keys
  are **HostPort, ContainerPort, Protocol, HostIP** (an empty string if none): Go matches names of keys in
  whatever case, and a plugin must do the same.
- It refuses results of 1.1.0, so lists say 1.0.0 at most.
- StopPodSandbox ends the pause process, calls DEL with the prevResult of its cache, then unmounts the
  namespace. RemovePodSandbox stops once more, so **DEL comes twice**, the second time with CNI_NETNS empty
  and no prevResult, and both must succeed.
- When an ADD fails, DEL follows at once for the whole list, also for plugins that were never added, without
  prevResult. The error's `msg` goes to the caller of RunPodSandbox; `details` do too, after "; ".
  No sandbox is left.
- CHECK, STATUS, GC and VERSION are not called.

Everything is below one control group and inside one node, and goes with them: see janitor.py and holder.py.
Images and snapshots are in the node's /run, a tmpfs; so are containerd's sockets, whose place under
/run/containerd is fixed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc
from cri_api.v1 import api_pb2, api_pb2_grpc

from integration.closing import Closing
from integration.runtime import images, janitor
from integration.runtime.pod import CALL_TIMEOUT, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from integration.node import Node

FOLDER = "/run/test-containerd"
SOCKET = "/run/containerd/containerd.sock"
CONFIG = """
version = 2
root = "{folder}/root"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{lists}"
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTER_GROUP = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
START_TIMEOUT = 120.0
LOG_LINES = 40
"""How much of containerd's log is printed when it ends, for the report of a failed test."""


class Containerd(Closing):
    """containerd in a node, with one network; a context manager.

    Args:
        node: where it runs; its `plugins` are the `bin_dir`.
        network: the network list; None: it comes later, to /etc/cni/net.d, and its plugins to /opt/cni/bin.
        archives: images to load, besides the tests' own.

    Attributes:
        group: the control group that all of its processes are in or below.
    """

    def __init__(self, node: Node, network: Mapping[str, Any] | None, archives: Sequence[str] = ()) -> None:
        self.node = node
        self._network = network
        self._archives = archives
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Any = None
        self.group = f"/cni-test-{uuid.uuid4().hex[:12]}"
        self._janitor = subprocess.Popen(
            [sys.executable, "-IS", janitor.__file__, self.group],
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is not meant for it
        )
        try:
            self._write_files()
            self._start()
        except BaseException:
            self.close()
            raise

    def _write_files(self) -> None:
        folders = {"plugins": self.node.plugins, "lists": f"{FOLDER}/net.d"}
        if self._network is None:
            folders = {"plugins": "/opt/cni/bin", "lists": "/etc/cni/net.d"}
        with self.node.entered():
            os.makedirs(f"{FOLDER}/net.d")
            if self._network is not None:
                with open(f"{FOLDER}/net.d/10-test.conflist", "w", encoding="utf-8") as file:
                    json.dump(self._network, file)
            with open(f"{FOLDER}/config.toml", "w", encoding="utf-8") as file:
                file.write(CONFIG.format(folder=FOLDER, socket=SOCKET, image=images.NAME, **folders))
            images.write_archive(f"{FOLDER}/image.tar")

    def _start(self) -> None:
        command = self.node.argv(["containerd", "--config", f"{FOLDER}/config.toml"])
        with open(self.node.path(f"{FOLDER}/log"), "wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", ENTER_GROUP, "sh", self._daemon_group(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": PATH},
                start_new_session=True,
            )
        self._wait_for("its socket", lambda: os.path.exists(self.node.path(SOCKET)))
        self._channel = grpc.insecure_channel(f"unix:{self.node.path(SOCKET)}")
        grpc.channel_ready_future(self._channel).result(START_TIMEOUT)
        self.runtime = _stub(api_pb2_grpc.RuntimeServiceStub, self._channel)
        for archive in (f"{FOLDER}/image.tar", *self._archives):
            self.node.run(["ctr", "--namespace", "k8s.io", "images", "import", archive])
        service = _stub(api_pb2_grpc.ImageServiceStub, self._channel)
        wanted = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=images.NAME))
        self._wait_for("the image", lambda: service.ImageStatus(wanted, timeout=CALL_TIMEOUT).image.id)
        if self._network is not None:
            self._wait_for("the network", self.network_ready)

    def _daemon_group(self) -> str:
        """Make the control group of containerd itself and its shims; return its folder."""
        # One hierarchy is enough to find the processes again: that of version 2 where there is one, else any
        # that a process can enter without more settings. The pods' groups are beside this one, not below: in
        # version 2, a group that hands controllers down has no processes of its own.
        with_members = [top for top in janitor.hierarchies() if "cpuset" not in top]
        folder = f"{with_members[-1]}{self.group}/daemon"
        os.makedirs(folder)
        return folder

    def _wait_for(self, what: str, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if self._process and self._process.poll() is not None:
                raise AssertionError(f"containerd has ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise AssertionError(f"containerd is not ready: {what} is missing")
            time.sleep(0.01)

    def close(self) -> None:
        """End containerd and every process it started, remove the control groups, and print the log's end."""
        if self._channel:
            self._channel.close()
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        status = self._janitor.wait()
        if self._process:
            self._process.wait()
            with open(self.node.path(f"{FOLDER}/log"), encoding="utf-8", errors="replace") as log:
                sys.stderr.writelines(log.readlines()[-LOG_LINES:])
        assert status == 0, "a process or a control group is left, see above"

    def run_pod(self, name: str, host_ports: Mapping[int, int] | None = None) -> Pod:
        """Make a pod, as RunPodSandbox does.

        Args:
            name: its name.
            host_ports: ports of the pod by ports of the node, both TCP.

        Raises:
            grpc.RpcError: it could not be made; `details()` says why.
        """
        config = api_pb2.PodSandboxConfig(
            metadata=api_pb2.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
            hostname=name,
            port_mappings=[
                api_pb2.PortMapping(protocol=api_pb2.TCP, host_port=outer, container_port=inner)
                for outer, inner in (host_ports or {}).items()
            ],
            linux=api_pb2.LinuxPodSandboxConfig(cgroup_parent=f"{self.group}/pods"),
        )
        request = api_pb2.RunPodSandboxRequest(config=config)
        answer = self.runtime.RunPodSandbox(request, timeout=CALL_TIMEOUT)
        return Pod(self.runtime, config, answer.pod_sandbox_id)

    def network_ready(self) -> bool:
        """Tell whether containerd has a network for pods."""
        status = self.runtime.Status(api_pb2.StatusRequest(), timeout=CALL_TIMEOUT).status
        return any(condition.type == "NetworkReady" and condition.status for condition in status.conditions)

    def pods(self) -> list[str]:
        """Return the ids of the sandboxes that containerd knows, running or not."""
        answer = self.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=CALL_TIMEOUT)
        return [pod.id for pod in answer.items]


def _stub(kind: Any, channel: Any) -> Any:
    """Make a stub; the generated classes have no annotations."""
    return kind(channel)
