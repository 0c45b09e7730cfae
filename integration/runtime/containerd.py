"""A containerd of the test's own, inside a node, and the calls of CRI that kubelet would make.

How containerd calls plugins, as seen with Debian's 1.6.20 (the tests here rest on it):

- It makes the pod's namespace first and pins it at /run/netns/cni-UUID; CNI_NETNS names it by /var/run.
- For each pod, `loopback` for `lo` and the network list for `eth0` run **at the same time**, so two plugins
  may be at work in one namespace.
- CNI_CONTAINERID is the sandbox's id, 64 hexadecimal digits; CNI_ARGS is `IgnoreUnknown=1` and the
  `K8S_POD_…` names. CNI_PATH is `bin_dir`.
- runtimeConfig has `portMappings` when a pod has host ports, if the plugin declares the capability.
- It refuses results of 1.1.0, so lists say 1.0.0 at most.
- StopPodSandbox calls DEL and then unmounts the namespace; RemovePodSandbox stops once more, so **DEL comes
  twice**, the second time with CNI_NETNS empty, and both must succeed.
- When an ADD fails, DEL follows at once for the whole list, also for the plugins that were never added; the
  error's `msg` is passed on to the caller of RunPodSandbox, and no sandbox is left.
- CHECK, STATUS and GC are not called, and VERSION is not either.

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
from typing import TYPE_CHECKING, Any, Self

import grpc
from cri_api.v1 import api_pb2, api_pb2_grpc

from integration.runtime import images, janitor
from integration.runtime.pod import CALL_TIMEOUT, Pod

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

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
conf_dir = "{folder}/net.d"
"""
START_TIMEOUT = 30.0
LOG_LINES = 40


class Containerd:
    """containerd in a node, with one network; a context manager.

    Args:
        node: where it runs; its `plugins` are the `bin_dir`.
        network: the network list.

    Attributes:
        group: the control group that all of its processes are in or below.
    """

    def __init__(self, node: Node, network: Mapping[str, Any]) -> None:
        self.node = node
        self.group = f"/cni-test-{uuid.uuid4().hex[:12]}"
        self._janitor = subprocess.Popen(
            [sys.executable, "-IS", janitor.__file__, self.group],
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is not meant for it
        )
        try:
            self._write_files(network)
            self._start()
        except BaseException:
            self.close()
            raise

    def _write_files(self, network: Mapping[str, Any]) -> None:
        with self.node.entered():
            os.makedirs(f"{FOLDER}/net.d")
            with open(f"{FOLDER}/net.d/10-test.conflist", "w", encoding="utf-8") as file:
                json.dump(network, file)
            with open(f"{FOLDER}/config.toml", "w", encoding="utf-8") as file:
                file.write(
                    CONFIG.format(
                        folder=FOLDER, socket=SOCKET, image=images.NAME, plugins=self.node.plugins
                    )
                )
            images.write_archive(f"{FOLDER}/image.tar")

    def _start(self) -> None:
        # One hierarchy is enough to find the process again, and on version 2 there is only one. The pods are
        # beside it, not below: a group of version 2 with controllers has processes only in its leaves.
        group = f"{self._hierarchy()}{self.group}/daemon"
        os.makedirs(group)
        script = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
        command = self.node.argv(["containerd", "--config", f"{FOLDER}/config.toml"])
        with open(self.node.path(f"{FOLDER}/log"), "wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", group, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
            )
        self._wait_for("its socket", lambda: os.path.exists(self.node.path(SOCKET)))
        self._channel = grpc.insecure_channel(f"unix:{self.node.path(SOCKET)}")
        grpc.channel_ready_future(self._channel).result(START_TIMEOUT)
        self.runtime = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.node.run(["ctr", "--namespace", "k8s.io", "images", "import", f"{FOLDER}/image.tar"])
        service = api_pb2_grpc.ImageServiceStub(self._channel)
        wanted = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=images.NAME))
        self._wait_for("the image", lambda: service.ImageStatus(wanted, timeout=CALL_TIMEOUT).image.id)
        self._wait_for("the network", self._network_ready)
